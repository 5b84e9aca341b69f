"""A real cluster of three primaries and three replicas, shared by the tests of a module and mended between them.

cluster   the nodes themselves, whole and empty
works     a founded tenant on the cluster and a Postgres of its own (see the stream's tests)
hands     billing workers as processes
town      a tenant with customers and keys, gateways in this process, and callers who note what they were answered
world     what the gateway's own tests expect, so that they can be run on the cluster
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import pytest

from billing_core.adapters.redis_client import connect, primaries
from billing_core.contract.keys import (
    SHARD_COUNT,
    KeyRecord,
    Role,
    api_key_name,
    customer_keys,
    digest_of,
    epoch_key,
)
from billing_core.contract.usage_event import UsageEntry, decode_entries
from billing_core.flows.reconcile import ReconcileReport, reconcile
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings
from tests.chaos.stream.conftest import Hands, found
from tests.conftest import _make_folder
from tests.embedded_cluster import EmbeddedCluster, Node, until
from tests.integration.gateway.conftest import (
    Call,
    World,
    call,
    eventually,
    gateway,
    open_gateway,
    settings,
    unchanged,
    way,
)
from tests.integration.stream.conftest import LONG_AGO, NANOS_PER_TOKEN, Works

__all__ = ["call", "eventually", "gateway", "open_gateway", "settings", "unchanged", "way"]

BALANCE = 10**9


@contextmanager
def standing_cluster() -> Generator[EmbeddedCluster]:
    """A cluster of one's own, in a folder of its own."""
    folder = _make_folder()
    made = EmbeddedCluster(folder / "cluster")
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[EmbeddedCluster]:
    """Started once for a module; who kills nodes had better have their own."""
    with standing_cluster() as made:
        yield made


@pytest.fixture
async def cluster(nodes: EmbeddedCluster) -> AsyncIterator[EmbeddedCluster]:
    """Whole, and empty."""
    for node in nodes.nodes:
        node.new_client()
    try:
        await nodes.whole()
        for node in nodes.nodes:
            if (await node.replication())["role"] == "master":
                await node.client.flushall()
                await node.client.script_flush()
        yield nodes
    finally:
        for node in nodes.nodes:
            await node.client.aclose()


@pytest.fixture
async def redis_url(cluster: EmbeddedCluster) -> str:
    """The cluster's address."""
    return cluster.url


@pytest.fixture
async def works(postgres_url: str, redis_url: str) -> AsyncIterator[Works]:
    """A founded tenant, and every shard built."""
    async for made in found(postgres_url, redis_url):
        yield made


@pytest.fixture
async def hands(postgres_url: str, redis_url: str) -> AsyncIterator[Hands]:
    """Workers of the same servers."""
    made = Hands(postgres_url, redis_url)
    yield made
    await made.end()


class ClusterWorld(World):
    """The world of the gateway's tests, where no command may name keys of two slots."""

    async def build(self) -> None:
        await self.vouch()
        pipe = self.valkey.pipeline(transaction=False)
        for shard in range(SHARD_COUNT):
            pipe.set(epoch_key(shard), 1)
        await pipe.execute()
        await self.project()
        await self.credential(self.key, KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="acme", hint="er"))
        await self.credential(self.token, KeyRecord(tenant_id="t1", role=Role.OPERATOR))
        await self.meters({"llm": {"input": 0, "cost": 2}, "ping": {}})

    async def names(self, pattern: str) -> list[bytes]:
        return sorted([name for node in await primaries(self.valkey) for name in await node.keys(pattern)])

    async def entries(self) -> list[UsageEntry]:
        return [
            entry
            for name in await self.names("*:usage")
            for place, fields in await self.valkey.xrange(name)
            for entry in decode_entries(place, fields)
        ]

    async def picture(self) -> dict[bytes, bytes]:
        kept = [name for name in await self.names("*") if not name.endswith(b":epoch")]
        pipe = self.valkey.pipeline()
        for name in kept:
            pipe.dump(name)
        return dict(zip(kept, await pipe.execute(), strict=True))


@pytest.fixture
async def valkey(redis_url: str) -> AsyncIterator[Any]:
    """The client that the billing side has of a cluster."""
    async with connect(redis_url) as client:
        yield client


@pytest.fixture
async def world(valkey: Any) -> World:
    made = ClusterWorld(valkey)
    await made.build()
    return made


def lost_ids(report: ReconcileReport) -> set[str]:
    """The decisions that a report names as lost."""
    return {name.partition(":")[2] for loss in report.losses for name in loss.lost_ids}


class Town:
    """Customers who call, and what they were answered."""

    def __init__(self, works: Works, call: Call, worker: Worker) -> None:
        self.works = works
        self.call = call
        self.worker = worker
        self.answered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.names: list[str] = []

    async def settle(self, names: list[str], *, nanos: int = BALANCE) -> None:
        """Customers with a balance, and a key each."""
        for name in names:
            await self.works.customer(name, nanos=[nanos])
            digest = digest_of(f"tgk_{name}")
            await self.works.raw.execute(
                "INSERT INTO api_key (digest, key_id, tenant_id, customer_id, hint, created_at)"
                " VALUES ($1, $2, 't', $3, 'abcd', $4)",
                digest,
                f"key_{name}",
                name,
                LONG_AGO,
            )
            await self.works.raw.execute(
                "INSERT INTO outbox (kind, tenant_id, customer_id, subject) VALUES ('key', 't', $1, $2)",
                name,
                digest,
            )
        await self.works.project()
        self.names += names

    async def nodes_of(self, name: str, cluster: EmbeddedCluster) -> list[Node]:
        """Where the customer's state is, and where its key."""
        key = api_key_name(digest_of(f"tgk_{name}"))
        return [await cluster.owner(customer_keys("t", name).epoch), await cluster.owner(key)]

    async def ask(self, name: str, *, tokens: int = 1) -> bool:
        """One check; whether it was granted."""
        status, answer, _ = await self.call(
            "/v1/check", {"key": f"tgk_{name}", "feature": "input_tokens", "quantity": tokens}
        )
        if status == 200 and answer["allowed"]:
            self.answered[answer["decision_id"]] += 1
            return True
        self.refused[answer.get("code") or answer["reason"]] += 1
        assert status in {200, 503}, answer
        return False

    async def asks_until(self, name: str, count: int) -> None:
        """Ask until so many are granted, however often it takes."""
        async with asyncio.timeout(90):
            while count:
                if await self.ask(name):
                    count -= 1
                else:
                    await asyncio.sleep(0.01)

    @asynccontextmanager
    async def under_load(self, callers: int = 4) -> AsyncIterator[None]:
        """All customers ask in turn, over and over, while the block runs."""
        stop = asyncio.Event()

        async def go_on(first: int) -> None:
            number = first
            while not stop.is_set():
                await self.ask(self.names[number % len(self.names)])
                number += callers
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as group:
            for first in range(callers):
                group.create_task(go_on(first))
            try:
                yield
            finally:
                stop.set()

    async def served(self) -> None:
        """Wait until every customer is granted something again."""
        for name in self.names:
            await self.asks_until(name, 1)

    async def report(self) -> ReconcileReport:
        """What reconcile says once everything is flushed and every word of the gateways is heard."""

        async def is_quiet() -> bool:
            return await self.works.drained() and not await self.works.redis.answered()

        await until(is_quiet)
        return await reconcile(self.works.db, self.works.stream)

    async def written(self) -> Counter[str]:
        """How often each decision is in Postgres."""
        rows = await self.works.raw.fetch("SELECT event_id, count(*) AS n FROM usage_event GROUP BY event_id")
        return Counter({row["event_id"]: row["n"] for row in rows})

    async def is_exact(self) -> set[str]:
        """Every answered decision is in Postgres once, or named as lost; no wallet is below zero. The lost ones."""
        report, written = await self.report(), await self.written()

        async def is_all_accounted_for() -> bool:
            """Gateways tell what they have answered in their own time."""
            nonlocal report, written
            report, written = await self.report(), await self.written()
            return self.answered.keys() - written.keys() <= lost_ids(report)

        await until(is_all_accounted_for)
        assert report.findings == ()
        assert report.difference_nanos == 0
        assert report.unbuilt_shards == 0
        assert set(written.values()) <= {1}
        lost = lost_ids(report)
        assert self.answered.keys() - written.keys() == lost & self.answered.keys()
        assert not lost & written.keys()
        for name in self.names:
            for field, nanos in (await self.works.wallet(name)).items():
                assert isinstance(nanos, bytes) or 0 <= nanos <= BALANCE, field
        spent = await self.works.raw.fetchval("SELECT sum(spent_nanos) FROM credit_grant")
        assert spent == await self.works.raw.fetchval("SELECT sum(quantity) FROM usage_event") * NANOS_PER_TOKEN
        return lost


Open = Callable[[GatewaySettings], Any]


@pytest.fixture
async def town(works: Works, settings: GatewaySettings, open_gateway: Open) -> Town:
    """Nobody lives there yet."""
    quick = msgspec.structs.replace(settings, decision_deadline_ms=1_000, bulk_deadline_ms=2_000)
    worker, call = await open_gateway(quick)
    return Town(works, call, worker)
