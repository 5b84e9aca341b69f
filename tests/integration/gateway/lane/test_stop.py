"""A gateway that stops: what was asked is answered, and nobody who may come to another one is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


async def test_a_connection_hears_that_its_answer_is_the_last(
    served: Any, wire: Any, check: Any, eventually: Any
) -> None:
    """Who asks while the gateway stops is answered; who asks nothing is let go."""
    server = await served()
    line, idle = await wire(), await wire()
    await line.send(check())
    assert not (await line.reply()).is_last
    stopping = asyncio.create_task(server.stop())
    await eventually(lambda: server._lane is not None and server._lane.is_stopping)
    await line.send(check())
    reply = await line.reply()
    assert (reply.status, reply.is_last) == (200, True)
    assert await line.end() == b""
    assert await idle.end() == b""
    await stopping


async def test_a_request_that_is_half_read_is_awaited(served: Any, wire: Any, check: Any, eventually: Any) -> None:
    """As long as the grace lasts."""
    server = await served()
    line = await wire()
    await line.send(check()[:-1])
    await eventually(
        lambda: server._lane is not None and any(not one._reader.is_clean for one in server._lane.connections)
    )
    stopping = asyncio.create_task(server.stop())
    await eventually(lambda: server._lane.is_stopping)
    await line.send(check()[-1:])
    reply = await line.reply()
    assert (reply.status, reply.is_last) == (200, True)
    await stopping


async def test_a_grace_has_an_end(served: Any, wire: Any, check: Any) -> None:
    """Whoever never ends a request does not hold up a stop."""
    server = await served(stop_grace_ms=200)
    line = await wire()
    await line.send(check()[:-1])
    await server.stop()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await line.reply()
