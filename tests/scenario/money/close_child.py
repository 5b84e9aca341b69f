"""A worker that closes five periods at a time and dies with kill -9 on the way. Run by a test as a child.

Words: the database, now, the number of the chunk to die in, and whether `before` or `after` that chunk's commit.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from datetime import datetime
from typing import Any

from billing_core.flows.billing import bill, close
from billing_core.store.database import Database


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(postgres_url: str, now: str, chunk: str, point: str) -> None:
    real_write, real_close = bill.write, close._close
    written, committed = itertools.count(1), itertools.count(1)

    async def write(*words: Any, **more: Any) -> Any:
        bills = await real_write(*words, **more)
        if next(written) == int(chunk) and point == "before":
            die()
        return bills

    async def closing(*words: Any, **more: Any) -> int:
        closed = await real_close(*words, **more)
        if next(committed) == int(chunk) and point == "after":
            die()
        return closed

    bill.write, close._close, close.INVOICES_WRITTEN_TOGETHER = write, closing, 5
    db = await Database.connect(postgres_url, size=2)
    await close.close_due(db, now=datetime.fromisoformat(now))
    await db.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
