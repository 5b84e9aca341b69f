"""Holds: how what was set aside ends."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.command.client.decision import HoldEnd
from gateway.command.client.route import route
from gateway.command.gate.check import charge_of
from gateway.command.gate.view import hold_facts
from gateway.command.terminal.desk import Desk, hang

holds = typer.Typer(name="holds", help="Settle or release what was set aside.", no_args_is_help=True)

UsedArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FEATURE=QUANTITY]...", help="What was really used; all that was held if left out."),
]
HoldArgument = Annotated[str, typer.Argument(metavar="HOLD", help="The hold's id.")]


@hang(holds, "settle")
def settle(desk: Desk, hold_id: HoldArgument, *, charges: UsedArgument = None) -> None:
    """End a hold with what was really used; what is not named settles as held."""
    path = route("/v1/holds/{}/settle", hold_id)
    body = {"charges": [charge_of(text) for text in charges]} if charges else {}
    desk.show(lambda planes: planes.gateway.post(path, HoldEnd, body=body), hold_facts)


@hang(holds, "release")
def release(desk: Desk, hold_id: HoldArgument) -> None:
    """End a hold without charging anything."""
    path = route("/v1/holds/{}/release", hold_id)
    desk.show(lambda planes: planes.gateway.post(path, HoldEnd), hold_facts)
