"""The real Traefik in front, with the configuration as it is shipped, but for addresses and features."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from billing_core.contract.shipped import shipped
from gateway.settings import GatewaySettings
from tests.integration.gateway.behind.conftest import KEY, Begin, Front, Program, Upstream
from tests.integration.gateway.behind.laws import CALLS, TOKEN_NANOS, DistrustLaws, Laws, SettlingLaws, charged

FILE, ROUTES = "proxies/traefik.yml", "proxies/traefik_routes.yml"
TRAEFIK = Path(sys.executable).with_name("traefik")


def proxy_routes() -> str:
    """The route of our own proxy, as the comment in the shipped file has it."""
    text = shipped(ROUTES).read_text("utf-8")
    return "\n".join(re.findall(r"(?m)^# {21}(.*)$", text))


@pytest.fixture
def settings(
    settings: GatewaySettings, upstream: Upstream, free_port: Callable[[], int], tmp_path: Path
) -> GatewaySettings:
    file = tmp_path / "routes.toml"
    text = proxy_routes()
    for old, new in {"127.0.0.1:8000": f"127.0.0.1:{upstream.port}", "api.units": "tokens"}.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text, "utf-8")
    return msgspec.structs.replace(settings, proxy_port=free_port(), proxy_routes_file=str(file))


@pytest.fixture
async def front(begin: Begin, upstream: Upstream, settings: Any, free_port: Callable[[], int]) -> Front:
    listen = free_port()
    swaps = {
        "127.0.0.1:8080": f"127.0.0.1:{settings.port}",
        "127.0.0.1:8082": f"127.0.0.1:{settings.proxy_port}",
        "127.0.0.1:8000": f"127.0.0.1:{upstream.port}",
        "feature=api.calls": "feature=calls",
        "feature=api.units": "feature=tokens",
    }
    return await begin(
        Program(
            listen=listen,
            files={FILE: {"127.0.0.1:8888": f"127.0.0.1:{listen}"}, ROUTES: swaps},
            words=lambda at: [TRAEFIK, f"--configFile={at[FILE]}"],
        )
    )


class TestTraefik(Laws):
    """But that a client who may pass is not told its limits."""

    tells_limits = False
    gone_status = 500


@pytest.mark.parametrize("kind", DistrustLaws.OTHERS)
async def test_what_is_no_answer_lets_nobody_pass(
    front: Front, upstream: Upstream, stand_in: Any, kind: str
) -> None:
    """Its own 500, or what was said."""
    await stand_in(DistrustLaws.OTHERS[kind])
    assert (await front(CALLS))[0] == (404 if kind == "another server" else 500)
    assert upstream.seen == []


class TestTraefikSettles(SettlingLaws):
    """Through our own proxy."""


async def test_an_upstream_that_is_told_the_hold_settles_it(
    front: Front, upstream: Upstream, world: Any, books: Any, call: Any
) -> None:
    """By one call; whatever the client says of a hold, and even if the upstream repeats it."""
    await world.grant(10**9)

    async def answer(request: web.Request) -> web.Response:
        hold = request.headers["X-Tallygate-Hold"]
        async with aiohttp.ClientSession() as session:
            url = f"{call.url}/v1/authorize/settle?hold={hold}&quantity=7"
            async with session.post(url) as told:
                assert told.status == 204
        return web.Response(text="served", headers={"X-Tallygate-Hold": hold})

    upstream.answer = answer
    status, told, _ = await front("/told/x", KEY | {"X-Tallygate-Hold": "hold_mine"})
    assert (status, "X-Tallygate-Hold" in told) == (200, False)
    await books.settled(10**9 - 7 * TOKEN_NANOS)
    assert await charged(world) == [("tokens", 7)]
