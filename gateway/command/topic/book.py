"""The books: trial balance, recognized revenue, and the proof that wallets and Postgres agree."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Group, RenderableType

from gateway.command.client.answer import Answer
from gateway.command.client.bill import Loss, Reconciliation, Revenue, ShadowDecisions, TrialBalance
from gateway.command.client.door import Planes
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.option import CustomerFilter, Limit, Since, Until, instant_or_none, key_or_new
from gateway.command.terminal.table import day, nanos, table_of

_MOST_SHADOWS: Final = 500
_ALWAYS: Final = frozenset({"granted", "difference"})

ledger = typer.Typer(name="ledger", help="The double-entry books.", no_args_is_help=True)


@hang(ledger, "trial-balance")
def show_trial_balance(desk: Desk) -> None:
    """All accounts; per currency they add up to zero."""
    desk.show(lambda planes: planes.control.get("/v1/ledger/trial-balance", TrialBalance), trial_balance_table)


def show_revenue(desk: Desk, *, since: Since = "", until: Until = "") -> None:
    """Revenue recognized in a stretch of time, by month, customer and account."""
    query = {"from": instant_or_none(since, field="from") or "", "to": instant_or_none(until, field="to") or ""}
    desk.show(lambda planes: planes.control.get("/v1/revenue", Revenue, query=query), revenue_table)


def show_shadow_decisions(
    desk: Desk, *, customer_id: CustomerFilter = "", since: Since = "", until: Until = "", limit: Limit = 20
) -> None:
    """What shadow mode let through: how often each reason would have been given, then single decisions."""
    query = {
        "from": instant_or_none(since, field="from") or "",
        "to": instant_or_none(until, field="to") or "",
        "customer_id": customer_id,
        "limit": str(min(limit, _MOST_SHADOWS) or _MOST_SHADOWS),
    }
    desk.show(lambda planes: planes.control.get("/v1/shadow-decisions", ShadowDecisions, query=query), shadow_page)


def reconcile(
    desk: Desk,
    *,
    counters: Annotated[
        bool, typer.Option("--counters", help="Recount limits, prices, caps and gauges too.")
    ] = False,
) -> None:
    """Prove that every grant adds up: granted = spent + not yet flushed + held + remaining. Status 1 where not."""
    path = "/v1/reconcile?counters=true" if counters else "/v1/reconcile"

    async def prove(planes: Planes) -> Answer[Reconciliation]:
        return await planes.control.post(path, Reconciliation, idempotency_key=key_or_new(""))

    if not desk.show(prove, reconciliation_page).is_zero:
        raise typer.Exit(1)


def hang_here(app: typer.Typer) -> None:
    """Register the commands that stand alone."""
    hang(app, "revenue")(show_revenue)
    hang(app, "reconcile")(reconcile)
    hang(app, "shadow-decisions")(show_shadow_decisions)


def trial_balance_table(shown: TrialBalance) -> RenderableType:
    """Accounts with debit and credit, and the sums that must agree."""
    currencies = sorted({one.currency for one in shown.accounts})
    rows: list[tuple[str, ...]] = []
    for currency in currencies:
        own = [one for one in shown.accounts if one.currency == currency]
        rows += [
            (one.account, nanos(max(one.nanos, 0), currency), nanos(max(-one.nanos, 0), currency)) for one in own
        ]
        debit = sum(max(one.nanos, 0) for one in own)
        credit = sum(max(-one.nanos, 0) for one in own)
        rows.append((f"sum {currency}", nanos(debit, currency), nanos(credit, currency)))
    return table_of(("Account", ">Debit", ">Credit"), rows)


def revenue_table(shown: Revenue) -> RenderableType:
    """Recognized revenue, one month, customer and account a line."""
    return table_of(
        ("Month", "Customer", "Account", ">Recognized"),
        ((one.month, one.customer_id, one.account, nanos(one.nanos, one.currency)) for one in shown.items),
    )


def shadow_page(shown: ShadowDecisions) -> RenderableType:
    """How often each reason would have been given, and the decisions of the page."""
    counted = table_of(
        ("Reason", ">Requests", ">Customers"),
        ((one.reason.replace("_", " "), one.decisions, one.customers) for one in shown.reasons),
    )
    single = table_of(
        ("Decided", "Customer", "Feature", ">Quantity", "Reason", "Level"),
        (
            (
                day(one.decided_at),
                one.customer_id,
                one.feature,
                one.quantity,
                one.reason.replace("_", " "),
                one.level,
            )
            for one in shown.items
        ),
    )
    return Group(counted, "", single)


def reconciliation_page(shown: Reconciliation) -> RenderableType:
    """The parts that all grants are in, and that they add up, or what does not."""
    parts = (
        ("granted", shown.granted_nanos),
        ("spent", shown.spent_nanos),
        ("lapsed", shown.lapsed_nanos),
        ("not yet flushed", shown.unflushed_nanos),
        ("held", shown.held_nanos),
        ("remaining", shown.remaining_nanos),
        ("not yet applied", shown.pending_nanos),
        ("difference", shown.difference_nanos),
    )
    sums: RenderableType = table_of(
        (f"{shown.grants} grants", ">Nanos"), (part for part in parts if part[1] or part[0] in _ALWAYS)
    )
    if shown.losses:
        sums = Group(sums, "", _losses_table(shown.losses))
    if shown.is_zero:
        return sums
    wrong = table_of(
        ("Law", "Customer", "Grant", ">Difference (nanos)", "Detail"),
        (
            (one.law.replace("_", " "), one.customer_id, one.grant_id, one.difference_nanos, one.detail)
            for one in shown.findings
        ),
        title="What does not add up",
    )
    return Group(sums, "", wrong)


def _losses_table(losses: tuple[Loss, ...]) -> RenderableType:
    """What was lost when another server took over a shard; it all adds up without it."""
    rows = [
        (day(one.noticed_at), one.shard, one.kept, one.flushed, one.missed_acts, one.lost_decisions)
        for one in losses
    ]
    heads = ("Noticed", ">Shard", "Kept to", "Flushed to", ">Acts told again", ">Decisions lost")
    return table_of(heads, rows, title="What another server did not have when it took over")
