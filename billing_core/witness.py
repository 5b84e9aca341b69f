"""`python -P -m billing_core.witness TENANT [SINCE]`: what is written of one tenant, as one JSON document.

For whoever has noted down what the gate answered, and wants to hold it against the books: it waits until no hold is
open and everything that was decided before has reached Postgres, and then tells every decision that was recorded
behind SINCE with the number of its entries, what was overspent, and what reconcile finds. It only reads. What has
not come about within half a minute is told as it is, with `is_settled` false.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Final

import msgspec

from billing_core.adapters.redis_client import REDIS_FAILURES, connect, execute
from billing_core.adapters.usage_stream import UsageStream
from billing_core.contract.configuration import load
from billing_core.contract.keys import SHARD_COUNT, shard_holds_key
from billing_core.errors import ConfigurationError, Unavailable
from billing_core.flows.reconcile import ReconcileReport, reconcile
from billing_core.settings import BillingSettings
from billing_core.store import shard as shards
from billing_core.store.database import CONNECTION_FAILURES, Database
from billing_core.store.query import Q
from billing_core.values.clock import EPOCH

_PATIENCE_S: Final = 30.0
_LOOK_S: Final = 0.05


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One decision in Postgres: in how many entries, and what they add up to."""

    customer_id: str
    event_id: str
    entries: int
    units: int
    charged_nanos: int


class Overspending(msgspec.Struct, frozen=True, kw_only=True):
    """By how much a customer's grants are below zero."""

    customer_id: str
    nanos: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is told. `decisions` are all of the tenant; `until_at` is where the next look begins."""

    is_settled: bool
    decisions: int
    until_at: datetime
    sightings: list[Sighting]
    overspent: list[Overspending]
    report: ReconcileReport


class _Count(msgspec.Struct, frozen=True, kw_only=True):
    decisions: int
    until_at: datetime


async def testify(db: Database, redis: Any, *, tenant_id: str, since_at: datetime) -> Evidence:
    """Wait until nothing is under way, then tell. Raises: what a server that is away makes its client raise."""
    stream = UsageStream(redis)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await _settle(db, redis, stream=stream)
    except TimeoutError:
        is_settled = False
    else:
        is_settled = True
    async with db.transaction(isolation="repeatable_read") as tx:
        count = await tx.one(Q["witnessed_count"], _Count, tenant_id)
        sightings = await tx.many(Q["witnessed_usage"], Sighting, tenant_id, since_at)
        overspent = await tx.many(Q["witnessed_overspending"], Overspending, tenant_id)
    return Evidence(
        is_settled=is_settled,
        decisions=count.decisions,
        until_at=max(count.until_at, since_at),
        sightings=sightings,
        overspent=overspent,
        report=await reconcile(db, stream, tenant_id=tenant_id),
    )


async def _settle(db: Database, redis: Any, *, stream: UsageStream) -> None:
    """Wait until no hold is open, and then until the flushers have read out what was decided."""
    while True:
        if not await _open_holds(redis):
            break
        await asyncio.sleep(_LOOK_S)
    asked_at = await stream.now()
    while True:
        async with db.transaction() as tx:
            drained_at = await shards.drained_at(tx)
        if drained_at is not None and drained_at >= asked_at:
            return
        await asyncio.sleep(_LOOK_S)


async def _open_holds(redis: Any) -> int:
    pipe = redis.pipeline(transaction=False)
    for shard in range(SHARD_COUNT):
        pipe.zcard(shard_holds_key(shard))
    return sum(await execute(pipe))


async def run(tenant_id: str, since_at: datetime) -> Evidence:
    """Testify on the servers that the settings name. Raises: Unavailable where one of them is away."""
    settings = load("billing", BillingSettings, file=None, environ=os.environ)
    async with AsyncExitStack() as doors:
        try:
            db = await Database.connect(settings.postgres_url, size=2)
            doors.push_async_callback(db.close)
            redis = connect(settings.redis_url)
            doors.push_async_callback(redis.aclose)
            return await testify(db, redis, tenant_id=tenant_id, since_at=since_at)
        except (*CONNECTION_FAILURES, *REDIS_FAILURES) as fault:
            raise Unavailable(f"a server is away: {type(fault).__name__}: {fault}") from fault


def main() -> None:
    """Entry point; a fault is one line."""
    since_at = datetime.fromisoformat(sys.argv[2]) if len(sys.argv) > 2 else EPOCH
    try:
        evidence = asyncio.run(run(sys.argv[1], since_at))
    except (ConfigurationError, Unavailable) as fault:
        sys.exit(fault.detail)
    sys.stdout.buffer.write(msgspec.json.encode(evidence))


if __name__ == "__main__":
    main()
