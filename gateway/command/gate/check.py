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
    typer.Argument(
        metavar="FEATURE[=QUANTITY]...",
        help="What is asked for; the quantity is 1 if left out. Of a gauge seats=-2 is two less, seats==5 sets it.",
    ),
]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a check is to be decided; None and False are left out."""

    ttl_ms: int | None
    idempotency_key: str | None
    deadline_ms: int | None
    shadow: bool | None
    receipt: bool | None


def terms(
    *,
    ttl_ms: Annotated[int | None, typer.Option(help="How long a hold lives.")] = None,
    idempotency_key: Annotated[str, typer.Option(help="A retry under the same key gets the first answer.")] = "",
    deadline_ms: Annotated[int | None, typer.Option(help="By when the answer is needed.")] = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="Record what would be refused; refuse nothing.")] = False,
    receipt: Annotated[bool, typer.Option("--receipt", help="Have the decision signed.")] = False,
) -> Terms:
    """The options of a decision."""
    return Terms(
        ttl_ms=ttl_ms,
        idempotency_key=idempotency_key or None,
        deadline_ms=deadline_ms,
        shadow=shadow or None,
        receipt=receipt or None,
    )


def check(  # noqa: PLR0913 - the options of a command
    desk: Desk,
    charges: ChargesArgument,
    *,
    key: Annotated[str, typer.Option(envvar="TALLYGATE_KEY", help="The caller's API key.")] = "",
    customer: Annotated[str, typer.Option(help="Or the customer's id, with an operator token.")] = "",
    path: Annotated[str, typer.Option(help="Budgets below that customer, such as team:ml/key:k1.")] = "",
    mode: Annotated[str, typer.Option(help="consume, peek, hold or record.")] = "consume",
    terms: Terms,
) -> None:
    """Ask the gate: may this caller do this now? Status 1 where it is refused."""
    told = {"key": key, "customer": customer, "path": path, **msgspec.structs.asdict(terms)}
    told["mode"] = "" if mode == "consume" else mode
    draft = {name: value for name, value in told.items() if value not in ("", None)}
    draft["charges"] = [charge_of(text) for text in charges]
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
    """`tokens=12` as a charge, `seats=-2` as a change of a gauge, `seats==5` as its new level.

    Raises: InvalidInput where the quantity is no whole number.
    """
    feature, _, quantity = text.partition("=")
    name, digits = ("set", quantity[1:]) if quantity.startswith("=") else ("quantity", quantity or "1")
    if not digits.removeprefix("-" if name == "quantity" else "").isdecimal():
        raise InvalidInput(f"{quantity!r} is not a whole number", field=feature)
    return {"feature": feature, name: int(digits)}
