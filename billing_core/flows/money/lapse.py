"""Lapse: have what is left of expired and voided grants taken out of the wallets.

Here it is only asked for: a row in the outbox, which the relay brings to the wallet's script. What the script took
comes back through the stream as a movement of kind `lapse`, and only that movement ends the grant. A hold may give
back to a grant that has expired meanwhile, so a grant that still holds something is asked for again after a while.
"""

from __future__ import annotations

from datetime import datetime

from billing_core.store import outbox
from billing_core.store.database import Database
from billing_core.store.money import grant as grants
from billing_core.store.outbox import OutboxKind

_ASK_AGAIN_MS = 5_000
_GRANTS_AT_ONCE = 500


async def lapse_due(db: Database, *, now: datetime) -> int:
    """Ask for every grant that is due; how many were asked for. `now` is real time."""
    total = 0
    while True:
        async with db.transaction() as tx:
            due = await grants.take_lapsing(tx, now=now, retry_ms=_ASK_AGAIN_MS, most=_GRANTS_AT_ONCE)
            for one in due:
                await outbox.push(
                    tx,
                    OutboxKind.LAPSE,
                    tenant_id=one.tenant_id,
                    customer_id=one.customer_id,
                    subject=one.grant_id,
                )
        total += len(due)
        if len(due) < _GRANTS_AT_ONCE:
            return total
