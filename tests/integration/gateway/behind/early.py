"""What holds of a proxy that settles when the upstream has answered, and lets go of all when its client goes."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil
from aiohttp import web

from tests.integration.gateway.behind.conftest import Front, Upstream
from tests.integration.gateway.behind.laws import TOKEN_NANOS, LossLaws, SettlingLaws
from tests.integration.gateway.conftest import until

COST = SettlingLaws.held * TOKEN_NANOS


def lines(port: int) -> int:
    """How many connections to it are open."""
    ends = [one for one in psutil.net_connections("tcp4") if one.raddr and one.raddr.port == port]
    return sum(one.status == psutil.CONN_ESTABLISHED for one in ends)


class EarlyLossLaws(LossLaws):
    """A hold that the proxy forgets is left to its end, which charges it."""

    async def test_who_goes_before_there_is_a_decision_pays_by_the_upstreams_word(
        self, front: Front, upstream: Upstream, world: Any, books: Any, gateway: Any, settings: Any
    ) -> None:
        """Not here: the upstream is never asked, and the hold waits for its end."""
        await world.grant(10**9)
        link = gateway[0].links["decision"]
        await world.valkey.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
        writer = await front.ask(SettlingLaws.metered)
        await until(lambda: link.seated_count)
        asking = lines(settings.port)
        writer.transport.abort()
        await until(lambda: lines(settings.port) < asking)
        await world.valkey.execute_command("CLIENT", "UNPAUSE")
        await until(lambda: not link.seated_count)
        assert await books.wallet() == (10**9 - COST, COST)
        assert upstream.seen == []

    async def test_who_goes_while_the_upstream_works_leaves_the_hold_to_its_end(
        self, front: Front, upstream: Upstream, world: Any, books: Any
    ) -> None:
        """What it would have said is never heard."""
        await world.grant(10**9)
        gone = asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            await until(lambda: request.transport is None or request.transport.is_closing())
            gone.set()
            return web.Response(headers={"X-Units-Used": "7"})

        upstream.answer = answer
        writer = await front.ask(SettlingLaws.metered)
        await until(lambda: upstream.seen)
        writer.transport.abort()
        async with asyncio.timeout(60):
            await gone.wait()
        assert await books.wallet() == (10**9 - COST, COST)
