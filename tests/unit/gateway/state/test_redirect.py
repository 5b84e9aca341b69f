"""A command that reached the wrong node of a cluster goes on to the right one within its deadline."""

from __future__ import annotations

import asyncio

import pytest

from billing_core.errors import Unavailable
from gateway.state.pipe import Pipe, PipeLimits, PipeTally, Slot
from gateway.state.resp import ErrorReply
from tests.unit.gateway.state.test_pipe import Wire, turn

MOVED = b"-MOVED 1 there:1\r\n"
ASK = b"-ASK 1 there:1\r\n"


class Pair:
    """Two pipes; what the first is told is elsewhere goes to the second, and back again."""

    def __init__(self) -> None:
        self.pipes: list[Pipe] = []
        self.wires: list[Wire] = []
        for _ in range(2):
            pipe, wire = Pipe(PipeLimits(stall_ms=1), PipeTally(), ring=self), Wire()
            wire.pipe = pipe
            pipe.connection_made(wire)
            self.pipes.append(pipe)
            self.wires.append(wire)
        self.turns = 0

    def elsewhere(self, slot: Slot, reply: ErrorReply) -> bool:
        self.turns += 1
        return self.pipes[self.turns % 2].adopt(slot, is_asking=reply.code == "ASK")

    def node_changed(self) -> None:
        pass


async def test_the_right_node_answers_as_if_it_had_been_asked_first() -> None:
    """Others in the same turn are not touched."""
    pair = Pair()
    wrong, right = pair.pipes
    moved, other = wrong.send(("GET", "a"), deadline_ms=1_000), wrong.send(("GET", "b"), deadline_ms=1_000)
    await turn()
    wrong.data_received(MOVED + b"+other\r\n")
    await turn()
    right.data_received(b"+here\r\n")
    assert await asyncio.gather(moved, other) == [b"here", b"other"]
    assert (wrong.in_flight_count, right.in_flight_count) == (0, 0)


async def test_asking_goes_in_the_same_write() -> None:
    """Else another command might come in between and use it up."""
    pair = Pair()
    wrong, right = pair.pipes
    asked = wrong.send(("GET", "a"), deadline_ms=1_000)
    await turn()
    wrong.data_received(ASK)
    await turn()
    assert pair.wires[1].writes == [b"*1\r\n$6\r\nASKING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n"]
    right.data_received(b"+OK\r\n+here\r\n")
    assert await asked == b"here"


async def test_nodes_that_point_at_each_other_are_not_asked_for_ever() -> None:
    """Three hops, then the reply is told as it is."""
    pair = Pair()
    lost = pair.pipes[0].send(("GET", "a"), deadline_ms=60_000)
    for hop in range(4):
        await turn()
        pair.pipes[hop % 2].data_received(MOVED)
    with pytest.raises(ErrorReply, match="MOVED"):
        await lost
    assert pair.turns == 4


async def test_the_deadline_is_that_of_the_first_sending() -> None:
    """And it is the second node that was silent, not the first."""
    pair = Pair()
    wrong, right = pair.pipes
    late = wrong.send(("GET", "a"), deadline_ms=20)
    await turn()
    wrong.data_received(MOVED)
    with pytest.raises(Unavailable, match="deadline"):
        await late
    async with asyncio.timeout(30):
        while not right._fault():  # noqa: ASYNC110 - it is the loop's clock that goes on
            await asyncio.sleep(0.001)
    assert (wrong._fault(), right._fault()) == ("", "Redis does not answer")


async def test_a_node_that_is_lost_fails_what_it_had_adopted() -> None:
    """At once, and not at the deadline."""
    pair = Pair()
    wrong, right = pair.pipes
    lost = wrong.send(("GET", "a"), deadline_ms=60_000)
    await turn()
    wrong.data_received(MOVED)
    right.connection_lost(None)
    with pytest.raises(Unavailable, match="lost"):
        await lost


async def test_the_right_node_may_miss_the_library_too() -> None:
    """It is brought there as well, in the order of that node, and within the same deadline."""
    pair = Pair()
    wrong, right = pair.pipes
    future = wrong.send(("FCALL", "f", 1, "a"), deadline_ms=60_000, source="lib")
    await turn()
    wrong.data_received(b"-ERR Function not found\r\n")
    await turn()
    wrong.data_received(b"+lib\r\n" + MOVED)
    await turn()
    right.data_received(b"-ERR Function not found\r\n")
    await turn()
    right.data_received(b"+lib\r\n:1\r\n")
    assert await future == 1
    assert [len(wire.writes) for wire in pair.wires] == [2, 2]
    assert (wrong.in_flight_count, right.in_flight_count) == (0, 0)
