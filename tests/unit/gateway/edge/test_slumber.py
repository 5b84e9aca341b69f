"""Since when a request waits: as a rule since now; after a sleep the kernel is asked, and of TCP it knows."""

from __future__ import annotations

import asyncio
import math
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from gateway.edge.slumber import Connection, Slumber, waited_s
from gateway.edge.wire import MAX_DEADLINE_MS

TICK_S = 0.02  # the kernel counts in ticks of at most 10 ms, and tells whole milliseconds
LONG_S = 0.3
Ends = tuple[socket.socket, socket.socket]


class Bed:
    """A slumber whose clock and kernel are told what to say."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waited_s = 0.0
        self.looks = 0
        self.turn_s = math.inf
        self.slumber = Slumber(now_s=lambda: self.now_s, waited_s=self.look, turn_s=lambda: self.turn_s)

    def look(self, _: Connection) -> float:
        self.looks += 1
        return self.waited_s

    def pass_time(self, seconds: float) -> None:
        """As a loop that runs: with a beat every 50 ms."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += 0.05
            self.slumber.beat()

    def since_s(self) -> float:
        return self.slumber.since_s(None)


@pytest.fixture
def bed() -> Bed:
    made = Bed()
    made.slumber.beat()
    return made


def test_what_is_read_late_in_a_turn_waits_since_its_beginning(bed: Bed) -> None:
    """To the millisecond that the loop tells, for the benefit of the doubt; another kind of clock is not used."""
    bed.turn_s = bed.now_s
    assert bed.since_s() == bed.now_s
    bed.now_s += 0.040
    assert bed.since_s() == bed.turn_s + 0.001
    assert bed.looks == 0
    bed.turn_s = 5.0
    assert bed.since_s() == bed.now_s
    bed.turn_s = bed.now_s + 100
    assert bed.since_s() == bed.now_s


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_tells_its_turn_on_the_clock_of_deadlines(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Or the two could not be compared; uvloop's stands still within a turn, which makes it of use."""

    async def look() -> tuple[float, float, float]:
        before_s = time.perf_counter()
        await asyncio.sleep(0.002)
        return before_s, asyncio.get_running_loop().time(), time.perf_counter()

    loop = make_loop()
    try:
        before_s, turn_s, after_s = loop.run_until_complete(look())
    finally:
        loop.close()
    assert before_s <= turn_s + 0.001
    assert turn_s <= after_s


def test_while_the_loop_runs_nobody_is_asked(bed: Bed) -> None:
    """Whatever the kernel would say: a request waits since now."""
    bed.waited_s = 9.0
    bed.pass_time(10)
    assert bed.since_s() == bed.now_s
    bed.now_s += 0.249
    assert bed.since_s() == bed.now_s
    assert (bed.looks, bed.slumber.sleeps, bed.slumber.overslept) == (0, 0, 0)


def test_before_the_first_beat_nothing_is_trusted() -> None:
    """The port may be listened on already; and the first beat is not late."""
    bed = Bed()
    bed.waited_s = 5.0
    assert bed.since_s() == 95.0
    bed.slumber.beat()
    assert bed.since_s() == bed.now_s
    assert bed.slumber.sleeps == 0


@pytest.mark.parametrize("beaten", [False, True], ids=["sockets first", "beat first"])
def test_after_a_sleep_a_request_waits_since_it_came(bed: Bed, *, beaten: bool) -> None:
    """Whether the loop runs the late beat before the sockets or after them."""
    bed.pass_time(1)
    bed.now_s += 1.6
    if beaten:
        bed.slumber.beat()
    bed.waited_s = 1.5
    assert bed.since_s() == bed.now_s - 1.5
    bed.waited_s = 0.25
    assert bed.since_s() == bed.now_s
    assert bed.slumber.overslept == 1


def test_the_watch_lasts_as_long_as_anything_may_stand_behind_others(bed: Bed) -> None:
    """And it begins anew with another sleep."""
    bed.now_s += 1.6
    bed.slumber.beat()
    bed.waited_s = 2.0
    bed.pass_time(MAX_DEADLINE_MS / 1_000 - 1)
    assert bed.since_s() == bed.now_s - 2.0
    bed.now_s += 0.3
    bed.pass_time(MAX_DEADLINE_MS / 1_000 - 1)
    assert bed.since_s() == bed.now_s - 2.0
    bed.pass_time(2)
    assert bed.since_s() == bed.now_s
    assert (bed.slumber.sleeps, bed.slumber.overslept) == (2, 2)


def test_who_is_gone_has_waited_for_ever(bed: Bed) -> None:
    """There is nobody whom a decision could be told."""
    assert waited_s(None) == math.inf
    bed.now_s += 1.6
    bed.waited_s = math.inf
    assert bed.since_s() == -math.inf


class Carried(asyncio.BaseTransport):
    """A transport that carries nothing but its socket."""

    def __init__(self, carrier: socket.socket | None) -> None:
        super().__init__({"socket": carrier})

    def is_closing(self) -> bool:
        return False


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A listener, and the far end of a connection that it has not accepted."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as far:
        yield listener, far


def test_the_kernel_counts_from_the_last_bytes_also_before_a_connection_is_accepted(ends: Ends) -> None:
    """Not from the opening of the connection, nor from its acceptance."""
    listener, far = ends
    time.sleep(2 * LONG_S)
    sent_s = time.perf_counter()
    far.sendall(b"first")
    time.sleep(LONG_S)  # it lies in a connection that nobody has accepted
    near, _ = listener.accept()
    with near:
        told_s = waited_s(Carried(near))
        assert LONG_S / 2 < told_s <= time.perf_counter() - sent_s + TICK_S


def test_reading_answering_and_farewells_do_not_make_bytes_younger(ends: Ends) -> None:
    """Only bytes from the other side do: a kept connection is as old as its last request."""
    listener, far = ends
    near, _ = listener.accept()
    with near:
        far.sendall(b"first")
        select.select([near], [], [])
        readable_s = time.perf_counter()
        time.sleep(LONG_S)
        near.recv(100)
        near.sendall(b"answer")
        far.recv(100)
        assert time.perf_counter() - readable_s - TICK_S <= waited_s(Carried(near))
        sent_s = time.perf_counter()
        far.sendall(b"second")
        select.select([near], [], [])
        assert waited_s(Carried(near)) <= time.perf_counter() - sent_s + TICK_S
        readable_s = time.perf_counter()
        near.recv(100)
        time.sleep(LONG_S)
        far.shutdown(socket.SHUT_WR)
        assert near.recv(100) == b""
        assert time.perf_counter() - readable_s - TICK_S <= waited_s(Carried(near))


def test_what_is_no_tcp_is_as_it_always_was() -> None:
    """The siblings' unix sockets; a transport without any."""
    one, other = socket.socketpair()
    with one, other:
        assert waited_s(Carried(one)) == 0.0
    assert waited_s(Carried(None)) == 0.0


async def on_a_real_transport() -> tuple[float, float, float]:
    """What is told of a connection with old bytes, how old they are at most, and what is told once it is closed."""
    came: asyncio.Future[asyncio.BaseTransport] = asyncio.get_running_loop().create_future()

    class Reads(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            came.set_result(transport)

    server = await asyncio.get_running_loop().create_server(Reads, "127.0.0.1", 0)
    begun_s = time.perf_counter()
    with socket.create_connection(server.sockets[0].getsockname()) as far:
        far.sendall(b"bytes")
        transport = await came
        await asyncio.sleep(2 * LONG_S)
        told_s, most_s = waited_s(transport), time.perf_counter() - begun_s + TICK_S
        transport.close()
        closed_s = waited_s(transport)
    server.close()
    await server.wait_closed()
    return told_s, most_s, closed_s


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_transports_of_both_loops_can_be_asked(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """uvloop's sockets are not Python's own; a transport that closes is gone."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        told_s, most_s, closed_s = runner.run(on_a_real_transport())
    assert LONG_S < told_s <= most_s
    assert closed_s == math.inf
