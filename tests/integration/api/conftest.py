"""The control plane on a real Postgres, spoken to over HTTP by two tenants' operators.

`plane` is the whole of it: a client for each tenant and for the root, a clock that tests move, and the database
behind it all for looking at what was written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web

from billing_core.adapters.projection import Projection
from billing_core.adapters.redis_client import connect
from billing_core.adapters.stripe_double.server import Double
from billing_core.adapters.stripe_double.state import State
from billing_core.adapters.stripe_double.webhook import Hook, Postman
from billing_core.adapters.stripe_processor import StripeAccess, open_stripe
from billing_core.adapters.usage_stream import UsageStream
from billing_core.api.app import make_app, make_runner
from billing_core.api.route import House
from billing_core.contract.keys import SHARD_COUNT
from billing_core.contract.telemetry import Telemetry, TelemetrySettings
from billing_core.flows.project import PlanMemory
from billing_core.flows.rebuild import Builder
from billing_core.settings import BillingSettings
from billing_core.store.database import Database
from billing_core.values.clock import system_now

WEBHOOK_SECRET = "whsec_of-the-tests"
ROOT_TOKEN = "tgr_root-of-the-tests"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return msgspec.json.decode(self.raw)


class Caller:
    """Somebody with a token."""

    def __init__(self, client: ClientSession, token: str) -> None:
        self._client = client
        self.token = token

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        data = raw if raw is not None else (None if body is None else msgspec.json.encode(body))
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self._client.request(method, path, data=data, headers=sent | (headers or {})) as reply:
            return Answer(status=reply.status, headers=dict(reply.headers), raw=await reply.read())

    async def get(self, path: str) -> Answer:
        return await self.ask("GET", path)

    async def post(self, path: str, body: Any = None, *, key: str = "") -> Answer:
        return await self.ask("POST", path, body=body, headers={"Idempotency-Key": key} if key else {})

    async def put(self, path: str, body: Any) -> Answer:
        return await self.ask("PUT", path, body=body)

    async def delete(self, path: str) -> Answer:
        return await self.ask("DELETE", path)


class Clock:
    """The real time of a test."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, span: timedelta) -> None:
        self.now += span


class Plane:
    """The control plane with two tenants."""

    def __init__(self, client: ClientSession, database: Database, clock: Clock) -> None:
        self._client = client
        self.database = database
        self.clock = clock
        self.root = self.caller(ROOT_TOKEN)
        self.ours = self.theirs = self.nobody = self.caller("")
        self.url = ""
        self.redis: Any = None
        self.processor: Any = None

    def caller(self, token: str) -> Caller:
        return Caller(self._client, token)

    async def found(self, tenant_id: str, **more: object) -> Caller:
        answer = await self.root.post("/v1/tenants", {"tenant_id": tenant_id, "name": tenant_id, **more})
        assert answer.status == 201, answer.raw
        return self.caller(answer.body["operator_token"])

    async def count(self) -> dict[str, int]:
        """Rows of every table that is not empty: two equal counts mean that nothing was written."""
        found: dict[str, int] = {}
        async with self.database.session() as session:
            tables = await session.fetch(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
            for table in tables:
                found[table["relname"]] = await session.fetchval(f'SELECT count(*) FROM "{table["relname"]}"')
        return {name: count for name, count in found.items() if count}

    async def value(self, sql: str, *values: object) -> Any:
        async with self.database.session() as session:
            return await session.fetchval(sql, *values)

    async def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        async with self.database.session() as session:
            return [dict(row) for row in await session.fetch(sql, *values)]


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    """A fresh database."""
    opened = await Database.connect(postgres_url, size=6)
    yield opened
    await opened.close()


@pytest.fixture
def double_port(free_port: Callable[[], int]) -> int:
    """Where a double of Stripe would listen."""
    return free_port()


@pytest.fixture
async def double(plane: Plane, double_port: int) -> AsyncIterator[Double]:
    """The double, in this process, with its webhooks coming to the plane."""
    state = State(None)
    postman = Postman(Hook(url=f"{plane.url}/v1/webhooks/stripe", secret=WEBHOOK_SECRET), state)
    made = Double(state, postman, clock=system_now, adopts=True)
    runner = web.AppRunner(made.application(), access_log=None)
    await postman.begin()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", double_port).start()
    yield made
    await runner.cleanup()
    await postman.end()
    state.close()


@pytest.fixture
async def plane(database: Database, redis_url: str, double_port: int) -> AsyncIterator[Plane]:
    """The control plane; `ours` and `theirs` are two sandboxes."""
    clock = Clock()
    settings = BillingSettings(root_token=ROOT_TOKEN, max_body_bytes=64 * 1024)
    telemetry = Telemetry(TelemetrySettings(service="billing"))
    access = StripeAccess(
        api_key="sk_test", api_base=f"http://127.0.0.1:{double_port}", webhook_secret=WEBHOOK_SECRET
    )
    async with open_stripe(access) as processor:
        client = connect(redis_url)
        builder = Builder(database, Projection(client), stream=UsageStream(client), plans=PlanMemory())
        assert (await builder.build()).opened_shards == SHARD_COUNT
        house = House(
            database=database,
            settings=settings,
            telemetry=telemetry,
            clock=clock,
            redis=client,
            processor=processor,
        )
        runner = make_runner(make_app(house))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with ClientSession(f"http://{host}:{port}") as session:
            made = Plane(session, database, clock)
            made.redis, made.processor = client, processor
            made.url = f"http://{host}:{port}"
            made.ours = await made.found("ours", sandbox=True)
            made.theirs = await made.found("theirs", sandbox=True)
            yield made
        await runner.cleanup()
        await client.aclose()
    telemetry.stop()
