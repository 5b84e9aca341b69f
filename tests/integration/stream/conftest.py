"""A worker without its loops: real Valkey, real Postgres, the real scripts, and each flow to be run by hand.

`works` has a tenant `t` on the shipped language-model catalog and makes customers, grants and decisions; its
methods run one flow each and say what it did. Two thousand five hundred nanos buy an input token.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from billing_core.adapters.projection import Projection
from billing_core.adapters.redis_client import connect
from billing_core.adapters.usage_stream import UsageStream
from billing_core.catalog.catalog import canonical_json, catalog_of, document_of_toml
from billing_core.contract.keys import (
    customer_keys,
    hold_key,
    new_hold_id,
    shard_of_customer,
    stream_key,
)
from billing_core.contract.shipped import shipped
from billing_core.contract.usage_event import EventBody, encode_body
from billing_core.flows.ingest import FlushPlan, FlushTally, ingest
from billing_core.flows.money.grant import issue
from billing_core.flows.project import Relay, RelayTally
from billing_core.flows.rebuild import Builder, Built
from billing_core.store.database import Database
from billing_core.store.outbox import OutboxKind, push
from billing_core.store.shard import watermarks
from billing_core.values.clock import system_now
from billing_core.wallets.grant import GrantKind, GrantOrder
from lua.loader import SCRIPTS

NANOS_PER_TOKEN = 2_500
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Works:
    """See the module."""

    def __init__(self, db: Database, valkey: Any, raw: Any) -> None:
        self.db = db
        self.valkey = valkey
        self.raw = raw
        self.stream = UsageStream(valkey)
        self.redis = Projection(valkey)
        self.relay_tally = RelayTally()
        self.relay = Relay(db, self.redis, tally=self.relay_tally)
        self.builder = Builder(db, self.redis, stream=self.stream, plans=self.relay.plans)
        self.tally = FlushTally()
        self.shards: set[int] = set()
        self._numbers = itertools.count(1)

    async def found(self) -> None:
        """The tenant and its catalog."""
        await self.raw.execute("INSERT INTO tenant VALUES ('t', 't', true, 0, $1)", LONG_AGO)
        catalog = catalog_of(document_of_toml(shipped("catalogs/language_model.toml").read_text("utf-8")))
        await self.raw.execute(
            "INSERT INTO plan_version VALUES ('t', 'team', 1, 'd', $1::text::jsonb, $2)",
            canonical_json(catalog.terms("team")).decode(),
            LONG_AGO,
        )

    async def customer(self, customer: str, *, nanos: Sequence[int] = ()) -> list[str]:
        """A customer on the plan `team`, projected, with grants of these amounts; the ids of the grants."""
        self.shards.add(shard_of_customer("t", customer))
        async with self.raw.transaction():
            await self.raw.execute(
                "INSERT INTO customer (tenant_id, customer_id, name, shard, created_at)"
                " VALUES ('t', $1, '', $2, $3)",
                customer,
                shard_of_customer("t", customer),
                LONG_AGO,
            )
            await self.raw.execute(
                "INSERT INTO subscription VALUES"
                " ('t', 'sub_' || $1, $1, 'team', 1, 'active', $2, $2, 'UTC', false, NULL, $2)",
                customer,
                LONG_AGO,
            )
            await self.raw.execute(
                "INSERT INTO billing_period"
                " (tenant_id, subscription_id, customer_id, start_at, end_at, plan_code, plan_version, anchor_at)"
                " VALUES ('t', 'sub_' || $1, $1, $2::timestamptz, '2100-01-01', 'team', 1, $2)",
                customer,
                LONG_AGO,
            )
            await self.raw.execute(
                "INSERT INTO outbox (kind, tenant_id, customer_id) VALUES ('snapshot', 't', $1)", customer
            )
        grants = [await self.grant(customer, amount) for amount in nanos]
        await self.project()
        return grants

    async def grant(self, customer: str, nanos: int, **more: Any) -> str:
        """A grant, not yet projected."""
        order = GrantOrder(
            tenant_id="t",
            customer_id=customer,
            amount_nanos=nanos,
            **({"kind": GrantKind.PROMOTIONAL, "currency": "USD"} | more),
        )
        async with self.db.transaction() as tx:
            return await issue(tx, order, now=system_now())

    async def project(self) -> int:
        """Tell all that waits; how many rows."""
        total = 0
        while done := await self.relay.project(now=system_now(), most=100):
            total += done
        return total

    async def build(self) -> Built:
        return await self.builder.build()

    async def consume(
        self, customer: str, tokens: int | str, *, key: str = "", feature: str = "input_tokens", path: str = ""
    ) -> list[Any]:
        """One decision about one feature; the reply of the script."""
        return await self.act("consume", customer, [(feature, tokens)], key=key, path=path)

    async def act(
        self,
        script: str,
        customer: str,
        charges: Sequence[tuple[str, int | str]],
        *,
        key: str = "",
        path: str = "",
        is_shadow: bool = False,
    ) -> list[Any]:
        """A consume or a record of several charges; the reply of the script."""
        keys = customer_keys("t", customer)
        body = EventBody(
            event_id=key or f"dec_{next(self._numbers)}",
            tenant_id="t",
            customer_id=customer,
            features=tuple(feature for feature, _ in charges),
            key_hint="abcd",
            path=path,
        )
        window_ms, is_decided = 60_000 if key else 0, script != "record"
        kept = (window_ms, 0) if is_decided else (window_ms,)
        terms = (0, int(is_shadow)) if is_decided else ()
        pairs = [word for charge in charges for word in charge]
        reply = await self.valkey.fcall(
            SCRIPTS[script].function,
            8,
            keys.epoch,
            keys.snapshot,
            keys.counters,
            keys.wallet,
            keys.stream,
            keys.holds,
            keys.shard_holds,
            keys.idempotency_prefix + (key or "none"),
            *("digest", *kept, encode_body(body), path, *terms, len(charges), *pairs),
        )
        return msgspec.msgpack.decode(reply)

    async def hold(
        self,
        customer: str,
        tokens: int,
        *,
        ttl_ms: int = 60_000,
        on_expiry: str = "release",
        feature: str = "input_tokens",
        path: str = "",
    ) -> str:
        """Set tokens aside; the hold's id."""
        keys, hold_id = customer_keys("t", customer), new_hold_id(shard_of_customer("t", customer))
        body = EventBody(event_id=hold_id, tenant_id="t", customer_id=customer, features=(feature,), path=path)
        reply = await self.valkey.fcall(
            SCRIPTS["hold"].function,
            9,
            keys.epoch,
            keys.snapshot,
            keys.counters,
            keys.wallet,
            keys.stream,
            keys.holds,
            keys.shard_holds,
            keys.idempotency_prefix,
            hold_key(hold_id, keys.shard),
            *("digest", 0, 0, encode_body(body), path, 0, 0, hold_id, ttl_ms, on_expiry, 1, feature, tokens),
        )
        assert msgspec.msgpack.decode(reply)[0] == "allowed"
        return hold_id

    async def settle(self, customer: str, hold_id: str, tokens: int, *, feature: str = "input_tokens") -> list[Any]:
        keys = customer_keys("t", customer)
        return await self.valkey.fcall(
            SCRIPTS["settle"].function,
            4,
            *(keys.epoch, hold_key(hold_id, keys.shard), keys.shard_holds, keys.stream),
            *("digest", 60_000, "", 1, feature, tokens),
        )

    @asynccontextmanager
    async def flusher(
        self, owner: str = "f", *, stream: UsageStream | None = None, db: Database | None = None, **plan: int
    ) -> AsyncIterator[FlushTally]:
        """A flusher that works while the block runs."""
        tally = FlushTally()
        told = FlushPlan(owner=owner, **({"lease_ms": 400, "interval_ms": 5, "batch_entries": 500} | plan))
        task = asyncio.create_task(ingest(db or self.db, stream or self.stream, plan=told, tally=tally))
        try:
            yield tally
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()  # it broke before it was told to stop, which explains what went wrong here

    async def drained(self) -> bool:
        """Whether all that the customers' streams gave out is in Postgres."""
        lasts = await self.stream.last_ids(sorted(self.shards))
        async with self.db.transaction() as tx:
            marks = await watermarks(tx, sorted(self.shards))
        return all(marks[shard] >= last for shard, last in zip(sorted(self.shards), lasts, strict=True))

    async def trimmed(self) -> bool:
        """Whether nothing is left in the customers' streams."""
        return sum([await self.valkey.xlen(stream_key(shard)) for shard in self.shards]) == 0

    async def flush(self) -> FlushTally:
        """Flush and trim everything."""
        async with self.flusher() as tally:
            await eventually(self.drained)
            await eventually(self.trimmed)
        return tally

    async def wallet(self, customer: str) -> dict[str, int | bytes]:
        """The wallet's hash: what remains and what is held of each grant."""
        fields = await self.valkey.hgetall(customer_keys("t", customer).wallet)
        return {name.decode(): value if name.startswith(b"o:") else int(value) for name, value in fields.items()}

    async def counters(self, customer: str) -> dict[str, int | bytes]:
        fields = await self.valkey.hgetall(customer_keys("t", customer).counters)
        return {name.decode(): value if name.endswith(b":b") else int(value) for name, value in fields.items()}

    async def count(self, table: str) -> int:
        return await self.raw.fetchval(f"SELECT count(*) FROM {table}")

    async def spent(self, grant: str) -> int:
        return await self.raw.fetchval("SELECT spent_nanos FROM credit_grant WHERE grant_id = $1", grant)

    async def entries(self, customer: str) -> int:
        """How many entries the customer's stream still holds."""
        return await self.valkey.xlen(stream_key(shard_of_customer("t", customer)))

    async def dirty(self, customer: str) -> None:
        async with self.db.transaction() as tx:
            await push(tx, OutboxKind.SNAPSHOT, tenant_id="t", customer_id=customer)

    async def advance(self, by: timedelta) -> None:
        """Put the tenant's clock forward and tell it to all customers."""
        await self.raw.execute(
            "UPDATE tenant SET clock_offset_ms = clock_offset_ms + $1", by // timedelta(milliseconds=1)
        )
        await self.raw.execute(
            "INSERT INTO outbox (kind, tenant_id, customer_id)"
            " SELECT 'snapshot', tenant_id, customer_id FROM customer"
        )
        await self.project()


async def eventually(holds: Callable[[], Awaitable[object]], *, timeout_s: float = 60) -> None:
    """Ask until it holds; whoever makes it hold has the processor between two questions."""
    async with asyncio.timeout(timeout_s):
        while not await holds():  # noqa: ASYNC110 - what is asked for happens in two servers
            await asyncio.sleep(0.005)


async def says(answer: bool) -> bool:
    """What is known without asking a server, for `eventually`."""
    return answer


@pytest.fixture
async def works(postgres_url: str, redis_url: str) -> AsyncIterator[Works]:
    """A founded tenant, and every shard built."""
    db = await Database.connect(postgres_url, size=6)
    raw = await asyncpg.connect(postgres_url)
    async with connect(redis_url) as valkey:
        made = Works(db, valkey, raw)
        await made.found()
        await made.build()
        yield made
    await raw.close()
    await db.close()
