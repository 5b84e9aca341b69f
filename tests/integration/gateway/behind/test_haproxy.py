"""The real HAProxy in front, with the configuration as it is shipped, but for addresses, patience and features.

It is Debian's, unpacked by `.ci/steps`; where it could not be had, these tests are skipped and say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.gateway.behind.conftest import Begin, Front, Program, Upstream
from tests.integration.gateway.behind.haproxy import LIBRARIES, MISSING, PROGRAM, SCRIPT
from tests.integration.gateway.behind.laws import CountingLaws, DistrustLaws, Laws, LossLaws, SettlingLaws

FILE = "proxies/haproxy.cfg"
if not PROGRAM.is_file():
    pytest.skip(MISSING, allow_module_level=True)


@pytest.fixture
async def front(
    begin: Begin, upstream: Upstream, settings: Any, free_port: Callable[[], int], patience_ms: int, ttl_ms: int
) -> Front:
    listen = free_port()
    swaps = {
        "127.0.0.1:8888": f"127.0.0.1:{listen}",
        "127.0.0.1:8080": f"127.0.0.1:{settings.port}",
        "127.0.0.1:8000": f"127.0.0.1:{upstream.port}",
        "abns@tallygate": f"abns@tallygate-{listen}",
        "feature=api.calls": "feature=calls",
        "feature=api.units": "feature=tokens",
        "feature=api.bytes": "feature=tokens",
        "ttl_ms=600000": f"ttl_ms={ttl_ms}",
        "timeout connect 200ms": f"timeout connect {patience_ms}ms",
        "timeout server 1s": f"timeout server {patience_ms}ms",
    }
    return await begin(
        Program(
            listen=listen,
            files={FILE: swaps, SCRIPT: {"abns@tallygate": f"abns@tallygate-{listen}"}},
            words=lambda at: [PROGRAM, "-db", "-f", at[FILE]],
            environment={"LD_LIBRARY_PATH": LIBRARIES},
        )
    )


class TestHaproxy(Laws):
    """As any."""


class TestHaproxyDistrusts(DistrustLaws):
    """What is not a decision is none."""


class TestHaproxySettles(SettlingLaws):
    """By a filter in Lua."""


class TestHaproxyLoses(LossLaws):
    """It does not try again."""


class TestHaproxyCounts(CountingLaws):
    """By the same filter."""

    hears_the_end = True


async def test_what_says_yes_without_a_decision_is_not_the_gateway(
    front: Front, upstream: Upstream, stand_in: Any
) -> None:
    """Whatever listens there says 200 to anything."""
    await stand_in(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (await front("/v1/x"))[0] == 503
    assert upstream.seen == []


@pytest.mark.parametrize("patience_ms", [500])
async def test_a_question_is_asked_once(front: Front, stand_in: Any) -> None:
    """HAProxy's own client would ask again, and the caller would pay twice."""
    asked = await stand_in(None)
    await asyncio.gather(*(front("/v1/x") for _ in range(5)))
    assert len(asked) == 5
