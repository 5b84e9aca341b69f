"""Forget: kept answers of idempotent requests go after their time.

What moves money does not depend on them: a payment remembers the key that made it for good.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from billing_core.store.database import Database
from billing_core.store.setup.tenant import forget_answers

KEPT_FOR = timedelta(days=7)
"""How long a retry gets the first answer back."""

AT_ONCE = 1_000


async def forget_due(db: Database, *, now: datetime) -> int:
    """Delete a batch of answers whose time is over; how many. `now` is real time."""
    async with db.transaction() as tx:
        return await forget_answers(tx, created_before=now - KEPT_FOR, count=AT_ONCE)
