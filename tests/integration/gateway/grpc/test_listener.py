"""Sockets: peers that are slow, silent or too many, and those that do not read."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import hpack
import pytest

from gateway.edge.grpc import listener as listening
from gateway.edge.grpc.call import Call
from gateway.edge.grpc.connection import Bounds
from gateway.edge.grpc.frame import DATA, HEADERS, PREFACE, SETTINGS, frame
from gateway.edge.grpc.listener import Listener

HELLO = PREFACE + frame(SETTINGS, 0, stream_id=0, payload=b"")
SMALL_WINDOW = PREFACE + frame(SETTINGS, 0, stream_id=0, payload=b"\0\4\0\0\0\1")


def call(path: str, stream_id: int = 1, *, size: int = 0) -> bytes:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc")]
    block = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])
    body = b"\0" + size.to_bytes(4, "big") + bytes(size)
    return frame(HEADERS, 4, stream_id=stream_id, payload=block) + frame(DATA, 1, stream_id=stream_id, payload=body)


@pytest.fixture
async def served(free_port: Callable[[], int]) -> AsyncIterator[tuple[Listener, int]]:
    """A listener without patience that echoes, keeps, or says a lot."""
    kept: list[Call] = []

    def echo(call: Call) -> None:
        call.answer(call.message)

    def much(call: Call) -> None:
        call.answer(bytes(16_000))

    methods = {"/echo": echo, "/later": kept.append, "/much": much}
    made = Listener(methods, sinks={}, bounds=Bounds(), since_s=lambda _: time.perf_counter(), patience_s=0.2)
    made.kept = kept
    door = socket.socket()
    number = free_port()
    door.bind(("127.0.0.1", number))
    await made.start(door, backlog=16)
    yield made, number
    await made.stop(0)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """All that is still said, to the end."""
    async with asyncio.timeout(30):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "said",
    [b"", PREFACE[:10], PREFACE, HELLO + call("/echo")[:-1], SMALL_WINDOW + call("/echo", size=9)],
    ids=["nothing", "half a preface", "no settings", "half a call", "no room for the answer"],
)
async def test_who_says_half_and_no_more_is_closed(served: Any, said: bytes) -> None:
    """After the patience is over; nobody holds a place for nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served[1])
    writer.write(said)
    assert (await closed(reader)).endswith(b"nothing more has come")
    writer.close()


async def test_who_waits_for_us_is_waited_with(served: Any) -> None:
    """A call that runs has all the time that its method takes, and so has a connection without calls."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served[1])
    idle, other = await asyncio.open_connection("127.0.0.1", served[1])
    other.write(HELLO)
    writer.write(HELLO + call("/later"))
    silent, third = await asyncio.open_connection("127.0.0.1", served[1])
    await closed(silent)  # whose patience began later is closed by now
    served[0].kept[0].answer(b"at last")
    async with asyncio.timeout(30):
        assert (await reader.readuntil(b"at last")).endswith(b"at last")
        other.write(call("/echo", size=3))
        await idle.readuntil(b"\0\0\0\0\3\0\0\0")
    for one in (writer, other, third):
        one.close()


async def flood(deaf: socket.socket) -> None:
    """Call and never read."""
    for number in range(1, 2**20, 2):
        await asyncio.get_running_loop().sock_sendall(deaf, call("/much", number))


async def test_who_does_not_read_is_not_read_from_and_then_closed(served: Any, eventually: Any) -> None:
    """What is written meanwhile is bounded: the answers stop where the socket is full."""
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        deaf.setblocking(False)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        await loop.sock_connect(deaf, ("127.0.0.1", served[1]))
        wide = PREFACE + frame(SETTINGS, 0, stream_id=0, payload=b"\0\4\x7f\xff\xff\xff")
        await loop.sock_sendall(deaf, wide + frame(8, 0, stream_id=0, payload=b"\x7f\xff\0\0"))
        with pytest.raises(ConnectionError):
            await flood(deaf)
    await eventually(lambda: not served[0]._carriers)


async def test_there_is_a_bound_on_connections(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes above it is closed at once, and there is a place again when another one leaves."""
    monkeypatch.setattr(listening, "_MAX_CARRIERS", 1)
    first, writer = await asyncio.open_connection("127.0.0.1", served[1])
    writer.write(HELLO)
    await first.readexactly(9)
    second, other = await asyncio.open_connection("127.0.0.1", served[1])
    assert await closed(second) == b""
    writer.close()
    other.close()
    while True:
        third, again = await asyncio.open_connection("127.0.0.1", served[1])
        if await third.read(9):
            break
        again.close()
    again.close()


async def test_a_stop_ends_who_does_not_hear(served: Any, eventually: Any) -> None:
    """A peer that never acknowledges has the grace and no more; its call is not answered any more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served[1])
    writer.write(HELLO + call("/later"))
    await eventually(lambda: served[0].kept)
    await served[0].stop(0.6)
    assert (await closed(reader)).endswith(b"the process ends")
    served[0].kept[0].answer(b"too late")
    writer.close()
