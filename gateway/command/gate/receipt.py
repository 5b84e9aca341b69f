"""Receipts: what was decided, proved without asking anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from billing_core.errors import InvalidInput
from billing_core.values.clock import from_ms
from gateway.command.client.answer import Answer
from gateway.command.client.door import Planes
from gateway.command.gate.view import money
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.document import read_bytes
from gateway.command.terminal.table import facts_of, table_of
from gateway.receipt import JWKS_PATH, Receipt, verify

receipts = typer.Typer(name="receipt", help="Signed decisions.", no_args_is_help=True)


class _Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A check's answer, of which only the receipt matters."""

    receipt: str


@hang(receipts, "verify")
def verify_receipt(
    desk: Desk,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A receipt, or the JSON answer that holds it; - is stdin.")
    ],
    *,
    jwks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Public keys; the gateway's if left out."),
    ] = None,
) -> None:
    """Prove what a receipt says. With --jwks nobody is asked. Status 1 where no key of the set has signed it."""
    token = _token_in(read_bytes(file))

    async def ask(planes: Planes) -> Answer[Receipt]:
        keys = read_bytes(jwks) if jwks else (await planes.gateway.get(JWKS_PATH, msgspec.Raw)).raw
        receipt = verify(token, keys)
        return Answer(value=receipt, raw=msgspec.json.encode(receipt))

    desk.show(ask, _page)


def _token_in(content: bytes) -> str:
    """The receipt in a file. Raises: InvalidInput where there is none."""
    text = content.decode(errors="replace").strip()
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.decode(text, type=_Answered).receipt
    except msgspec.DecodeError:
        raise InvalidInput("the answer holds none", field="receipt") from None


def _page(one: Receipt) -> RenderableType:
    said = "allowed" if one.allowed else f"refused: {one.reason} {one.refused_feature}".rstrip()
    head = facts_of(
        (
            ("signature", "good"),
            ("decision", said),
            ("id", one.decision_id),
            ("at", from_ms(one.at_ms).isoformat()),
            ("tenant", one.tenant),
            ("customer", one.customer),
            ("path", one.path),
            ("mode", one.mode),
            ("level", one.level),
            ("limit", one.limit),
            ("would", one.would),
            ("degraded", "yes" if one.degraded else ""),
            ("cost", money(one.cost_nanos, one.currency)),
            ("balance", money(one.balance_nanos, one.currency)),
            ("hold", one.hold),
        )
    )
    charges = table_of(
        ("Feature", ">Quantity", ">Limit", ">Remaining", "Resets", ">Cost"),
        (
            (
                charge.feature,
                charge.quantity,
                charge.limit_units,
                charge.remaining_units,
                "" if charge.reset_at_ms is None else from_ms(charge.reset_at_ms).isoformat(),
                money(charge.cost_nanos, charge.currency),
            )
            for charge in one.charges
        ),
    )
    return Group(head, "", charges)
