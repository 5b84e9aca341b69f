"""Guards in one line each, for every table that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from rich.console import RenderableType

from gateway.command.terminal.table import nanos, table_of


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    """A limit and its windows, which its counter names."""

    counter: str
    units: int
    ceiling: int | None = None
    carry_units: int = 0


class RateView(msgspec.Struct, frozen=True, kw_only=True):
    """A rate and what it counts, which its counter names."""

    counter: str
    units: int
    burst_units: int = 0


class GuardView(msgspec.Struct, frozen=True, kw_only=True):
    """What holds one feature back at one place."""

    feature: str = ""
    limits: tuple[LimitView, ...] = ()
    rates: tuple[RateView, ...] = ()
    concurrent: int | None = None


class SpendCapView(msgspec.Struct, frozen=True, kw_only=True):
    """A cap and its windows, which its counter names."""

    counter: str
    currency: str
    nanos: int
    ceiling: int | None = None


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """What holds one node back."""

    node: str
    guards: tuple[GuardView, ...] = ()
    spend_caps: tuple[SpendCapView, ...] = ()


def guard_rows(guard: GuardView) -> Iterator[str]:
    """`1,000 a month`, `60 a minute (10 at once)`, `3 at one time`."""
    for limit in guard.limits:
        window = limit.counter.rpartition("@")[2]
        soft = "" if limit.ceiling is not None else ", soft"
        grace = f", refused above {limit.ceiling:,}" if limit.ceiling not in (None, limit.units) else ""
        carried = f", carries {limit.carry_units:,}" if limit.carry_units else ""
        yield f"{limit.units:,} a {window}{soft}{grace}{carried}"
    for rate in guard.rates:
        per, _, unit = rate.counter.rpartition("~")[2].partition(".")
        yield f"{rate.units:,} {unit or 'requests'} per {per} ({rate.burst_units:,} at once)"
    if guard.concurrent is not None:
        yield f"{guard.concurrent:,} at one time"


def node_table(budgets: Iterable[BudgetView]) -> RenderableType:
    """Budgets node by node."""
    return table_of(
        ("Node", "Feature", "Bounds"), (row for budget in budgets for row in _node_rows(budget)), title="Budgets"
    )


def _node_rows(budget: BudgetView) -> Iterator[tuple[str, str, str]]:
    for guard in budget.guards:
        yield budget.node, guard.feature, "; ".join(guard_rows(guard)) or "no bounds"
    for cap in budget.spend_caps:
        window = cap.counter.rpartition("@")[2]
        soft = "" if cap.ceiling is not None else ", soft"
        grace = (
            f", refused above {nanos(cap.ceiling, cap.currency)}" if cap.ceiling not in (None, cap.nanos) else ""
        )
        yield budget.node, "money", f"{nanos(cap.nanos, cap.currency)} a {window}{soft}{grace}"
