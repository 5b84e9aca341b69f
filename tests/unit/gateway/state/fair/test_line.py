"""The line of a link, on a connection that is driven by hand: what is sent when, and who is told what."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from billing_core.errors import Unavailable
from gateway.state.endpoint import Endpoint
from gateway.state.fair.queue import Bounds, Shed
from gateway.state.link import Link, LinkSettings
from gateway.state.pipe import Pipe, PipeLimits
from gateway.state.resp import encode
from lua.loader import LIBRARY

LATER_MS = 60_000


def _named(data: bytes) -> list[str]:
    """The second words of commands."""
    return [piece.split(b"\r\n")[0].decode() for piece in data.split(b"$4\r\nECHO\r\n$2\r\n")[1:]]


class Wire(asyncio.Transport):
    """Remembers the commands that were written, by their second word."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += _named(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True


class HandLink(Link):
    """Is given its connection."""

    def use(self, pipe: Pipe) -> None:
        self._pipe = pipe


class Scene:
    """A link whose connection stands; quiet and noisy are known, each may have one command under way."""

    def __init__(self, bounds: Bounds) -> None:
        settings = LinkSettings(endpoint=Endpoint(path="/nowhere"), bounds=bounds)
        self.link = HandLink(settings, LIBRARY)
        self.wire = Wire()
        self.told: dict[str, object] = {}
        self.connect()
        for place in ("quiet", "noisy"):
            self.ask(place, "ok")
        self.pipe.data_received(b":0\r\n" * 2)

    def connect(self) -> None:
        self.pipe = Pipe(PipeLimits(stall_ms=1), self.link.tally)
        self.pipe.connection_made(self.wire)
        self.link.use(self.pipe)

    def ask(self, place: str, name: str, *, for_ms: int = LATER_MS) -> None:
        tell: Callable[[object], None] = lambda end: self.told.__setitem__(name, end)  # noqa: E731
        self.link.post(encode(("ECHO", name)), place=place, tell=tell, deadline_ms=for_ms)


@pytest.fixture
async def scene() -> Scene:
    """Two places, one for each."""
    made = Scene(Bounds(places=2, customer_places=1))
    await asyncio.sleep(0)
    made.wire.sent.clear()
    return made


async def test_a_reply_sends_who_is_next_in_the_same_turn(scene: Scene) -> None:
    """The hog's second command waits for the first one's reply; the quiet one's leaves with the first."""
    scene.ask("noisy", "n0")
    scene.ask("noisy", "n1")
    scene.ask("quiet", "q0")
    await asyncio.sleep(0)
    assert scene.wire.sent == ["n0", "q0"]
    assert scene.link.waiting_count == 1
    scene.pipe.data_received(b":0\r\n")
    await asyncio.sleep(0)
    assert scene.wire.sent == ["n0", "q0", "n1"]
    scene.pipe.data_received(b":1\r\n:2\r\n")
    assert {name: scene.told[name] for name in ("n0", "q0", "n1")} == {"n0": 0, "q0": 1, "n1": 2}


async def test_a_late_reply_frees_the_place_and_a_deadline_does_not(scene: Scene) -> None:
    """What Redis has not done with is still at Redis, whoever has given it up."""
    ended = asyncio.get_running_loop().create_future()
    scene.link.post(encode(("ECHO", "n0")), place="noisy", tell=ended.set_result, deadline_ms=5)
    scene.ask("noisy", "n1")
    assert isinstance(await ended, Unavailable)
    assert scene.wire.sent == ["n0"]
    scene.pipe.data_received(b":0\r\n")
    await asyncio.sleep(0)
    assert scene.wire.sent == ["n0", "n1"]


async def test_of_replies_that_come_together_those_of_a_crowd_are_told_last() -> None:
    """Who has asked for one thing does not wait for answers to one who has asked for many; the rest in order."""
    scene = Scene(Bounds(places=9, customer_places=3))
    await asyncio.sleep(0)
    for name in ("n0", "n1", "n2", "n3"):
        scene.ask("noisy", name)
    scene.ask("quiet", "q0")
    scene.told.clear()
    scene.pipe.data_received(b":0\r\n:1\r\n:2\r\n:3\r\n")
    assert list(scene.told.items()) == [("q0", 3), ("n0", 0), ("n1", 1), ("n2", 2)]
    scene.ask("quiet", "q1")
    scene.pipe.data_received(b":4\r\n:5\r\n")
    assert list(scene.told.items())[4:] == [("n3", 4), ("q1", 5)]


async def test_a_reply_that_nobody_asked_for_keeps_no_other_from_being_told(scene: Scene) -> None:
    """The connection is given up; what was read before that counts."""
    scene.ask("noisy", "n0")
    scene.ask("noisy", "n1")
    scene.told.clear()
    scene.pipe.data_received(b":0\r\n:1\r\n:2\r\n")
    assert scene.told["n0"] == 0
    assert scene.wire.is_aborted


async def test_who_asks_for_one_thing_is_sent_at_once_while_others_wait() -> None:
    """Before the turn ends, in which much else is still to be read."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    link = HandLink(
        LinkSettings(endpoint=Endpoint(path="/nowhere"), bounds=Bounds(places=9, customer_places=2)), LIBRARY
    )
    loop = asyncio.get_running_loop()
    limits = PipeLimits(push_at=100)
    _, pipe = await loop.connect_accepted_socket(lambda: Pipe(limits, link.tally), near)
    link.use(pipe)
    for place, name in (("quiet", "ok"), ("noisy", "n0"), ("noisy", "n1"), ("noisy", "n2")):
        link.post(encode(("ECHO", name)), place=place, tell=lambda _: None, deadline_ms=LATER_MS)
    with pytest.raises(BlockingIOError):
        far.recv(1 << 20)
    pipe.data_received(b":0\r\n")
    link.post(encode(("ECHO", "q0")), place="quiet", tell=lambda _: None, deadline_ms=LATER_MS)
    assert _named(far.recv(1 << 20)) == ["ok", "n0", "n1", "q0"]
    pipe.close()
    await pipe.lost
    far.close()


async def test_who_waits_past_its_deadline_is_told_and_never_sent(scene: Scene) -> None:
    """Nothing was charged, and nothing will be."""
    ended = asyncio.get_running_loop().create_future()
    scene.ask("noisy", "n0")
    scene.link.post(encode(("ECHO", "n1")), place="noisy", tell=ended.set_result, deadline_ms=5)
    scene.ask("noisy", "n2")
    late = await ended
    assert isinstance(late, Unavailable)
    assert "turn" in late.detail
    scene.pipe.data_received(b":0\r\n")
    await asyncio.sleep(0)
    assert scene.wire.sent == ["n0", "n2"]
    assert scene.link.tally.shed == {Shed.LATE: 1}


async def test_an_error_reply_frees_the_place(scene: Scene) -> None:
    """An answer like any other."""
    scene.ask("noisy", "n0")
    scene.ask("noisy", "n1")
    scene.pipe.data_received(b"-NOT so\r\n")
    await asyncio.sleep(0)
    assert scene.wire.sent == ["n0", "n1"]


async def test_a_command_that_is_sent_again_keeps_its_place(scene: Scene) -> None:
    """The server misses the library: the same command goes out once more, and takes no second place."""
    future: Any = scene.link.run("clock", ("{s0000}:epoch",), args=(), deadline_ms=LATER_MS, place="noisy")
    scene.ask("noisy", "n1")
    scene.pipe.data_received(b"-ERR Function not found\r\n")
    await asyncio.sleep(0)
    assert scene.wire.sent == []
    scene.pipe.data_received(b"+OK\r\n*2\r\n:1\r\n:2\r\n")
    await asyncio.sleep(0)
    assert await future == [1, 2]
    assert scene.wire.sent == ["n1"]


async def test_when_the_connection_is_lost_all_are_told_and_the_next_one_is_empty(scene: Scene) -> None:
    """No place is lost with it."""
    for number in range(4):
        scene.ask("noisy", f"n{number}")
    scene.pipe.connection_lost(None)
    assert {name for name, end in scene.told.items() if isinstance(end, Unavailable)} == {"n0", "n1", "n2", "n3"}
    assert scene.link.waiting_count == 0
    with pytest.raises(Unavailable):
        scene.ask("noisy", "n4")
    scene.connect()
    scene.ask("noisy", "n5")
    scene.ask("noisy", "n6")
    await asyncio.sleep(0)
    assert scene.wire.sent[-1] == "n5"
    assert scene.link.waiting_count == 1


async def test_nobody_waits_for_a_server_that_is_silent(scene: Scene) -> None:
    """Where nothing more is sent, nothing more is kept; who asks is told at once."""
    ended = asyncio.get_running_loop().create_future()
    scene.link.post(encode(("ECHO", "n0")), place="noisy", tell=ended.set_result, deadline_ms=1)
    await ended
    with pytest.raises(Unavailable, match="Redis does not answer"):
        await _ask_until_refused(scene)
    assert scene.wire.sent == ["n0"]


async def _ask_until_refused(scene: Scene) -> None:
    async with asyncio.timeout(30):
        while True:
            if not scene.link.waiting_count:
                scene.ask("noisy", "n1", for_ms=1)
            await asyncio.sleep(0)


async def test_whoever_stopped_waiting_for_the_answer_still_gives_the_place_back(scene: Scene) -> None:
    """A task that is cancelled: what was asked is decided all the same, as where a connection is gone."""
    first: Any = scene.link.run_packed(encode(("ECHO", "n0")), place="noisy", deadline_ms=LATER_MS)
    second: Any = scene.link.run_packed(encode(("ECHO", "n1")), place="noisy", deadline_ms=LATER_MS)
    scene.ask("noisy", "n2")
    first.cancel()
    second.cancel()
    await asyncio.sleep(0)
    scene.pipe.data_received(b":0\r\n")
    await asyncio.sleep(0)
    scene.pipe.data_received(b":1\r\n")
    await asyncio.sleep(0)
    scene.pipe.data_received(b":2\r\n")
    assert scene.wire.sent == ["n0", "n1", "n2"]
    assert scene.told["n2"] == 2


async def test_what_is_in_bulk_or_its_own_does_not_take_turns(scene: Scene) -> None:
    """Who names no customer is not held up by one."""
    scene.ask("noisy", "n0")
    scene.ask("quiet", "q0")
    scene.ask("quiet", "q1")
    own = scene.link.send(("ECHO", "us"), deadline_ms=LATER_MS)
    await asyncio.sleep(0)
    assert scene.wire.sent == ["n0", "q0", "us"]
    scene.pipe.data_received(b":0\r\n:1\r\n:2\r\n")
    assert await own == 2


async def test_a_full_queue_refuses_at_once_and_counts_it(scene: Scene) -> None:
    """By reason, for whoever watches."""
    link = HandLink(
        LinkSettings(
            endpoint=Endpoint(path="/nowhere"),
            bounds=Bounds(places=1, customer_places=1, waiting=2, customer_waiting=1),
        ),
        LIBRARY,
    )
    link.use(scene.pipe)
    for place in ("a", "b"):
        link.post(encode(("ECHO", "xx")), place=place, tell=lambda _: None, deadline_ms=LATER_MS)
        scene.pipe.data_received(b":0\r\n")
    asked = [("a", "sent"), ("a", "waits"), ("a", "refused"), ("b", "waits"), ("c", "refused")]
    seen: list[tuple[str, str]] = []
    for place, _ in asked:
        before = link.waiting_count
        try:
            link.post(encode(("ECHO", "xx")), place=place, tell=lambda _: None, deadline_ms=LATER_MS)
            seen.append((place, "waits" if link.waiting_count > before else "sent"))
        except Unavailable:
            seen.append((place, "refused"))
    assert seen == asked
    assert link.tally.shed == {Shed.CUSTOMER_FULL: 1, Shed.FULL: 1}


async def test_the_earliest_deadline_counts_whoever_came_first(scene: Scene) -> None:
    """One timer serves all: a later command may have a sooner deadline, and none is forgotten after that."""
    loop = asyncio.get_running_loop()
    ends: dict[str, asyncio.Future[Any]] = {name: loop.create_future() for name in ("long", "short", "next")}
    order: list[str] = []
    scene.ask("noisy", "n0")
    for (name, end), for_ms in zip(ends.items(), (LATER_MS, 5, 20), strict=True):

        def tell(told: object, name: str = name, end: asyncio.Future[Any] = end) -> None:
            order.append(name)
            end.set_result(told)

        scene.link.post(encode(("ECHO", name)), place="noisy", tell=tell, deadline_ms=for_ms)
    async with asyncio.timeout(30):
        late = await asyncio.gather(ends["short"], ends["next"])
    assert [type(told) for told in late] == [Unavailable, Unavailable]
    assert order == ["short", "next"]
    assert (scene.link.waiting_count, scene.link.tally.waiting) == (1, 1)


async def test_commands_that_had_their_turn_are_not_kept_for_their_deadlines(scene: Scene) -> None:
    """However far away these are; those who still wait keep theirs."""
    sent = [weakref.ref(tell) for tell in [await _turns_of(scene) for _ in range(5_000)]]
    gc.collect()
    assert sum(1 for one in sent if one() is not None) <= 1_100
    ended = asyncio.get_running_loop().create_future()
    scene.ask("noisy", "n0")
    scene.link.post(encode(("ECHO", "xx")), place="noisy", tell=ended.set_result, deadline_ms=5)
    async with asyncio.timeout(30):
        assert isinstance(await ended, Unavailable)


class _Tell:
    def __call__(self, told: object) -> None:
        """Whatever it is."""


async def _turns_of(scene: Scene) -> _Tell:
    """One command that waited and was answered."""
    tell = _Tell()
    scene.ask("noisy", "n0")
    scene.link.post(encode(("ECHO", "xx")), place="noisy", tell=tell, deadline_ms=LATER_MS)
    scene.pipe.data_received(b":0\r\n:0\r\n")
    return tell
