"""A connection and what it holds back, without a socket."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.door import Door
from gateway.edge.lane.connection import MOST_OPEN, Connection
from gateway.edge.lane.lane import Lane
from gateway.edge.message import Answer, Request, Route
from gateway.edge.slumber import Slumber
from gateway.settings import GatewaySettings
from tests.unit.gateway.lane.requests import PIECES, head, request


class Carrier(asyncio.Transport):
    """A transport that remembers what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading = True
        self.is_ended = self.is_aborted = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_aborted

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_aborted = True

    def abort(self) -> None:
        self.is_aborted = True


class Counter:
    """A handler whose answers come when told, each with the body that was sent."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    async def answer(self, asked: Request) -> Answer:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiting)
        await waiting
        await asyncio.sleep(0)
        return Answer(status=200, body=asked.body)


def opened(counter: Counter, carrier: Carrier) -> Connection:
    route = Route(method="POST", path="/v1/check", handler=counter.answer, is_hot=True)
    slumber = Slumber(waited_s=lambda _: 0.0)
    lane = Lane([route], Door(None), slumber=slumber, settings=GatewaySettings(), guest=asyncio.Protocol)
    connection = lane.make_connection()
    connection.connection_made(carrier)
    return connection


def bodies(written: bytes) -> list[bytes]:
    return [part.split(b"\r\n\r\n", 1)[1] for part in written.split(b"HTTP/1.1 200 OK\r\n")[1:]]


async def some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_only_so_many_are_under_way_at_once() -> None:
    """The rest is not read until there is room, and then is."""
    counter, carrier = Counter(), Carrier()
    connection = opened(counter, carrier)
    asked = [b"%d" % n for n in range(MOST_OPEN + 10)]
    connection.data_received(b"".join(request(body) for body in asked))
    assert (len(counter.waiting), carrier.is_reading) == (MOST_OPEN, False)
    for waiting in reversed(counter.waiting):
        waiting.set_result(None)
    await some_turns()
    assert (len(counter.waiting), carrier.is_reading) == (MOST_OPEN + 10, True)
    for waiting in counter.waiting[MOST_OPEN:]:
        waiting.set_result(None)
    await some_turns()
    assert bodies(carrier.written) == asked


async def test_an_early_answer_waits_for_the_one_before() -> None:
    """Answers have the order of their requests."""
    counter, carrier = Counter(), Carrier()
    connection = opened(counter, carrier)
    connection.data_received(request(b"a") + request(b"b"))
    counter.waiting[1].set_result(None)
    await some_turns()
    assert carrier.written == b""
    counter.waiting[0].set_result(None)
    await some_turns()
    assert bodies(carrier.written) == [b"a", b"b"]


async def test_who_is_gone_is_not_written_to() -> None:
    """What it asked for is done all the same."""
    counter, carrier = Counter(), Carrier()
    connection = opened(counter, carrier)
    connection.data_received(request(b"a"))
    connection.connection_lost(None)
    counter.waiting[0].set_result(None)
    await some_turns()
    assert carrier.written == b""


async def test_a_wait_that_is_given_up_gives_the_connection_up() -> None:
    """There is no answer any more that would be true."""
    counter, carrier = Counter(), Carrier()
    connection = opened(counter, carrier)
    connection.data_received(request(b"a"))
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    counter.waiting[0].cancel()
    await some_turns()
    assert (carrier.is_aborted, carrier.written) == (True, b"")


async def test_a_field_that_would_be_two_is_a_fault_of_ours() -> None:
    """It never goes out."""
    counter, carrier = Counter(), Carrier()
    connection = opened(counter, carrier)
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    written = connection._lane.written(Answer(status=200, headers=(("A", "b\r\nC: d"),)), is_last=False)
    assert written.startswith(b"HTTP/1.1 500 ")
    assert b"C: d" not in written
    assert len(told) == 1


class Guest(asyncio.Protocol):
    """Whoever gets what is not the lane's: it tells what it was given."""

    def __init__(self) -> None:
        self.carrier: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.carrier = transport

    def data_received(self, data: bytes) -> None:
        self.carrier.write(b"<" + data)


async def told(pieces: list[bytes]) -> tuple[bytes, bool, bool]:
    """What a client reads that sends these pieces, and whether it is the end."""

    async def answer(asked: Request) -> Answer:
        if len(asked.body) % 2:
            await asyncio.sleep(0)
        return Answer(status=200, body=asked.body)

    carrier = Carrier()
    route = Route(method="POST", path="/v1/check", handler=answer, is_hot=True)
    lane = Lane(
        [route],
        Door(None),
        slumber=Slumber(waited_s=lambda _: 0.0),
        settings=GatewaySettings(max_head_bytes=1_000, max_body_bytes=100),
        guest=Guest,
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )
    carrier.set_protocol(lane.make_connection())
    carrier.get_protocol().connection_made(carrier)
    for piece in pieces:
        while not carrier.is_reading:
            await some_turns()
        carrier.get_protocol().data_received(piece)  # type: ignore[attr-defined]
    await some_turns()
    return carrier.written.replace(b"<", b""), carrier.is_ended, carrier.is_aborted


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), data=st.data())
def test_the_cuts_between_the_bytes_do_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    """The same bytes are the same answers, and the same end, however they come."""
    raw = b"".join(parts) + data.draw(st.sampled_from([b"", head(target="/v1/events"), request(b"last")]))
    places = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=12)))
    cut = [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True) if a != b]
    whole = asyncio.run(told([raw]))
    assert asyncio.run(told(cut)) == whole
    assert asyncio.run(told([raw[at : at + 1] for at in range(len(raw))])) == whole
