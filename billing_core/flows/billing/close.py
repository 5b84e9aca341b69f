"""Close: periods that have ended become invoices, and the next ones are opened.

For each tenant, as long as periods are due: a cut is taken under the lock that every writer of usage shares, so
that what was recorded before it is all there; the periods are metered as of that cut; then they are priced and
closed, some hundred in a transaction, each with its invoice, its next period and its bookings. Two transactions are
under way at a time: while one writes its bills, the next locks its periods and prices them. A period is due when
the tenant's clock has passed its end and everything that was decided before that end is flushed.

Killed anywhere, what was committed is whole and the rest is done by the next run: a period is closed by moving its
state under lock, so two closes never bill it twice. What is recorded after the cut is late; the next close of the
subscription rates the closed period again and bills the difference. Where the plan changes with the period's end,
the period that follows is the new plan's, and so is the fee on the bill.

Worked example: 10,000 customers on one plan with two meters, closing March: two aggregate queries, then 20
transactions of 500 invoices.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from billing_core.catalog.catalog import PlanVersion
from billing_core.flows.billing import bill
from billing_core.flows.billing.rate import MeteredPeriod, PeriodName, RatedPeriod, meter, rate
from billing_core.flows.billing.subscribe import fee_share
from billing_core.invoices.correction import differences_of, fitted
from billing_core.invoices.invoice import InvoiceReason, totals_of
from billing_core.invoices.line import Line, fee_line
from billing_core.store.billing import invoice as invoices
from billing_core.store.billing import subscription as subscriptions
from billing_core.store.billing.invoice import BilledPeriod
from billing_core.store.billing.subscription import ClosingPeriod, DueTenant, LatePeriod, NextPeriod, PeriodKey
from billing_core.store.database import Database, Transaction
from billing_core.store.setup.catalog import plan_version
from billing_core.subscriptions.subscription import Act, Phase, phase_after
from billing_core.subscriptions.term import Calendar

PERIODS_METERED_TOGETHER = 20_000
INVOICES_WRITTEN_TOGETHER = 500
LATE_REACH = timedelta(days=93)
"""How long after its end a closed period is looked at for late events, counted from the period that closes."""


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """A closed period that costs something else now, and the lines that say so."""

    period: LatePeriod
    lines: tuple[Line, ...]


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Periods as they are to be billed, as of one cut; corrections by subscription."""

    tenant: DueTenant
    finalize: bool
    now: datetime
    cut_at: datetime
    keys: tuple[PeriodKey, ...]
    metered: dict[PeriodName, MeteredPeriod]
    corrections: dict[str, list[Correction]]


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """What the close of one period writes: its bill, and the period that follows or the end."""

    period: ClosingPeriod
    bill: bill.Bill
    following: NextPeriod | None
    corrected: tuple[LatePeriod, ...]


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """When the bills of one transaction may be written: once those before it are committed."""

    before: asyncio.Task[int] | None
    has_come: asyncio.Event


async def close_due(db: Database, *, now: datetime, finalize: bool = True) -> int:
    """Close every period that is due, of every tenant; how many. `now` is real time.

    Where `finalize` is off, the invoices stay drafts until somebody finalizes them.
    """
    async with db.transaction() as tx:
        tenants = await subscriptions.due_tenants(tx, now=now)
    closed = 0
    for tenant in tenants:
        while prepared := await _prepare(db, tenant, now=now, finalize=finalize):
            closed += await _close_all(db, prepared)
    return closed


async def _close_all(db: Database, prepared: Prepared) -> int:
    """Close all that was prepared, some hundred in a transaction, in their order; how many.

    Raises: the first failure; what was not committed by then has not happened.
    """
    parts: list[asyncio.Task[int]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for first in range(0, len(prepared.keys), INVOICES_WRITTEN_TOGETHER):
                turn = Turn(before=parts[-1] if parts else None, has_come=asyncio.Event())
                keys = prepared.keys[first : first + INVOICES_WRITTEN_TOGETHER]
                parts.append(group.create_task(_close(db, prepared, keys=keys, turn=turn)))
                await turn.has_come.wait()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return sum(part.result() for part in parts)


async def _prepare(db: Database, tenant: DueTenant, *, now: datetime, finalize: bool) -> Prepared | None:
    """Meter what is due; None where nothing is."""
    async with db.transaction() as tx:
        keys = await subscriptions.due(tx, tenant, most=PERIODS_METERED_TOGETHER)
    if not keys:
        return None
    async with db.transaction() as tx:
        cut_at = await subscriptions.cut(tx)
    async with db.transaction() as tx:
        metered = await meter(tx, tenant.tenant_id, keys=keys, recorded_until=cut_at)
        corrections = await _corrections(tx, tenant.tenant_id, keys=keys, cut_at=cut_at)
    return Prepared(
        tenant=tenant,
        finalize=finalize,
        now=now + timedelta(milliseconds=tenant.clock_offset_ms),
        cut_at=cut_at,
        keys=tuple(keys),
        metered=metered,
        corrections=corrections,
    )


async def _corrections(
    tx: Transaction, tenant_id: str, *, keys: Sequence[PeriodKey], cut_at: datetime
) -> dict[str, list[Correction]]:
    """What came late for closed periods of these subscriptions, and what it changes."""
    late = await subscriptions.late(
        tx,
        tenant_id=tenant_id,
        subscription_ids=[key.subscription_id for key in keys],
        ended_after=min(key.start_at for key in keys) - LATE_REACH,
        cut_at=cut_at,
    )
    again = await rate(tx, tenant_id, keys=late, recorded_until=cut_at)
    billed: dict[PeriodName, list[BilledPeriod]] = defaultdict(list)
    for one in await invoices.billed_for(
        tx,
        tenant_id=tenant_id,
        subscription_ids=[period.subscription_id for period in late],
        start_ats=[period.start_at for period in late],
    ):
        billed[(one.subscription_id, one.start_at)].append(one)
    found: dict[str, list[Correction]] = defaultdict(list)
    for period in late:
        name = (period.subscription_id, period.start_at)
        lines = differences_of(again[name].lines, billed[name], cut=period.cut_at)
        found[period.subscription_id].append(Correction(period=period, lines=tuple(lines)))
    return found


async def _close(db: Database, prepared: Prepared, *, keys: Sequence[PeriodKey], turn: Turn) -> int:
    """Close those of the periods that are still open; how many. Bills are numbered in the order of the turns."""
    async with db.transaction() as tx:
        closings = await _reckon(tx, prepared, keys=keys)
        if turn.before is not None:
            await turn.before
        turn.has_come.set()
        await bill.write(tx, [one.bill for one in closings], now=prepared.now, finalize=prepared.finalize)
    return len(closings)


async def _reckon(tx: Transaction, prepared: Prepared, *, keys: Sequence[PeriodKey]) -> list[Closing]:
    """Lock and close those of the periods that are still open, and open what follows; the bills are not written."""
    tenant_id = prepared.tenant.tenant_id
    await tx.plan_once()
    ends = {(key.subscription_id, key.start_at): key.end_at for key in keys}
    found = await subscriptions.lock_for_close(tx, tenant_id=tenant_id, keys=keys)
    locked = [one for one in found if one.end_at == ends[one.subscription_id, one.start_at]]
    plans = await _plans_that_follow(tx, tenant_id, periods=locked)
    closings = [_closing(prepared, period, plans=plans) for period in locked]
    await subscriptions.close(tx, tenant_id=tenant_id, keys=locked, closed_at=prepared.now, cut_at=prepared.cut_at)
    ended = [one.period for one in closings if one.following is None]
    await subscriptions.end(tx, tenant_id=tenant_id, last=ended)
    following = [one.following for one in closings if one.following is not None]
    await subscriptions.open_all(tx, tenant_id=tenant_id, periods=following)
    corrected = [period for one in closings for period in one.corrected]
    await subscriptions.mark_corrected(tx, tenant_id=tenant_id, keys=corrected, cut_at=prepared.cut_at)
    moved = [period for period in locked if period.change is not None]
    await subscriptions.move_on(tx, tenant_id=tenant_id, subscription_ids=[one.subscription_id for one in moved])
    customers = [period.customer_id for period in (*ended, *moved)]
    await subscriptions.push_snapshots(tx, tenant_id=tenant_id, customer_ids=customers)
    return closings


async def _plans_that_follow(
    tx: Transaction, tenant_id: str, *, periods: Sequence[ClosingPeriod]
) -> dict[tuple[str, int], PlanVersion]:
    """The plans that are changed to with these periods' ends."""
    names = {(change.plan_code, change.plan_version) for one in periods if (change := one.change)}
    return {
        (code, version): await plan_version(tx, tenant_id, plan_code=code, version=version)
        for code, version in sorted(names)
    }


def _closing(prepared: Prepared, period: ClosingPeriod, *, plans: dict[tuple[str, int], PlanVersion]) -> Closing:
    """The bill of a period under lock: its usage, what came late for others, and the fee of the next one."""
    rated = prepared.metered[(period.subscription_id, period.start_at)].rated()
    following, fees = _following(rated, period, plans=plans)
    lines = [*rated.lines, *fees]
    corrections = prepared.corrections.get(period.subscription_id, [])
    corrected: list[LatePeriod] = []
    for correction in corrections:
        fit = fitted(correction.lines, other=totals_of(lines))
        lines += fit.lines
        corrected += [correction.period] if fit.is_complete else []
    return Closing(
        period=period,
        bill=bill.Bill(occasion=_occasion(prepared, period, rated=rated), lines=tuple(lines)),
        following=following,
        corrected=tuple(corrected),
    )


def _following(
    rated: RatedPeriod, period: ClosingPeriod, *, plans: dict[tuple[str, int], PlanVersion]
) -> tuple[NextPeriod | None, list[Line]]:
    """The period that follows, with its fee line; none where this one was the last."""
    if period.cancel_at_end:
        phase_after(Phase.ENDING, Act.END)
        return None, []
    phase_after(Phase.ACTIVE, Act.RENEW)
    plan, anchor_at = rated.plan, period.anchor_at
    if change := period.change:
        plan, anchor_at = plans[change.plan_code, change.plan_version], change.anchor_at
    calendar = Calendar(interval=plan.terms.plan.interval, anchor_at=anchor_at, time_zone=period.time_zone)
    service = calendar.period_from(period.end_at)
    fee = fee_line(plan, service, share=fee_share(calendar, service))
    following = NextPeriod(
        subscription_id=period.subscription_id,
        customer_id=period.customer_id,
        period=service,
        plan_code=plan.terms.plan.code,
        plan_version=plan.version,
        anchor_at=anchor_at,
    )
    return following, [] if fee is None else [fee]


def _occasion(prepared: Prepared, period: ClosingPeriod, *, rated: RatedPeriod) -> bill.Occasion:
    return bill.Occasion(
        tenant_id=prepared.tenant.tenant_id,
        subscription_id=period.subscription_id,
        customer_id=period.customer_id,
        reason=InvoiceReason.PERIOD,
        period=rated.key.period,
        currency=rated.plan.terms.plan.currency,
        time_zone=period.time_zone,
        collection=period.collection,
        terms_days=period.payment_terms_days,
    )
