"""Grant: put credit into a wallet, or take back what is left of it.

Both write Postgres only and leave a row in the outbox; the relay carries it to Redis, where it counts from the very
next decision on. Both join the transaction of their caller, so that a top-up's payment, its booking and its grant
happen together or not at all.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from billing_core.errors import NotFound
from billing_core.store import outbox
from billing_core.store.database import Transaction
from billing_core.store.money import grant as grants
from billing_core.store.outbox import OutboxKind
from billing_core.values.ids import new_id
from billing_core.wallets.grant import GrantOrder, check_order, check_room


async def issue(tx: Transaction, order: GrantOrder, *, now: datetime) -> str:
    """Write the grant and have it projected; its id. `now` is real time.

    Raises: NotFound where the customer does not exist; InvalidInput or Unprocessable where the order breaks a rule.
    """
    standing = await grants.lock_standing(
        tx, tenant_id=order.tenant_id, customer_id=order.customer_id, currency=order.currency
    )
    if standing is None:
        raise NotFound(f"there is no customer {order.customer_id!r}", field="customer_id")
    tenant_now = now + timedelta(milliseconds=standing.clock_offset_ms)
    check_order(order, now=tenant_now)
    check_room(order, standing_nanos=standing.standing_nanos)
    grant_id = new_id("gra", now=tenant_now)
    await grants.insert(tx, order, grant_id=grant_id, created_at=tenant_now)
    await outbox.push(
        tx, OutboxKind.GRANT, tenant_id=order.tenant_id, customer_id=order.customer_id, subject=grant_id
    )
    return grant_id


async def void(tx: Transaction, *, tenant_id: str, grant_id: str, now: datetime) -> bool:
    """Take what is left of a grant out of the wallet; False where it was void already. `now` is real time.

    What is held at this moment may still be settled; what a hold gives back afterwards lapses too.

    Raises: NotFound where the grant does not exist.
    """
    row = await grants.by_id(tx, tenant_id=tenant_id, grant_id=grant_id)
    if row is None:
        raise NotFound(f"there is no grant {grant_id!r}", field="grant_id")
    if not await grants.mark_void(tx, tenant_id=tenant_id, grant_id=grant_id, at=now):
        return False
    await outbox.push(tx, OutboxKind.LAPSE, tenant_id=tenant_id, customer_id=row.customer_id, subject=grant_id)
    return True
