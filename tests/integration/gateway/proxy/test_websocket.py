"""WebSockets pass as they are, and are charged by message or by second, no further than the hold goes."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.integration.gateway.proxy.carrier import Stage
from tests.integration.gateway.proxy.test_pass import bearer


@pytest.fixture
async def echo(origin: Any) -> Any:
    """A WebSocket server where the origin was: it says everything twice."""

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            for _ in range(2):
                await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    origin.port = runner.addresses[0][1]
    yield origin
    await runner.cleanup()


def route(units: int, settle: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"charges": [{"feature": "tokens", "quantity": {"units": units}, "settle": settle}]} | more


def key_of(world: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {world.key}"}


@pytest.mark.parametrize(("which", "units"), [("up", 3), ("down", 6), ("both", 9)])
async def test_messages_are_counted_and_settled(
    proxied: Any, echo: Any, world: Any, books: Any, eventually: Any, which: str, units: int
) -> None:
    """As they pass, whatever their size; control frames are none."""
    await world.grant(10_000)
    worker = await proxied(route(20, {"messages": which}))
    url = f"http://127.0.0.1:{echo.proxy_port}/talk"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=key_of(world)) as socket:
        for text in ("short", "m" * 300, "l" * 70_000):
            await socket.ping()
            await socket.send_str(text)
            assert [await socket.receive_str() for _ in range(2)] == [text, text]
    await eventually(lambda: not worker.proxy.exchanges)
    await books.settled(10_000 - units * 100)
    assert await books.units() == {"tokens": units}


async def test_a_second_that_has_begun_is_charged(
    proxied: Any, echo: Any, world: Any, books: Any, eventually: Any
) -> None:
    """Of a connection that was open for a moment, one."""
    await world.grant(100_000)
    worker = await proxied(route(600, {"seconds": 600}))
    url = f"http://127.0.0.1:{echo.proxy_port}/talk"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=key_of(world)) as socket:
        await socket.send_str("a")
        assert await socket.receive_str() == "a"
    await eventually(lambda: not worker.proxy.exchanges)
    await books.settled(99_900)


@pytest.mark.parametrize(
    ("granted", "extend", "passing"), [(400, 0, 4), (700, 1, 7), (900, 3, 9), (20_000, 5, 100)]
)
async def test_a_connection_ends_where_its_hold_does(
    proxied: Any, echo: Any, world: Any, books: Any, eventually: Any, granted: int, extend: int, passing: int
) -> None:
    """Not one message passes that nobody has set aside; the client is told by a close frame."""
    await world.grant(granted)
    worker = await proxied(route(4, {"messages": "down"}, extend_units=extend))
    url = f"http://127.0.0.1:{echo.proxy_port}/talk"
    got = 0
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=key_of(world)) as socket:
        for _ in range(50):
            await socket.send_str("a")
        while got < passing:
            await socket.receive_str()
            got += 1
        if passing < 100:
            end = await socket.receive()
            assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1008)
    await eventually(lambda: not worker.proxy.exchanges)
    await books.settled(granted - passing * 100)
    assert [one["ending"] for one in await books.evidence()] == (["cut"] if passing < 100 else [])


async def test_an_upgrade_that_is_not_granted_is_an_ordinary_answer(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any
) -> None:
    """Also one to a protocol that we do not pass on, which the upstream never hears of."""
    await world.grant(10_000)
    await proxied(route(4, {"messages": "down"}))
    client = await line()
    for protocol in ("websocket", "h2c"):
        await client.get(
            "/x", bearer(world), "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: x"
        )
        assert (await client.response()).body == b"hello"
    assert origin.asked[0].fields["upgrade"] == "websocket"
    assert "upgrade" not in origin.asked[1].fields
    assert "http2-settings" not in origin.asked[1].fields
    await books.settled(10_000)


async def test_bytes_that_come_with_the_upgrade_are_not_lost(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any
) -> None:
    """On either side, and in both directions at any size."""
    await world.grant(10_000)
    await proxied(route(4, {"bytes": 1_000_000_000}))
    origin.reads_body = False
    frame, big = b"\x81\x02hi", b"x" * 3_000_000

    async def answer(asked: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + frame
        )
        writer.write(await reader.readexactly(len(frame)))
        writer.write(await reader.readexactly(len(big)))
        await writer.drain()
        writer.close()

    origin.answer = answer
    client = await line()
    await client.get("/x", bearer(world), "Connection: Upgrade", "Upgrade: websocket", body=frame)
    assert (await client.head())[0] == 101
    writing = asyncio.create_task(client.send(big))
    async with asyncio.timeout(30):
        assert await client.reader.read() == frame + frame + big
        await writing


UPGRADE = b"\r\n".join(
    [
        b"GET /x HTTP/1.1",
        b"Host: a",
        b"X-Api-Key: tgk_caller",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
        b"\r\n",
    ]
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
WHOLE, BEGUN, ON, LAST, PING = b"\x81\x02hi", b"\x01\x02he", b"\x00\x01l", b"\x80\x01o", b"\x89\x00"
SAID = b"\x81\x82mask\x05\x08"
CLOSED = b"\x88\x16\x03\xf0insufficient_balance"
"""1008, and why."""


@pytest.mark.parametrize(
    ("counted", "down", "up", "passed"),
    [
        ("down", [WHOLE + BEGUN + ON + LAST], [], WHOLE + BEGUN + ON + CLOSED),
        ("down", [WHOLE, BEGUN, ON + PING + LAST], [], WHOLE + BEGUN + ON + PING + CLOSED),
        ("down", [BEGUN + LAST, WHOLE], [], BEGUN + LAST + CLOSED),
        ("up", [BEGUN], [SAID * 2], BEGUN + CLOSED),
        ("up", [BEGUN[:3]], [SAID * 2], BEGUN[:3]),
        ("up", [BEGUN + ON[:1]], [SAID * 2], BEGUN + CLOSED),
    ],
)
async def test_a_cut_between_fragments_is_told_and_one_inside_a_frame_is_not(
    proxied: Any, world: Any, books: Any, monkeypatch: pytest.MonkeyPatch,
    counted: str, down: list[bytes], up: list[bytes], passed: bytes,
) -> None:  # fmt: skip
    """One message is covered. A close may stand between the fragments of a message, but not in a frame."""
    await world.grant(1_000)
    stage = Stage(await proxied(route(1, {"messages": counted})), monkeypatch)
    client, upstream = await stage.meet(UPGRADE)
    upstream.says(SWITCHED, *down)
    client.says(*up)
    await stage.over()
    assert client.written.partition(b"\r\n\r\n")[2] == passed
    assert client.is_closing()
    assert upstream.is_closing()
    await books.settled(900)
