"""A connection and what it holds back, without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.edge.door import Door
from gateway.edge.lane.connection import MOST_OPEN, Connection
from gateway.edge.lane.lane import Lane
from gateway.edge.message import Answer, Request, Route
from gateway.edge.slumber import Slumber
from gateway.settings import GatewaySettings
from tests.unit.gateway.lane.requests import request


class Carrier(asyncio.Transport):
    """A transport that remembers what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading = True
        self.is_ended = self.is_aborted = False

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
