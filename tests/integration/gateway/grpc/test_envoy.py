"""The real Envoy in front, with the configuration as it is shipped, but for addresses, patience and a feature."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from billing_core.contract.shipped import shipped
from gateway.edge.server import Server
from gateway.edge.worker import Worker

KEY = {"X-Api-Key": "tgk_caller"}


class Envoy:
    """A proxy process, and what its upstream saw."""

    def __init__(self, session: aiohttp.ClientSession, port: int, seen: list[Any]) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}"
        self.seen = seen

    async def get(self, path: str, headers: dict[str, str] = KEY) -> tuple[int, Any, bytes]:
        async with self._session.get(self._url + path, headers=headers) as response:
            return response.status, response.headers, await response.read()


def program() -> Path:
    spec = importlib.util.find_spec("envoy")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "_bin" / "envoy"


def configured(*, listen: int, ask: int, upstream: int) -> str:
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
    """An API that says nothing of its own; the headers of each request that came through."""
    seen: list[Any] = []

    async def serve(request: web.Request) -> web.Response:
        seen.append(request.headers)
        return web.Response(text="served" * int(request.query.get("times", "1")))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    number = free_port()
    await web.TCPSite(runner, "127.0.0.1", number).start()
    yield number, seen
    await runner.cleanup()


@pytest.fixture
async def envoy(
    gateway: Any, settings: Any, upstream: Any, free_port: Callable[[], int], tmp_path: Path, eventually: Any
) -> AsyncIterator[Envoy]:
    """Started, and let through to a gateway that it finds healthy."""
    number, seen = upstream
    listen = free_port()
    file = tmp_path / "envoy.yaml"
    file.write_text(configured(listen=listen, ask=settings.grpc_port, upstream=number), "utf-8")
    log = tmp_path / "envoy.log"
    process = started(file, log)
    try:
        async with aiohttp.ClientSession() as session:
            made = Envoy(session, listen, seen)

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


async def test_who_may_pass_reaches_the_upstream_with_a_name(envoy: Envoy) -> None:
    """Whatever the client says of itself; limits are told to the client."""
    liar = {"X-Tallygate-Customer": "somebody", "X-Tallygate-Decision": "dec_0", "X-Tallygate-Would": "x"}
    status, told, body = await envoy.get("/v1/things?quantity=0", KEY | liar)
    assert (status, body) == (200, b"served")
    assert told["RateLimit"].startswith('"calls";r=9;t=')
    assert told["RateLimit-Policy"] == '"calls";q=10'
    (seen,) = envoy.seen
    assert seen.getall("X-Tallygate-Customer") == ["acme"]
    (decision,) = seen.getall("X-Tallygate-Decision")
    assert decision.startswith("dec_")
    assert decision != "dec_0"
    assert "X-Tallygate-Would" not in seen


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [({}, 401, "unknown_key"), ({"X-Api-Key": "tgk_nobody"}, 401, "unknown_key"), (KEY, 429, "limit_reached")],
)
async def test_a_refusal_reaches_the_client_as_it_is(
    envoy: Envoy, headers: dict[str, str], status: int, reason: str
) -> None:
    """Status, problem and headers; the upstream hears nothing."""
    assert (await envoy.get("/batch/all"))[0] == 200
    got, told, body = await envoy.get("/v1/things", headers)
    assert (got, msgspec.json.decode(body)["code"]) == (status, reason)
    assert told["Content-Type"] == "application/problem+json"
    assert ("Retry-After" in told) == (status == 429)
    assert len(envoy.seen) == 1


async def test_the_rate_limit_service_counts_units_and_says_when(envoy: Envoy, world: Any) -> None:
    """How many stands in the request; what is too much is refused with 429."""
    for units, status, left in (("4", 200, 6), ("7", 429, 6), ("6", 200, 0), ("1", 429, 0)):
        got, told, _ = await envoy.get("/limited/x", KEY | {"X-Units": units})
        assert (got, told["RateLimit"].split(";t=")[0]) == (status, f'"calls";r={left}')
        assert told.get("X-Tallygate-Reason") == ("limit_reached" if status == 429 else None)
    assert len(envoy.seen) == 2
    assert (await envoy.get("/limited/x", {"X-Api-Key": "tgk_nobody", "X-Units": "1"}))[0] == 429
    charged = [charge.quantity for entry in await world.entries() for charge in entry.charges]
    assert charged == [4, 6]


async def test_a_response_is_settled_by_what_was_sent(envoy: Envoy, world: Any, call: Any) -> None:
    """The hold is placed before and ends with the response; what was set aside above that is given back."""
    await world.grant(10**9)
    for times in (1, 5_000):
        status, _, body = await envoy.get(f"/metered/x?times={times}")
        assert (status, len(body)) == (200, 6 * times)

    async def charged() -> list[int]:
        return [charge.quantity for entry in await world.entries() for charge in entry.charges]

    async with asyncio.timeout(30):
        while len(await charged()) < 2:  # noqa: ASYNC110 - Envoy settles when it has answered
            await asyncio.sleep(0.01)
    assert sorted(await charged()) == [6, 30_000]
    _, told, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    (wallet,) = told["wallets"]
    assert (wallet["held_nanos"], wallet["balance_nanos"]) == (0, 10**9 - 30_006 * 100)


@pytest.mark.parametrize("path", ["/v1/x", "/limited/x"])
async def test_a_hundred_at_once_and_exactly_ten_pass(envoy: Envoy, path: str) -> None:
    """Through either filter."""
    got = await asyncio.gather(*(envoy.get(path, KEY | {"X-Units": "1"}) for _ in range(100)))
    assert Counter(status for status, _, _ in got) == {200: 10, 429: 90}
    assert len(envoy.seen) == 10


async def test_where_nothing_can_be_decided_nobody_passes(envoy: Envoy, gateway: Any) -> None:
    """The operator has said so: `failure_mode_allow: false`, `failure_mode_deny: true`; 503 is not a refusal."""
    await gateway[0].links["decision"].stop()
    assert (await envoy.get("/v1/x"))[0] == 503
    assert (await envoy.get("/limited/x", KEY | {"X-Units": "1"}))[0] == 500
    assert envoy.seen == []


async def test_a_gateway_is_replaced_behind_envoy_without_a_failed_request(
    envoy: Envoy, world: Any, settings: Any
) -> None:
    """A thousand requests over one connection, while another gateway takes the port and leaves again."""
    await world.project(features={"calls": world.features["tokens"]})
    await world.grant(10**9)
    for _ in range(4):
        worker = Worker(settings)
        server = Server(worker)
        await server.start()
        for _ in range(250):
            assert (await envoy.get("/v1/x"))[0] == 200
        await server.stop()
    assert len(envoy.seen) == 1_000
    assert sum(1 for entry in await world.entries() if entry.charges) == 1_000
