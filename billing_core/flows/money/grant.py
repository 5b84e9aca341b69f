"""Grant: put credit into a wallet, take back what is left of it, or let less of it be overdrawn.

All write Postgres only and leave a row in the outbox; the relay carries it to Redis, where it counts from the very
next decision on (the control plane has it carried before it answers). All join the transaction of their caller, so
that a top-up's payment, its booking and its grant happen together or not at all.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from billing_core.errors import InvalidInput, NotFound, Unprocessable
from billing_core.store import outbox
from billing_core.store.database import Transaction
from billing_core.store.money import grant as grants
from billing_core.store.outbox import OutboxKind
from billing_core.values.ids import new_id
from billing_core.values.money import is_currency
from billing_core.wallets.grant import GrantOrder, check_lower, check_order, check_room


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


async def check_wallet(tx: Transaction, tenant_id: str, *, currency: str) -> None:
    """Refuse a wallet in what is no currency and no unit of the tenant's catalog. Raises: InvalidInput."""
    if not is_currency(currency) and not await grants.has_unit(tx, tenant_id, code=currency):
        rule = f"{currency!r} is neither an ISO 4217 currency nor a unit that the catalog declares"
        raise InvalidInput(rule, field="currency")


async def check_names(tx: Transaction, order: GrantOrder) -> None:
    """Refuse a wallet or a feature that the tenant's catalog does not know.

    Asked when a grant is ordered, not when its money has come: a catalog may have changed meanwhile.

    Raises: InvalidInput naming the field.
    """
    await check_wallet(tx, order.tenant_id, currency=order.currency)
    missing = await grants.missing_features(tx, order.tenant_id, codes=order.features)
    if missing:
        raise InvalidInput(f"there is no metered feature {missing[0]!r}", field="features")


async def lower(tx: Transaction, *, tenant_id: str, grant_id: str, limit_nanos: int) -> None:
    """Give an overdraft a lower limit: nothing above it is drawn any more.

    What is drawn above it already stays owed, and is not given back to the limit when it is repaid.

    Raises: NotFound; InvalidInput or Unprocessable where it is no overdraft, is void, or would not be lowered.
    """
    row = await grants.by_id(tx, tenant_id=tenant_id, grant_id=grant_id)
    if row is None:
        raise NotFound(f"there is no grant {grant_id!r}", field="grant_id")
    before_nanos = row.amount_nanos if row.lowered_nanos is None else row.lowered_nanos
    check_lower(row.kind, limit_nanos=limit_nanos, before_nanos=before_nanos)
    if not await grants.mark_lower(tx, tenant_id=tenant_id, grant_id=grant_id, limit_nanos=limit_nanos):
        raise Unprocessable("it is void", field="grant_id")
    await outbox.push(tx, OutboxKind.LAPSE, tenant_id=tenant_id, customer_id=row.customer_id, subject=grant_id)


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
