"""Checks: may this caller do this now?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from billing_core.errors import InvalidInput
from gateway.command.client.decision import BatchAnswer, Decision
from gateway.command.gate.view import batch_table, decision_page
from gateway.command.terminal.desk import Desk
from gateway.command.terminal.document import read_events

ChargesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FEATURE[=QUANTITY]...", help="What is asked for; the quantity is 1 if left out."),
]


class _CheckDraft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A check as the gateway takes it."""

    charges: list[dict[str, str | int]]
    key: str | None = None
    customer: str | None = None
    mode: str = "consume"
    ttl_ms: int | None = None
    idempotency_key: str | None = None


def check(  # noqa: PLR0913 - the options of a command
    desk: Desk,
    charges: ChargesArgument,
    *,
    key: Annotated[str, typer.Option(envvar="TALLYGATE_KEY", help="The caller's API key.")] = "",
    customer: Annotated[str, typer.Option(help="Or the customer's id, with an operator token.")] = "",
    mode: Annotated[str, typer.Option(help="consume, peek or hold.")] = "consume",
    ttl_ms: Annotated[int | None, typer.Option(help="How long a hold lives.")] = None,
    idempotency_key: Annotated[str, typer.Option(help="A retry under the same key gets the first answer.")] = "",
) -> None:
    """Ask the gate: may this caller do this now? Status 1 where it is refused."""
    draft = _CheckDraft(
        charges=[charge_of(text) for text in charges],
        key=key or None,
        customer=customer or None,
        mode=mode,
        ttl_ms=ttl_ms,
        idempotency_key=idempotency_key or None,
    )
    if not desk.show(lambda planes: planes.gateway.post("/v1/check", Decision, body=draft), decision_page).allowed:
        raise typer.Exit(1)


def check_batch(
    desk: Desk,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Bodies of checks in JSON, an array or one a line.")],
) -> None:
    """Ask the gate many things at once; one answer each, in their order."""
    body = {"checks": read_events(file)}
    desk.show(lambda planes: planes.gateway.post("/v1/check/batch", BatchAnswer, body=body), batch_table)


def charge_of(text: str) -> dict[str, str | int]:
    """`tokens=12` as a charge.

    Raises: InvalidInput where the quantity is no whole number.
    """
    feature, _, quantity = text.partition("=")
    if quantity and not quantity.isdecimal():
        raise InvalidInput(f"{quantity!r} is not a whole number", field=feature)
    return {"feature": feature, "quantity": int(quantity or 1)}
