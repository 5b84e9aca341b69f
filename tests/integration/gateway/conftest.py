"""A seeded Valkey and a gateway on a real port, for tests that speak HTTP.

world      a tenant `t1` with customer `acme`, its key and its operator's token, put there by the scripts themselves
call       an HTTP client of a gateway that runs in this process, on a port of its own
neighbours two customers of one shard, so that its stream tells in which order they were served
unchanged  a context in which nothing may be written to Valkey
eventually waits until something holds that no event announces
process    starts gateway workers as processes of their own
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import redis.asyncio

from billing_core.adapters.projection import Projection
from billing_core.adapters.redis_client import primaries
from billing_core.adapters.redis_library import furnish
from billing_core.contract.keys import (
    INVALIDATION_CHANNEL,
    SHARD_COUNT,
    KeyRecord,
    Role,
    api_key_name,
    customer_keys,
    digest_of,
    epoch_key,
    shard_of_customer,
)
from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Snapshot,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.contract.usage_event import UsageEntry, decode_entries
from gateway.edge.server import Server
from gateway.edge.straight.ask import Asks
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings
from lua.loader import SCRIPTS

ROOT = Path(__file__).resolve().parents[3]
DAY = Window(kind=WindowKind.STEPS, anchor_ms=0, every_ms=86_400_000)


def priced_in(currency: str) -> Entitlement:
    """100 nanos a unit."""
    tiers = (Tier(upto=0, nanos_per_batch=100),)
    tariff = Tariff(price_id=f"p-{currency}", currency=currency, package_units=1, batch=1, tiers=tiers, window=DAY)
    return Entitlement(kind=FeatureKind.METERED, enabled=True, tariffs=(tariff,))


FEATURES = {
    "calls": Entitlement(
        kind=FeatureKind.METERED,
        enabled=True,
        guard=Guard(limits=(Limit(counter="calls@day", units=10, ceiling=10, window=DAY),)),
    ),
    "tokens": priced_in("USD"),
    "tier": Entitlement(kind=FeatureKind.STATIC, enabled=True, static_value="gold"),
    "export": Entitlement(kind=FeatureKind.SWITCH, enabled=True),
    "closed": Entitlement(kind=FeatureKind.SWITCH, enabled=False),
}


class World:
    """What the billing side would have put into Valkey."""

    key = "tgk_caller"
    token = "tgo_operator"
    tenant = "t1"
    customer = "acme"
    features = FEATURES
    priced_in = staticmethod(priced_in)

    def __init__(self, valkey: redis.asyncio.Redis) -> None:
        self.valkey = valkey
        self.version = 0

    async def vouch(self) -> None:
        """What a builder says of a server that it has looked at, and what it gives it."""
        redis = Projection(self.valkey)
        await redis.vouch(await redis.run_id())
        for server in await primaries(self.valkey):
            await furnish(server)

    async def build(self) -> None:
        await self.vouch()
        await self.valkey.mset({epoch_key(shard): 1 for shard in range(SHARD_COUNT)})
        await self.project()
        await self.credential(self.key, KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="acme", hint="er"))
        await self.credential(self.token, KeyRecord(tenant_id="t1", role=Role.OPERATOR))
        await self.meters({"llm": {"input": 0, "cost": 2}, "ping": {}})

    async def credential(self, secret: str, record: KeyRecord) -> None:
        await self.valkey.set(api_key_name(digest_of(secret)), msgspec.msgpack.encode(record))

    async def meters(self, meters: dict[str, dict[str, int]]) -> None:
        await self.valkey.set("tg:meters:t1", msgspec.msgpack.encode(meters))

    async def forget(self, payload: str) -> None:
        await self.valkey.publish(INVALIDATION_CHANNEL, payload)

    async def project(
        self,
        *,
        customer: str = "acme",
        status: Status = Status.ACTIVE,
        offset_ms: int = 0,
        features: dict[str, Entitlement] = FEATURES,
        budgets: dict[str, Budget] | None = None,
    ) -> None:
        self.version += 1
        names = customer_keys("t1", customer)
        snapshot = Snapshot(
            version=self.version,
            status=status,
            clock_offset_ms=offset_ms,
            features=features,
            budgets=budgets or {},
        )
        arguments = (self.version, status.value, offset_ms, *snapshot_fields(snapshot))
        assert await self.valkey.fcall(SCRIPTS["project"].function, 2, names.epoch, names.snapshot, *arguments) == 1

    async def grant(
        self, nanos: int, *, grant_id: str = "g1", customer: str = "acme", currency: str = "USD"
    ) -> None:
        names = customer_keys("t1", customer)
        arguments = (currency, grant_id, nanos, 0, 0, 0, 1, 0, "", "unread")
        places = names.epoch, names.snapshot, names.wallet, names.stream
        assert await self.valkey.fcall(SCRIPTS["grant"].function, 4, *places, *arguments) == 1

    async def entries(self) -> list[UsageEntry]:
        """All usage entries of all shards."""
        found: list[UsageEntry] = []
        async for name in self.valkey.scan_iter("*:usage"):
            for place, fields in await self.valkey.xrange(name):
                found += decode_entries(place, fields)
        return found

    async def picture(self) -> dict[bytes, bytes]:
        """Every key and what it holds; of the epochs only how many there are."""
        names = sorted(await self.valkey.keys("*"))
        kept = [name for name in names if not name.endswith(b":epoch")]
        pipeline = self.valkey.pipeline()
        for name in kept:
            pipeline.dump(name)
        picture = dict(zip(kept, await pipeline.execute(), strict=True))
        return picture | {b"epochs": b"%d" % (len(names) - len(kept))}


class Call:
    """An HTTP client: sends, and gives back status, body and headers."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def __call__(
        self,
        path: str,
        body: object = None,
        *,
        method: str = "POST",
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, Any]:
        data = raw if raw is not None or body is None else msgspec.json.encode(body)
        if data is not None and len(data) > 500_000:
            data = io.BytesIO(data)
        typed = {"Content-Type": "application/json"} if data is not None else {}
        async with self.session.request(
            method, self.url + path, data=data, headers=typed | (headers or {})
        ) as response:
            read = await response.read()
            is_json = "json" in response.headers.get("Content-Type", "")
            return response.status, msgspec.json.decode(read) if is_json else read, response.headers

    async def get(self, path: str, *, token: str = "") -> tuple[int, Any, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self(path, method="GET", headers=headers)


async def until(holds: Callable[[], object], *, within_s: float = 30) -> None:
    """Let the loop run until something holds that no event announces."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - the other side is a socket or a process, not an event
            await asyncio.sleep(0.001)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture
async def world(valkey: redis.asyncio.Redis) -> World:
    made = World(valkey)
    await made.build()
    return made


@pytest.fixture
def settings(redis_url: str, free_port: Callable[[], int]) -> GatewaySettings:
    """Patient, so that a busy machine fails no test; who tests deadlines asks for other ones."""
    return GatewaySettings(
        redis_url=redis_url, port=free_port(), decision_deadline_ms=10_000, bulk_deadline_ms=10_000
    )


Open = Callable[[GatewaySettings], Awaitable[tuple[Worker, Call]]]


@pytest.fixture
def way() -> str:
    """`straight` from the first word on, on the `lane`, or `aiohttp`; who is to be answered alike overrides it."""
    return "lane"


@pytest.fixture
async def open_gateway(way: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Opens gateways in this process and closes them after the test."""
    if way == "straight":
        monkeypatch.setattr(Asks, "meet", lambda _, __, read: read())
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(settings: GatewaySettings) -> tuple[Worker, Call]:
            worker = Worker(settings)
            server = Server(worker, has_lane=way != "aiohttp")
            await server.start()
            stack.push_async_callback(server.stop)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return worker, Call(f"http://127.0.0.1:{settings.port}", session)

        yield open_one


@pytest.fixture
async def gateway(world: World, settings: GatewaySettings, open_gateway: Open, way: str) -> tuple[Worker, Call]:
    """Its links stand, and its push: what it remembers is not forgotten in a test because the push came late."""
    worker, call = await open_gateway(settings)
    await until(lambda: worker.listener.is_up and all(link.is_up for link in worker.links.values()))
    if way == "straight":
        await worker.directory.credential(world.key)
    return worker, call


@pytest.fixture
def call(gateway: tuple[Worker, Call]) -> Call:
    return gateway[1]


class Neighbours:
    """A noisy and a quiet customer; both have been seen on both links, so that neither is thought to be alone."""

    noisy, quiet = "tgk_noisy", "tgk_quiet"

    def __init__(self, world: World, worker: Worker) -> None:
        shard = shard_of_customer(world.tenant, "noisy")
        names = (f"quiet-{number}" for number in range(100 * SHARD_COUNT))
        self._names = {
            self.noisy: "noisy",
            self.quiet: next(name for name in names if shard_of_customer(world.tenant, name) == shard),
        }
        self._world = world
        self._worker = worker

    async def settle_in(self, call: Call) -> None:
        for key, customer in self._names.items():
            await self._world.project(customer=customer)
            record = KeyRecord(tenant_id=self._world.tenant, role=Role.CALLER, customer_id=customer, hint="ey")
            await self._world.credential(key, record)
            check = {"key": key, "feature": "export"}
            _, alone, _ = await call("/v1/check", check)
            _, batch, _ = await call("/v1/check/batch", {"checks": [check]})
            assert [answer["allowed"] for answer in (alone, *batch["answers"])] == [True, True]

    @contextlib.asynccontextmanager
    async def held_up(self, link: str = "decision") -> AsyncIterator[Callable[[int, int], Awaitable[None]]]:
        """Redis decides nothing; what is given waits until so many have a place on the link, and so many wait."""
        asked = self._worker.links[link]

        async def reached(seated: int, waiting: int) -> None:
            await until(lambda: asked.seated_count >= seated and asked.waiting_count >= waiting)

        await self._world.valkey.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
        try:
            yield reached
        finally:
            await self.go_on()

    async def go_on(self) -> None:
        await self._world.valkey.execute_command("CLIENT", "UNPAUSE")

    async def order(self) -> list[str]:
        """Whose turn it was, from first to last, once both had settled in."""
        keys = {customer: key for key, customer in self._names.items()}
        return [keys[entry.body.customer_id] for entry in await self._world.entries()][2 * len(keys) :]


@pytest.fixture
async def neighbours(world: World, gateway: tuple[Worker, Call]) -> Neighbours:
    worker, call = gateway
    made = Neighbours(world, worker)
    await made.settle_in(call)
    return made


@pytest.fixture
def unchanged(world: World) -> Callable[[], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def held() -> AsyncIterator[None]:
        before = await world.picture()
        yield
        assert await world.picture() == before

    return held


class Process:
    """A gateway worker as a process of its own."""

    def __init__(self, environ: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYGATE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.edge"],
            env=clean | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environ,
            stderr=subprocess.PIPE,
            cwd=ROOT.anchor,
        )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    async def ended(self) -> tuple[int, str]:
        _, errors = await asyncio.to_thread(self.process.communicate, timeout=30)
        return self.process.returncode, errors.decode()


@pytest.fixture
def process(started: Callable[[Process], Process]) -> Iterator[Callable[..., Process]]:
    def begin(settings: GatewaySettings, **more: str) -> Process:
        environ = {
            f"TALLYGATE_GATEWAY_{name}".upper(): str(value) for name, value in msgspec.to_builtins(settings).items()
        }
        return started(Process(environ | more))

    return begin
