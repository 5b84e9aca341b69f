"""A worker that closes five periods at a time and dies with kill -9 on the way. Run by a test as a child.

Words: the database, now, the number of the chunk to die in, and whether `before` or `after` that chunk's commit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import datetime
from typing import Any

from billing_core.flows.billing import close
from billing_core.store.database import Database

_real = close._close
_chunks = 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(postgres_url: str, now: str, chunk: str, point: str) -> None:
    async def closing(*words: Any, **more: Any) -> int:
        global _chunks
        if point == "after" and _chunks == int(chunk):
            die()
        _chunks += 1
        closed = await _real(*words, **more)
        if point == "before" and _chunks == int(chunk):
            die()
        return closed

    close._close, close.INVOICES_WRITTEN_TOGETHER = closing, 5
    db = await Database.connect(postgres_url, size=2)
    await close.close_due(db, now=datetime.fromisoformat(now))
    await db.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
