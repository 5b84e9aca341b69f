"""A worker that dies with kill -9 between the processor's answer and its own commit. Run by a test as a child."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import datetime

from billing_core.adapters.stripe_processor import StripeAccess, StripeProcessor, open_stripe
from billing_core.flows.money.collect import collect_due
from billing_core.payments.processor import ChargeOrder, ChargeResult
from billing_core.store.database import Database


class Doomed:
    """Charges like the real one, and is killed once the answer is there."""

    def __init__(self, real: StripeProcessor) -> None:
        self._real = real
        self.find, self.read, self.event_of = real.find, real.read, real.event_of

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        await self._real.charge(order)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


async def main(postgres_url: str, api_base: str, now: str) -> None:
    db = await Database.connect(postgres_url, size=2)
    async with open_stripe(StripeAccess(api_key="sk_test_double", api_base=api_base)) as real:
        await collect_due(db, Doomed(real), now=datetime.fromisoformat(now))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
