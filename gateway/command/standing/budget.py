"""Budgets: how a customer's means are shared out below it, written from a TOML file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.document import read_toml
from gateway.command.terminal.option import CustomerArgument
from gateway.command.terminal.table import day, facts_of, table_of

budgets = typer.Typer(
    name="budgets", help="Limits and spend caps of teams, projects, users and keys.", no_args_is_help=True
)


class _Guard(msgspec.Struct, frozen=True, kw_only=True):
    feature: str


class _Cap(msgspec.Struct, frozen=True, kw_only=True):
    amount: str
    currency: str = ""
    interval: str = "lifetime"


class _Node(msgspec.Struct, frozen=True, kw_only=True):
    node: str = ""
    guards: tuple[_Guard, ...] = ()
    spend_caps: tuple[_Cap, ...] = ()


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    nodes: tuple[_Node, ...] = ()


class _Budgets(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str
    document: _Document = _Document()
    written_at: datetime | None = None


@hang(budgets, "show")
def show_budgets(desk: Desk, customer_id: CustomerArgument) -> None:
    """A customer's budgets as they were written; `entitlements show` tells what comes of them."""
    path = route("/v1/customers/{}/budgets", customer_id)
    desk.show(lambda planes: planes.control.get(path, _Budgets), _page)


@hang(budgets, "apply")
def apply_budgets(
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="All budgets of the customer, in TOML.")],
) -> None:
    """Replace a customer's budgets, whole: what the file does not name is gone."""
    path = route("/v1/customers/{}/budgets", customer_id)
    desk.show(lambda planes: planes.control.put(path, _Budgets, body=read_toml(file)), _page)


def _page(shown: _Budgets) -> RenderableType:
    head = facts_of((("customer", shown.customer_id), ("written", day(shown.written_at))))
    rows = (
        (
            one.node or "customer",
            ", ".join(guard.feature for guard in one.guards),
            ", ".join(f"{cap.amount} {cap.currency} a {cap.interval}" for cap in one.spend_caps),
        )
        for one in shown.document.nodes
    )
    return Group(head, "", table_of(("Node", "Guarded features", "Spend caps"), rows))
