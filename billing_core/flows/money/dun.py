"""Dun: who does not pay is not served, and who has paid is served again, at once.

A customer is suspended by dunning when the last attempt to collect an invoice has failed, or when one is unpaid a
stated number of days after it was due. The payment that clears what is overdue lifts it. Both are written in the
transaction of their cause, with the row of the outbox that tells the gateway. A suspension by the operator is
another cause: a payment does not lift it, and resuming does not lift the one by dunning.

Whoever suspends or lifts locks the customer first and looks at the invoices after, so that of a payment and a
suspension that meet, the second sees what the first has done.

Worked example: the card fails for the fourth time on 10 March: suspended. A wire pays that invoice on 12 March, and
another one has been due since 11 March: suspended still. That one is paid too: served.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from billing_core.store import outbox
from billing_core.store.database import Database, Transaction
from billing_core.store.outbox import OutboxKind
from billing_core.store.setup import customer as customers

_CUSTOMERS_AT_ONCE = 500


async def suspend(tx: Transaction, *, tenant_id: str, customer_id: str, now: datetime) -> None:
    """Serve the customer no longer until it has paid; twice is once. `now` is real time.

    Raises: NotFound.
    """
    standing = await customers.lock(tx, tenant_id, customer_id=customer_id)
    if not standing.is_dunned:
        since = now + timedelta(milliseconds=standing.clock_offset_ms)
        await customers.set_dunned(tx, tenant_id, customer_id=customer_id, since=since)
        await outbox.push(tx, OutboxKind.SNAPSHOT, tenant_id=tenant_id, customer_id=customer_id)


async def lift(tx: Transaction, *, tenant_id: str, customer_id: str, now: datetime) -> bool:
    """Serve the customer again where nothing is overdue any more; whether a suspension ended. `now` is real time.

    Raises: NotFound.
    """
    standing = await customers.lock(tx, tenant_id, customer_id=customer_id)
    at = now + timedelta(milliseconds=standing.clock_offset_ms)
    if not standing.is_dunned or await customers.count_arrears(tx, tenant_id, customer_id=customer_id, at=at):
        return False
    await customers.set_dunned(tx, tenant_id, customer_id=customer_id, since=None)
    await outbox.push(tx, OutboxKind.SNAPSHOT, tenant_id=tenant_id, customer_id=customer_id)
    return True


async def dun_due(db: Database, *, now: datetime, overdue_days: int) -> int:
    """Suspend everybody with an invoice that is overdue for so many days; how many. `now` is real time.

    A number of days below zero suspends nobody.
    """
    total = 0
    while overdue_days >= 0:
        async with db.transaction() as tx:
            found = await customers.lock_overdue(tx, now=now, overdue_days=overdue_days, most=_CUSTOMERS_AT_ONCE)
            dunned = await customers.dun(tx, found, now=now, overdue_days=overdue_days) if found else []
            for one in dunned:
                await outbox.push(tx, OutboxKind.SNAPSHOT, tenant_id=one.tenant_id, customer_id=one.customer_id)
        total += len(dunned)
        if len(found) < _CUSTOMERS_AT_ONCE:
            break
    return total
