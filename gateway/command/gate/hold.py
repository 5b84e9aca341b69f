"""Holds: how what was set aside ends."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from gateway.command.client.decision import Decision, HoldEnd
from gateway.command.client.route import route
from gateway.command.gate.check import charge_of
from gateway.command.gate.view import decision_page, hold_facts
from gateway.command.terminal.desk import Desk, hang

holds = typer.Typer(name="holds", help="Extend, settle or release what was set aside.", no_args_is_help=True)

UsedArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FEATURE=QUANTITY]...", help="What was really used; all that was held if left out."),
]
HoldArgument = Annotated[str, typer.Argument(metavar="HOLD", help="The hold's id.")]


class _ChangeDraft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change of a hold as the gateway takes it."""

    charges: list[dict[str, str | int]] | None = None
    final: bool = True
    ttl_ms: int | None = None
    idempotency_key: str | None = None


@hang(holds, "settle")
def settle(
    desk: Desk,
    hold_id: HoldArgument,
    *,
    charges: UsedArgument = None,
    part: Annotated[bool, typer.Option("--part", help="Charge so much now, and keep the rest held.")] = False,
    ttl_ms: Annotated[int | None, typer.Option(help="How long the rest is held from now on.")] = None,
    idempotency_key: Annotated[str, typer.Option(help="Names this part, so that a retry charges nothing.")] = "",
) -> None:
    """End a hold with what was really used; what is not named settles as held."""
    path = route("/v1/holds/{}/settle", hold_id)
    body = _ChangeDraft(
        charges=[charge_of(text) for text in charges] if charges else None,
        final=not part,
        ttl_ms=ttl_ms,
        idempotency_key=idempotency_key or None,
    )
    desk.show(lambda planes: planes.gateway.post(path, HoldEnd, body=body), hold_facts)


@hang(holds, "extend")
def extend(
    desk: Desk,
    hold_id: HoldArgument,
    *,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[FEATURE=QUANTITY]...", help="What more is set aside.")
    ] = None,
    ttl_ms: Annotated[int, typer.Option(help="How long it lives from now on.")],
    idempotency_key: Annotated[str, typer.Option(help="A retry under the same key gets the first answer.")] = "",
) -> None:
    """Keep a hold for longer, and set more aside on it. Status 1 where that is refused."""
    path = route("/v1/holds/{}/extend", hold_id)
    body = _ChangeDraft(
        charges=[charge_of(text) for text in more] if more else None,
        ttl_ms=ttl_ms,
        idempotency_key=idempotency_key or None,
    )
    if not desk.show(lambda planes: planes.gateway.post(path, Decision, body=body), decision_page).allowed:
        raise typer.Exit(1)


@hang(holds, "release")
def release(desk: Desk, hold_id: HoldArgument) -> None:
    """End a hold without charging anything."""
    path = route("/v1/holds/{}/release", hold_id)
    desk.show(lambda planes: planes.gateway.post(path, HoldEnd), hold_facts)
