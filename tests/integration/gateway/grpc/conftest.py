"""A gateway with its gRPC port open, and the official client in front of it.

gateway   opened with the port; `world` is what it knows
envoy     the real Envoy in front of it, with the configuration as it is shipped: `envoy.get(...)`; and an upstream
port      asks it: `port.limit(...)`, `port.check(...)`, `port.health(...)`, each as Envoy would
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import msgspec
import pytest
from aiohttp import web

from billing_core.contract.shipped import shipped
from gateway.settings import GatewaySettings
from tests.envoy_schema import message

KEY = {"X-Api-Key": "tgk_caller"}
LIMIT = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
HEALTH = "/grpc.health.v1.Health/Check"
ACCESS_LOG = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
TYPES = {
    LIMIT: ("envoy.service.ratelimit.v3.RateLimitRequest", "envoy.service.ratelimit.v3.RateLimitResponse"),
    CHECK: ("envoy.service.auth.v3.CheckRequest", "envoy.service.auth.v3.CheckResponse"),
    HEALTH: ("grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse"),
}
LOGS = message("envoy.service.accesslog.v3.StreamAccessLogsMessage")
TYPED = {path: (message(asked), message(told)) for path, (asked, told) in TYPES.items()}


def logged(*responses: dict[str, Any]) -> Any:
    """A message with an entry for each: what `check` told as metadata, and the size of the response."""
    told = LOGS()
    for one in responses:
        entry = told.http_logs.log_entry.add()
        entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"].update(one["told"])
        entry.response.response_code.value = one.get("status", 200)
        entry.response.response_body_bytes = one.get("size", 0)
        entry.common_properties.response_flags.downstream_connection_termination = one.get("is_lost", False)
    return told


class Port:
    """Speaks to a gateway's gRPC port."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._methods = {
            path: channel.unary_unary(
                path, request_serializer=asked.SerializeToString, response_deserializer=told.FromString
            )
            for path, (asked, told) in TYPED.items()
        }

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, number: int, *, retry_ms: int = 0) -> AsyncIterator[Port]:
        """A connection of its own, whatever others there are; how soon it is tried again is the client's to say."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        if retry_ms:
            options += [(f"grpc.{which}_reconnect_backoff_ms", retry_ms) for which in ("initial", "min", "max")]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{number}", options=options) as channel:
            yield cls(channel)

    async def call(self, path: str, asked: Any, **more: Any) -> Any:
        return await self._methods[path](asked, timeout=more.pop("timeout", 30), **more)

    async def limit(self, *descriptors: dict[str, str], domain: str = "t1", hits: int = 0, **more: Any) -> Any:
        """A rate limit request; an entry `hits` is the descriptor's own addend."""
        asked = TYPED[LIMIT][0](domain=domain, hits_addend=hits)
        for entries in descriptors:
            descriptor = asked.descriptors.add()
            for name, value in entries.items():
                if name == "hits":
                    descriptor.hits_addend.value = int(value)
                else:
                    descriptor.entries.add(key=name, value=value)
        return await self.call(LIMIT, asked, **more)

    async def check(self, extensions: dict[str, str], headers: dict[str, str], **more: Any) -> Any:
        asked = TYPED[CHECK][0]()
        http = asked.attributes.request.http
        http.method, http.path, http.host = "GET", "/a/b?c=d", "api.example.com"
        http.headers.update({"accept": "*/*", **headers})
        asked.attributes.context_extensions.update(extensions)
        return await self.call(CHECK, asked, **more)

    def log(self) -> Any:
        """A stream of access log messages: `await stream.write(logged(...))`."""
        return self.channel.stream_unary(ACCESS_LOG, request_serializer=LOGS.SerializeToString)()

    async def health(self, name: str = "") -> int:
        return (await self.call(HEALTH, TYPED[HEALTH][0](service=name))).status


@pytest.fixture
def settings(settings: GatewaySettings, free_port: Callable[[], int]) -> GatewaySettings:
    return msgspec.structs.replace(settings, grpc_port=free_port())


@pytest.fixture
async def port(gateway: Any, settings: GatewaySettings) -> AsyncIterator[Port]:
    async with Port.open(settings.grpc_port) as opened:
        yield opened


@pytest.fixture
def failure() -> Callable[..., Any]:
    """What a call failed with: `await failure(port.limit(...))`."""

    async def of(call: Any) -> tuple[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return caught.value.code().name, caught.value.details()

    return of


@pytest.fixture
def opened() -> Callable[..., Any]:
    """Opens another one: `async with opened(port_number) as port`."""
    return Port.open


async def streamed(request: web.Request, size: int) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(bytes(size))
    if "dies" in request.query:
        assert request.transport is not None
        request.transport.close()
    else:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return response


class Envoy:
    """A proxy process, and what its upstream saw."""

    def __init__(self, session: aiohttp.ClientSession, port: int, *, seen: list[Any], world: Any) -> None:
        self.session = session
        self.url = f"http://127.0.0.1:{port}"
        self.seen = seen
        self.world = world
        self.key = KEY

    async def settled(self, *quantities: int) -> list[Any]:
        """The entries that charge, once as many have come as there are quantities, which are theirs."""

        async def charged() -> list[Any]:
            return [entry for entry in await self.world.entries() if entry.charges]

        async with asyncio.timeout(60):
            while len(await charged()) < len(quantities):  # noqa: ASYNC110 - Envoy settles when it has answered
                await asyncio.sleep(0.01)
        found = await charged()
        assert sorted(charge.quantity for entry in found for charge in entry.charges) == sorted(quantities)
        return found

    async def get(self, path: str, headers: Mapping[str, str] = KEY) -> tuple[int, Any, bytes]:
        async with self.session.get(self.url + path, headers=headers) as response:
            return response.status, response.headers, await response.read()


def program() -> Path:
    spec = importlib.util.find_spec("envoy")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "_bin" / "envoy"


def configured(*, listen: int, ask: int, upstream: int, said: dict[str, str]) -> str:
    """The shipped file; each thing that is replaced stands there."""
    text = shipped("proxies/envoy.yaml").read_text("utf-8")
    for old, new in (
        ("port_value: 10000", f"port_value: {listen}"),
        ("port_value: 8081", f"port_value: {ask}"),
        ("port_value: 8000", f"port_value: {upstream}"),
        ("feature: api.calls", "feature: calls"),
        ("descriptor_value: api.calls", "descriptor_value: calls"),
        ("feature: api.bytes", "feature: tokens"),
        ("descriptor_value: api.bytes", "descriptor_value: tokens"),
        ("timeout: 0.2s", "timeout: 20s"),
        *said.items(),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


def started(file: Path, log: Path) -> subprocess.Popen[bytes]:
    words = [program(), "-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    with log.open("wb") as told:
        return subprocess.Popen(words, stdout=told, stderr=subprocess.STDOUT)


@pytest.fixture
async def upstream(free_port: Callable[[], int]) -> AsyncIterator[tuple[int, list[Any]]]:
    """An API that says nothing of its own; the headers of each request that came through.

    `first=N` begins a response of N bytes and never ends it, or, with `dies`, closes its connection.
    """
    seen: list[Any] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers)
        told = request.query
        headers = {"X-Units-Used": told["units"]} if "units" in told else {}
        if "first" in told:
            return await streamed(request, int(told["first"]))
        text = "served" * int(told.get("times", "1"))
        return web.Response(text=text, status=int(told.get("status", "200")), headers=headers)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    number = free_port()
    await web.TCPSite(runner, "127.0.0.1", number).start()
    yield number, seen
    await runner.cleanup()


@pytest.fixture
def front(gateway: Any) -> Any:
    """What Envoy asks: a gateway in this process, where a test has none of its own."""
    return gateway


@pytest.fixture
def said() -> dict[str, str]:
    """What a test says otherwise than the shipped file."""
    return {}


@pytest.fixture
async def envoy(
    front: Any, world: Any, settings: Any, upstream: Any, said: Any, free_port: Callable[[], int], tmp_path: Path
) -> AsyncIterator[Envoy]:
    """Started, and let through to a gateway that it finds healthy."""
    number, seen = upstream
    listen = free_port()
    file = tmp_path / "envoy.yaml"
    file.write_text(configured(listen=listen, ask=settings.grpc_port, upstream=number, said=said), "utf-8")
    log = tmp_path / "envoy.log"
    process = started(file, log)
    try:
        async with aiohttp.ClientSession() as session:
            made = Envoy(session, listen, seen=seen, world=world)

            async def is_up() -> bool:
                assert process.poll() is None, log.read_text("utf-8")
                try:
                    return (await made.get("/v1/x", {}))[0] == 401
                except aiohttp.ClientConnectionError:
                    return False

            async with asyncio.timeout(60):
                while not await is_up():  # noqa: ASYNC110 - the other side is a process, not an event
                    await asyncio.sleep(0.02)
            yield made
    finally:
        process.terminate()
        process.wait(30)
