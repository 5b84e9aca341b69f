"""Recognize: what was paid ahead becomes revenue as it is served.

Prepaid credit becomes revenue when it burns: movements of paid grants are added up per customer and day, stretch by
stretch of each shard's stream, and booked in the transaction that moves the shard's mark; `revenue.burn` says how.
What lapsed is breakage, what was drawn on an overdraft is owed until it is repaid. Promotional credit is in no
books. Fees become revenue day by day as their schedules say.

Worked example: a top-up of 25.00, of which 4.00 burned on 2 March and 21.00 lapsed on 1 June: burn 4.00 on 2 March,
breakage 21.00 on 1 June, and nothing is owed any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from billing_core.ledger.account import REVENUE, Account
from billing_core.revenue.burn import booked
from billing_core.revenue.schedule import earned
from billing_core.store.billing import schedule as schedules
from billing_core.store.billing.schedule import EarningTenant, Stretch
from billing_core.store.database import Database, Transaction
from billing_core.store.meter import plan_afresh
from billing_core.store.money import ledger
from billing_core.store.money.ledger import Balance
from billing_core.values.clock import to_ms
from billing_core.values.invariant import invariant

STRETCH_MS = 10_000
"""How long a shard's stretch grows before it is booked, so that a busy customer has some transfers a minute."""

SCHEDULES_EARNED_TOGETHER = 1_000


class RevenueLine(msgspec.Struct, frozen=True, kw_only=True):
    """What was recognized for one customer in one account and month, positive. Units: nanos."""

    month: str
    customer_id: str
    account: Account
    currency: str
    nanos: int


class RevenueReport(msgspec.Struct, frozen=True, kw_only=True):
    """Revenue of a stretch of time, and what is still owed as service at its end.

    `deferred` are fees billed ahead, `liabilities` prepaid balances; both per customer, positive.
    """

    lines: tuple[RevenueLine, ...]
    deferred: tuple[RevenueLine, ...]
    liabilities: tuple[RevenueLine, ...]


async def recognize_due(db: Database, *, now: datetime, stretch_ms: int = STRETCH_MS) -> int:
    """Book all burn that is flushed and all days of fees that are over. `now` is real time.

    How many: transfers of burn, and schedules that earned.

    A shard whose burn was booked less than `stretch_ms` ago waits.
    """
    async with db.transaction() as tx:
        stretches = await schedules.stretches(tx, recognized_before_ms=to_ms(now) - stretch_ms)
        tenants = await schedules.earning_tenants(tx, now=now)
    booked = 0
    for stretch in stretches:
        async with db.transaction() as tx:
            booked += await _burn(tx, stretch)
    for tenant in tenants:
        while count := await _earn(db, tenant, now=now):
            booked += count
    return booked


async def report(tx: Transaction, *, tenant_id: str, from_at: datetime, to_at: datetime) -> RevenueReport:
    """What was recognized within `[from, to)`, and what is owed as service at its end."""
    moved = await ledger.balances(tx, tenant_id=tenant_id, from_at=from_at, to_at=to_at)
    stands = await ledger.standing(tx, tenant_id=tenant_id, at=to_at)
    return RevenueReport(
        lines=_lines(moved, REVENUE),
        deferred=_lines(stands, {Account.DEFERRED_REVENUE}),
        liabilities=_lines(stands, {Account.CONTRACT_LIABILITY}),
    )


def _lines(balances: Sequence[Balance], accounts: frozenset[Account] | set[Account]) -> tuple[RevenueLine, ...]:
    return tuple(
        RevenueLine(
            month=one.month,
            customer_id=one.customer_id,
            account=one.account,
            currency=one.currency,
            nanos=-one.nanos,
        )
        for one in balances
        if one.account in accounts
    )


async def _burn(tx: Transaction, stretch: Stretch) -> int:
    """Book a stretch and move the mark behind it."""
    await plan_afresh(tx)
    shard, _, _, until_ms, until_seq = stretch.bounds
    burns = await schedules.burn_of(tx, stretch)
    counted = await schedules.counted(tx, burns)
    books = booked(burns, counted, source=f"{shard}:{until_ms}-{until_seq}")
    written = await ledger.book_all(tx, books.transfers)
    invariant(written == len(books.transfers), "a stretch is booked once")
    await schedules.mark_recognized(tx, stretch)
    await schedules.count(tx, books.counted)  # behind the mark: a flusher too takes the shard before its grants
    return written


async def _earn(db: Database, tenant: EarningTenant, *, now: datetime) -> int:
    """Book the finished days of some schedules; how many, 0 where none is due any more."""
    at = now + timedelta(milliseconds=tenant.clock_offset_ms)
    async with db.transaction() as tx:
        await plan_afresh(tx)
        due = await schedules.due(tx, tenant_id=tenant.tenant_id, at=at, most=SCHEDULES_EARNED_TOGETHER)
        if not due:
            return 0
        earnings = [earned(schedule, now=at) for schedule in due]
        transfers = [transfer for earning in earnings for transfer in earning.transfers]
        invariant(await ledger.book_all(tx, transfers) == len(transfers), "a day of a fee is booked once")
        await schedules.earn(tx, [earning.schedule for earning in earnings])
    return len(due)
