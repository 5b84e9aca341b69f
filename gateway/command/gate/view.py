"""What the gate answered, as a person reads it."""

from __future__ import annotations

from rich.console import Group, RenderableType

from gateway.command.client.bill import Usage
from gateway.command.client.decision import BatchAnswer, BatchItem, Decision, EventAnswers, HoldEnd, LiveUsage
from gateway.command.terminal.table import facts_of, nanos, table_of


def decision_page(one: Decision) -> RenderableType:
    """A decision: what was said, then each charge."""
    head = facts_of(
        (
            ("decision", said(one)),
            ("level", one.level),
            ("limit", one.limit),
            ("would", one.would),
            ("customer", one.customer),
            ("cost", money(one.cost_nanos, one.currency)),
            ("balance", money(one.balance_nanos, one.currency)),
            ("hold", None if one.hold is None else one.hold.id),
            ("expires", None if one.hold is None else one.hold.expires_at.isoformat()),
            ("retry after", None if one.retry_after_ms is None else f"{one.retry_after_ms} ms"),
            ("receipt", one.receipt),
        )
    )
    charges = table_of(
        ("Feature", ">Limit", ">Remaining", "Resets", ">Cost", "Value"),
        (
            (
                charge.feature,
                charge.limit_units,
                charge.remaining_units,
                "" if charge.reset_at is None else charge.reset_at.isoformat(),
                money(charge.cost_nanos, charge.currency),
                charge.value,
            )
            for charge in one.charges
        ),
    )
    return Group(head, "", charges) if one.charges else head


def batch_table(shown: BatchAnswer) -> RenderableType:
    """A batch: one line a check."""
    return table_of(
        (">Check", "Decision", ">Cost", ">Balance", "Hold"),
        ((number, *_batch_cells(one)) for number, one in enumerate(shown.answers, 1)),
    )


def _batch_cells(one: BatchItem) -> tuple[str, ...]:
    if one.problem is not None:
        return (f"no decision: {one.problem.detail}", "", "", "")
    hold = "" if one.hold is None else one.hold.id
    return (said(one), money(one.cost_nanos, one.currency), money(one.balance_nanos, one.currency), hold)


def hold_facts(one: HoldEnd) -> RenderableType:
    """What became of a hold."""
    return facts_of(
        (
            ("hold", one.hold),
            ("outcome", one.outcome),
            ("charged", money(one.charged_nanos, one.currency)),
            ("released", "" if one.expires_at else money(one.released_nanos, one.currency)),
            ("held", money(one.held_nanos, one.currency) if one.expires_at else ""),
            ("expires", None if one.expires_at is None else one.expires_at.isoformat()),
            ("uncollected", money(one.uncollected_nanos, one.currency) if one.uncollected_nanos else ""),
            ("balance", money(one.balance_nanos, one.currency)),
        )
    )


def event_page(shown: EventAnswers) -> RenderableType:
    """What became of events: how many, and each that was rejected."""
    counts = {status: sum(one.status == status for one in shown.results) for status in ("accepted", "duplicate")}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none accepted"
    rejected = [one for one in shown.results if one.status == "rejected"]
    if not rejected:
        return said
    table = table_of(
        ("Rejected", "Field", "Rule"),
        (
            (one.id, one.problem.field if one.problem else "", one.problem.detail if one.problem else "")
            for one in rejected
        ),
    )
    return Group(said, table)


def said(one: Decision) -> str:
    """What was decided, in a line."""
    if one.allowed:
        return "allowed without Redis" if one.degraded else "allowed"
    return f"refused: {one.reason} {one.refused_feature}".rstrip()


def live_page(shown: LiveUsage) -> RenderableType:
    """Features as the gateway sees them now, then each limit of each level."""
    features = table_of(
        ("Feature", "Kind", ">Used", ">Held", ">Limit", ">Remaining", "Resets", "Value"),
        (
            (
                one.feature,
                one.kind,
                one.used_units if one.kind == "metered" else None,
                one.held_units or None,
                one.limit_units,
                one.remaining_units,
                "" if one.reset_at is None else one.reset_at.isoformat(),
                one.value if one.kind != "switch" else ("on" if one.enabled else "off"),
            )
            for one in shown.features
        ),
    )
    bounds = table_of(
        ("Level", "Kind", "Feature", "Counter", ">Used", ">Held", ">Limit", ">Remaining", "Resets"),
        (
            (
                one.level,
                one.kind,
                one.feature,
                one.counter,
                *(
                    units if one.currency is None else money(units, one.currency)
                    for units in (one.used_units, one.held_units or None, one.limit_units, one.remaining_units)
                ),
                "" if one.reset_at is None else one.reset_at.isoformat(),
            )
            for one in shown.bounds
        ),
    )
    return Group(features, "", bounds) if shown.bounds else features


def usage_table(shown: Usage) -> RenderableType:
    """What was metered."""
    return table_of(
        ("Meter", "Group", ">Quantity", ">Events", ">Unreadable"),
        (
            (
                one.meter,
                " ".join(f"{name}={value}" for name, value in one.group.items()),
                one.quantity,
                one.event_count,
                one.unreadable_count or None,
            )
            for one in shown.items
        ),
    )


def money(amount_nanos: int | None, currency: str | None) -> str:
    """An amount with its currency; nothing where one of them is missing."""
    return "" if amount_nanos is None or not currency else nanos(amount_nanos, currency)
