"""A client that closes its side: who has announced its last request is answered, any other has hung up."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from tests.integration.gateway.proxy.test_pass import bearer

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def going(origin: Any) -> asyncio.Event:
    """The origin answers once it is set."""
    event = asyncio.Event()

    async def answer(asked: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        await event.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    origin.answer = answer
    return event


def route(**more: Any) -> dict[str, Any]:
    charge = {"feature": "tokens", "quantity": {"units": 20}, "settle": {"bytes": 1}}
    return {"charges": [charge]} | more


@pytest.mark.parametrize(
    ("told", "rows", "line_end"),
    [
        ("announced", ["Connection: close"], "HTTP/1.1"),
        ("announced", [], "HTTP/1.0"),
        ("always", [], "HTTP/1.1"),
        ("always", ["Connection: close"], "HTTP/1.1"),
    ],
)
async def test_who_has_said_all_is_answered(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any, going: asyncio.Event,
    told: str, rows: list[str], line_end: str,
) -> None:  # fmt: skip
    """And the connection ends with the answer."""
    await world.grant(10_000)
    worker = await proxied(route(half_close=told))
    client = await line()
    head = "\r\n".join([f"GET /x {line_end}", "Host: a", bearer(world), *rows, "", ""])
    await client.send(head.encode())
    client.writer.write_eof()
    await eventually(lambda: origin.asked and all(one._is_ended for one in worker.proxy.connections))
    going.set()
    reply = await client.response()
    assert (reply.status, reply.body, reply.is_last) == (200, b"hello", True)
    assert await client.end() == b""
    await eventually(lambda: not worker.proxy.connections)
    await books.settled(9_500)


@pytest.mark.parametrize(("told", "rows"), [("announced", []), ("never", ["Connection: close"]), ("never", [])])
async def test_any_other_has_hung_up(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any, going: asyncio.Event,
    told: str, rows: list[str],
) -> None:  # fmt: skip
    """The upstream is hung up on at once."""
    await world.grant(10_000)
    worker = await proxied(route(half_close=told, on_disconnect="held"))
    client = await line()
    await client.get("/x", bearer(world), *rows)
    await eventually(lambda: origin.asked)
    client.writer.write_eof()
    await eventually(lambda: not worker.proxy.exchanges)
    going.set()
    await books.settled(8_000)
    assert [one["ending"] for one in await books.evidence()] == ["client_lost"]


async def test_once_the_response_has_begun_it_is_a_hang_up(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any
) -> None:
    """What was delivered is charged."""
    await world.grant(10_000)
    worker = await proxied(route())
    origin.says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
    client = await line()
    await client.get("/x", bearer(world), "Connection: close")
    assert (await client.head())[0] == 200
    assert await client.reader.readexactly(2) == b"he"
    client.writer.write_eof()
    await eventually(lambda: not worker.proxy.exchanges)
    await books.settled(9_800)


async def test_who_went_after_all_is_found_out_by_what_is_sent(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any
) -> None:
    """A stream does not run on for nobody."""
    await world.grant(10**9)
    worker = await proxied(route())
    step = asyncio.Event()

    async def answer(asked: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        await step.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0)

    origin.answer = answer
    client = await line()
    await client.get("/x", bearer(world), "Connection: close")
    client.writer.write_eof()
    await eventually(lambda: origin.asked and all(one._is_ended for one in worker.proxy.connections))
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.writer.transport.abort()
    step.set()
    await eventually(lambda: not worker.proxy.exchanges)
    (told,) = await books.evidence()
    assert told["ending"] == "client_lost"
    units = await books.units()
    assert units == {"tokens": int(told["delivered_bytes"])}
    await books.settled(10**9 - 100 * units["tokens"])


@pytest.mark.parametrize("settle", [{"bytes": 1}, {"json": "n"}])
async def test_a_body_that_is_not_whole_cannot_be_answered(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any, settle: dict[str, Any]
) -> None:
    """Whether it is passed on as it comes or read before."""
    await world.grant(10_000)
    quantity = {"json": "n"} if "json" in settle else {"units": 20}
    worker = await proxied({"charges": [{"feature": "tokens", "quantity": quantity}], "half_close": "always"})
    client = await line()
    await client.get("/x", bearer(world), "Content-Length: 9", "Connection: close", method="POST", body=b'{"n": 1')
    client.writer.write_eof()
    assert await client.end() == b""
    await eventually(lambda: not worker.proxy.exchanges)
    await books.settled(10_000)
    assert await books.units() == {}


async def test_what_was_pipelined_before_is_answered_too(
    proxied: Any, origin: Any, line: Any, world: Any, eventually: Any
) -> None:
    """Where a closed side is no hang-up."""
    await world.grant(10_000)
    await proxied(route(half_close="always"))
    client = await line()
    asking = f"GET /x HTTP/1.1\r\nHost: a\r\n{bearer(world)}\r\n\r\n".encode()
    await client.send(asking * 3 + b"GET /cut HT")
    client.writer.write_eof()
    assert [(await client.response()).body for _ in range(3)] == [b"hello"] * 3
    assert await client.end() == b""
