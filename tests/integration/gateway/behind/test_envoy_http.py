"""The real Envoy asks over HTTP, with the file as it is shipped, but for addresses, patience and features."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.behind.conftest import KEY, Begin, Front, Program, Upstream
from tests.integration.gateway.behind.early import EarlyLossLaws
from tests.integration.gateway.behind.laws import TOKEN_NANOS, DistrustLaws, Laws, SettlingLaws

FILE = "proxies/envoy_http.yaml"
OPTIONS = ("--concurrency", "1", "--disable-hot-restart", "-l", "warning")


def program() -> Path:
    spec = importlib.util.find_spec("envoy")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "_bin" / "envoy"


@pytest.fixture
async def front(
    begin: Begin, upstream: Upstream, settings: Any, free_port: Callable[[], int], patience_ms: int, ttl_ms: int
) -> Front:
    listen = free_port()
    swaps = {
        "port_value: 8888": f"port_value: {listen}",
        "port_value: 8080": f"port_value: {settings.port}",
        "port_value: 8000": f"port_value: {upstream.port}",
        "envoy/api.calls": "envoy/calls",
        "envoy/api.units": "envoy/tokens",
        "envoy/api.bytes": "envoy/tokens",
        "ttl_ms=600000": f"ttl_ms={ttl_ms}",
        "timeout: 0.2s": f"timeout: {patience_ms / 1000}s",
    }
    return await begin(
        Program(listen=listen, files={FILE: swaps}, words=lambda at: [program(), "-c", at[FILE], *OPTIONS])
    )


class TestEnvoy(Laws):
    """As any."""


class TestEnvoyDistrusts(DistrustLaws):
    """What is neither 200 nor a refusal is 503."""


class TestEnvoySettles(SettlingLaws):
    """By a filter in Lua, when the upstream has answered."""


class TestEnvoyLoses(EarlyLossLaws):
    """It does not try again."""


@pytest.mark.parametrize("size", [0, 5, 300_000])
async def test_a_hold_is_settled_by_the_bytes_that_were_sent(
    front: Front, upstream: Upstream, world: Any, books: Any, size: int
) -> None:
    """When the response is over."""
    await world.grant(10**9)
    upstream.says("x" * size)
    assert (await front("/bytes/x", KEY))[2] == b"x" * size
    await books.settled(10**9 - size * TOKEN_NANOS)


async def test_bytes_stream_while_they_are_counted(
    front: Front, upstream: Upstream, world: Any, books: Any
) -> None:
    """The first is there before the last is sent."""
    await world.grant(10**9)
    stream = upstream.streams(b"first")
    async with front.session.get(front.url + "/bytes/x", headers=KEY) as response:
        assert await response.content.readexactly(5) == b"first"
        stream.end.set()
        assert await response.read() == b"last"
    await books.settled(10**9 - 9 * TOKEN_NANOS)
