"""A pipe, driven by hand: the network is what the transport was given and what data_received is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from billing_core.errors import Unavailable
from gateway.state.pipe import Pipe, PipeLimits, PipeTally
from gateway.state.resp import ErrorReply, encode


class Wire(asyncio.Transport):
    """Remembers every write; ends the connection when it is aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.pipe: Pipe | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        assert self.pipe is not None
        if not self.pipe.lost.done():
            self.pipe.connection_lost(None)


def make(limits: PipeLimits | None = None) -> tuple[Pipe, Wire, PipeTally]:
    tally = PipeTally()
    pipe, wire = Pipe(limits or PipeLimits(), tally), Wire()
    wire.pipe = pipe
    pipe.connection_made(wire)
    return pipe, wire, tally


async def turn() -> None:
    """Let one turn of the loop pass."""
    await asyncio.sleep(0)


async def test_commands_of_one_turn_travel_in_one_write() -> None:
    """Natural batching: no timer, one write when the turn ends."""
    pipe, wire, tally = make()
    for word in ("a", "b", "c"):
        pipe.send(("ECHO", word), deadline_ms=1_000)
    assert wire.writes == []
    await turn()
    assert wire.writes == [b"".join(b"*2\r\n$4\r\nECHO\r\n$1\r\n%b\r\n" % word for word in (b"a", b"b", b"c"))]
    pipe.send(("ECHO", "d"), deadline_ms=1_000)
    await turn()
    assert len(wire.writes) == 2
    assert (tally.commands, tally.writes) == (4, 2)


async def test_replies_go_to_their_commands_in_order_whatever_pieces_they_come_in() -> None:
    """The queue is the matching."""
    pipe, _, _ = make()
    futures = [pipe.send(("ECHO", word), deadline_ms=1_000) for word in ("a", "b", "c")]
    await turn()
    for byte in b"$1\r\na\r\n:7\r\n*2\r\n$1\r\nx\r\n$-1\r\n":
        pipe.data_received(bytes((byte,)))
    assert await asyncio.gather(*futures) == [b"a", 7, [b"x", None]]
    assert pipe.in_flight_count == 0


async def test_an_error_reply_fails_its_command_and_no_other() -> None:
    """Code and detail are two words."""
    pipe, _, _ = make()
    bad, good = pipe.send(("X",), deadline_ms=1_000), pipe.send(("Y",), deadline_ms=1_000)
    await turn()
    pipe.data_received(b"-CONFLICT idempotency\r\n+OK\r\n")
    with pytest.raises(ErrorReply) as caught:
        await bad
    assert (caught.value.code, caught.value.detail) == ("CONFLICT", "idempotency")
    assert await good == b"OK"


async def test_a_late_reply_is_swallowed_and_never_taken_for_another() -> None:
    """The slot outlives its future."""
    pipe, _, tally = make()
    late = pipe.send(("A",), deadline_ms=5)
    with pytest.raises(Unavailable, match="deadline"):
        await late
    prompt = pipe.send(("B",), deadline_ms=1_000)
    await turn()
    pipe.data_received(b":1\r\n:2\r\n")
    assert await prompt == 2
    assert tally.expired == 1


async def test_what_follows_in_a_turn_whose_commands_were_answered_has_a_deadline_too() -> None:
    """The timer that they shared is off by then."""
    pipe, _, _ = make()
    first = pipe.send(("A",), deadline_ms=5)
    pipe.data_received(b":1\r\n")
    late = pipe.send(("B",), deadline_ms=5)
    assert await first == 1
    with pytest.raises(Unavailable, match="deadline"):
        await late


async def test_who_needs_no_future_is_told_once() -> None:
    """A reply, an error, a deadline, the end of the connection: whichever comes first."""
    pipe, _, _ = make()
    told: list[tuple[str, Any]] = []
    for name in ("reply", "error", "late", "lost"):
        deadline_ms = 5 if name == "late" else 1_000
        pipe.post(encode((name,)), tell=lambda end, name=name: told.append((name, end)), deadline_ms=deadline_ms)
    late = pipe.send(("late",), deadline_ms=6)
    pipe.data_received(b":1\r\n-NOT so\r\n")
    assert [(name, str(end)) for name, end in told] == [("reply", "1"), ("error", "NOT so")]
    with pytest.raises(Unavailable):
        await late
    assert [(name, type(end)) for name, end in told[2:]] == [("late", Unavailable)]
    pipe.data_received(b":3\r\n")
    pipe.connection_lost(None)
    assert [(name, type(end)) for name, end in told[2:]] == [("late", Unavailable), ("lost", Unavailable)]


async def test_each_deadline_of_a_turn_has_its_own_timer() -> None:
    """A short one does not end a long one."""
    pipe, _, _ = make()
    short, long = pipe.send(("A",), deadline_ms=5), pipe.send(("B",), deadline_ms=1_000)
    with pytest.raises(Unavailable):
        await short
    assert not long.done()
    pipe.data_received(b":1\r\n:2\r\n")
    assert await long == 2


async def test_what_lies_in_the_socket_at_the_deadline_still_counts() -> None:
    """The futures fail one look after the timer, not with it."""
    pipe, _, _ = make()
    loop = asyncio.get_running_loop()
    future = pipe.send(("A",), deadline_ms=5)
    loop.call_later(0.005, pipe.data_received, b":1\r\n")
    assert await future == 1


async def test_no_more_than_the_bound_may_be_in_flight() -> None:
    """Refused at once, not queued; what expired still counts until its reply came."""
    pipe, _, tally = make(PipeLimits(max_in_flight=2))
    first, _ = pipe.send(("A",), deadline_ms=1_000), pipe.send(("B",), deadline_ms=1_000)
    with pytest.raises(Unavailable, match="too many"):
        pipe.send(("C",), deadline_ms=1_000)
    assert tally.refused == 1
    await turn()
    pipe.data_received(b":1\r\n")
    assert await first == 1
    pipe.send(("C",), deadline_ms=1_000)
    pipe.data_received(b":2\r\n:3\r\n")


async def test_a_server_that_does_not_read_is_not_written_to() -> None:
    """Back-pressure refuses instead of growing a buffer."""
    pipe, _, _ = make()
    pipe.pause_writing()
    with pytest.raises(Unavailable):
        pipe.send(("A",), deadline_ms=1_000)
    pipe.resume_writing()
    future = pipe.send(("A",), deadline_ms=1_000)
    pipe.data_received(b":1\r\n")
    assert await future == 1


async def test_a_silent_server_is_refused_at_once_until_it_speaks() -> None:
    """After a deadline without any reply, nothing is piled up."""
    pipe, _, _ = make(PipeLimits(stall_ms=-1, hang_ms=60_000))
    with pytest.raises(Unavailable, match="deadline"):
        await pipe.send(("A",), deadline_ms=5)
    with pytest.raises(Unavailable, match="does not answer"):
        pipe.send(("B",), deadline_ms=5)
    pipe.data_received(b":1\r\n")
    future = pipe.send(("B",), deadline_ms=1_000)
    pipe.data_received(b":2\r\n")
    assert await future == 2


async def test_a_hung_connection_is_given_up() -> None:
    """Silence for longer than `hang_ms` ends it, and everybody who waits is told."""
    pipe, _, _ = make(PipeLimits(hang_ms=5))
    patient = pipe.send(("A",), deadline_ms=60_000)
    with pytest.raises(Unavailable):
        await pipe.send(("B",), deadline_ms=5)
    with pytest.raises(Unavailable, match="lost"):
        await patient
    assert pipe.lost.done()


async def test_bytes_that_are_no_replies_end_the_connection() -> None:
    """So does a reply that nobody asked for: the order cannot be trusted any more."""
    for nonsense in (b"hello\r\n", b":1\r\n:2\r\n"):
        pipe, _, _ = make()
        future = pipe.send(("A",), deadline_ms=1_000)
        await turn()
        pipe.data_received(nonsense)
        assert pipe.lost.done()
        await asyncio.wait([future])
        with pytest.raises(Unavailable, match="not connected"):
            pipe.send(("B",), deadline_ms=1_000)
        future.exception()


MISSED = b"-ERR Function not found\r\n"
LOAD = b"*3\r\n$8\r\nFUNCTION\r\n$4\r\nLOAD\r\n$3\r\nlib\r\n"


def called(word: bytes) -> bytes:
    return b"*4\r\n$5\r\nFCALL\r\n$1\r\nf\r\n$1\r\n1\r\n$1\r\n%b\r\n" % word


async def test_a_missing_library_is_sent_once_and_all_who_missed_it_behind_it() -> None:
    """Nothing ran, so calling again is safe; others keep their place, and each reply finds its command."""
    pipe, wire, _ = make()
    first = pipe.send(("FCALL", "f", 1, "a"), deadline_ms=1_000, source="lib")
    other = pipe.send(("ECHO", "x"), deadline_ms=1_000)
    second = pipe.send(("FCALL", "f", 1, "b"), deadline_ms=1_000, source="lib")
    await turn()
    pipe.data_received(MISSED + b"+x\r\n" + MISSED)
    await turn()
    assert wire.writes[1] == LOAD + called(b"a") + called(b"b")
    pipe.data_received(b"+lib\r\n:1\r\n:2\r\n")
    assert await asyncio.gather(first, other, second) == [1, b"x", 2]
    assert pipe.in_flight_count == 0


async def test_a_library_that_somebody_else_brought_in_between_is_as_good() -> None:
    """The server refuses to load it twice; the call behind it runs."""
    pipe, _, _ = make()
    future = pipe.send(("FCALL", "f", 1, "a"), deadline_ms=1_000, source="lib")
    await turn()
    pipe.data_received(MISSED)
    pipe.data_received(b"-ERR Library 'lib' already exists\r\n:1\r\n")
    assert await future == 1


async def test_who_misses_the_library_while_it_is_on_its_way_waits_behind_it() -> None:
    """It is not sent again; once it has come, the next time it is missed it is."""
    pipe, wire, _ = make()
    first = pipe.send(("FCALL", "f", 1, "a"), deadline_ms=1_000, source="lib")
    await turn()
    second = pipe.send(("FCALL", "f", 1, "b"), deadline_ms=1_000, source="lib")
    pipe.data_received(MISSED)
    await turn()
    pipe.data_received(MISSED)
    await turn()
    third = pipe.send(("FCALL", "f", 1, "c"), deadline_ms=1_000, source="lib")
    await turn()
    pipe.data_received(b"+lib\r\n:1\r\n:2\r\n" + MISSED)
    await turn()
    assert wire.writes[1:] == [called(b"b") + LOAD + called(b"a"), called(b"b"), called(b"c"), LOAD + called(b"c")]
    pipe.data_received(b"+lib\r\n:3\r\n")
    assert await asyncio.gather(first, second, third) == [1, 2, 3]


async def test_a_server_that_takes_no_library_is_asked_twice_and_no_more() -> None:
    """A replica, or one that is full: whoever asked is told that the function is not there."""
    pipe, wire, _ = make()
    future = pipe.send(("FCALL", "f", 1, "a"), deadline_ms=1_000, source="lib")
    await turn()
    pipe.data_received(MISSED)
    await turn()
    pipe.data_received(b"-READONLY You can't write against a read only replica.\r\n" + MISSED)
    with pytest.raises(ErrorReply, match="Function not found"):
        await future
    await turn()
    assert len(wire.writes) == 2


async def test_a_deadline_goes_on_while_the_library_is_brought() -> None:
    """It began with the first sending; the call that ran late is swallowed, not taken for another."""
    pipe, _, tally = make()
    late = pipe.send(("FCALL", "f", 1, "a"), deadline_ms=5, source="lib")
    await turn()
    pipe.data_received(MISSED)
    with pytest.raises(Unavailable, match="deadline"):
        await late
    prompt = pipe.send(("ECHO", "x"), deadline_ms=1_000)
    await turn()
    pipe.data_received(b"+lib\r\n:1\r\n+x\r\n")
    assert await prompt == b"x"
    assert tally.expired == 1


async def test_who_stops_waiting_leaves_the_order_as_it_was() -> None:
    """A cancelled future is a slot without a listener."""
    pipe, _, _ = make()
    gone, here = pipe.send(("A",), deadline_ms=1_000), pipe.send(("B",), deadline_ms=1_000)
    gone.cancel()
    await turn()
    pipe.data_received(b":1\r\n:2\r\n")
    assert await here == 2


async def test_huge_replies_pass() -> None:
    """Eight megabytes in pieces of 64 kB."""
    pipe, _, _ = make()
    future = pipe.send(("GET", "k"), deadline_ms=60_000)
    await turn()
    message = b"$8388608\r\n" + b"x" * 8_388_608 + b"\r\n"
    for at in range(0, len(message), 65_536):
        pipe.data_received(message[at : at + 65_536])
    assert await future == b"x" * 8_388_608


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("size", [10, 200_000])
def test_a_few_at_a_time_leave_before_the_turn_is_over(size: int, new_loop: Callable[[], Any]) -> None:
    """In their order, also where the socket takes only a part; the last wait for the end of the turn."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(few_at_a_time(size))


async def few_at_a_time(size: int) -> None:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    far.setblocking(False)
    near.setblocking(False)
    limits, tally = PipeLimits(push_at=2), PipeTally()
    loop = asyncio.get_running_loop()
    _, pipe = await loop.connect_accepted_socket(lambda: Pipe(limits, tally), near)
    words = [str(number) * size for number in range(5)]
    waiting = [pipe.send(("ECHO", word), deadline_ms=60_000) for word in words[:2]]
    at_once = far.recv(1 << 20)  # there is room again, and the rest of the first still waits in the transport
    waiting += [pipe.send(("ECHO", word), deadline_ms=60_000) for word in words[2:]]
    assert at_once.startswith(b"*2\r\n$4\r\nECHO\r\n")
    assert (b"ECHO" in at_once[30:]) == (size == 10)
    wanted = b"".join(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (size, word.encode()) for word in words)
    seen = bytearray(at_once)
    while len(seen) < len(wanted):
        seen += await loop.sock_recv(far, 1 << 20)
    assert bytes(seen) == wanted
    assert tally.commands == len(words)
    await loop.sock_sendall(far, b"".join(b"$1\r\n%d\r\n" % number for number in range(5)))
    assert await asyncio.gather(*waiting) == [b"0", b"1", b"2", b"3", b"4"]
    pipe.close()
    await pipe.lost
    far.close()
