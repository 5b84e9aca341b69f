"""One connection to Redis that many requests share.

All commands that are sent within one turn of the event loop leave in one write, when the turn ends; nobody waits
for a timer. Where many come in one turn they may leave a few at a time (`push_at`): then the server decides on the
first while the last are still being read. Replies come in the order of the commands, so a queue of slots is all
that matching needs. Who waits in a slot is told once: the reply, or why there is none. A slot outlives that: when
a deadline passes its waiter is told so, but the slot stays in the queue and swallows the reply that comes later, so
that a late reply is never taken for somebody else's.

A server that hangs is noticed by its silence. When a command has passed its deadline and no reply at all came for
`stall_ms` after that, further commands are refused at once instead of being piled up; after `hang_ms` the
connection is given up.

Worked example: three requests of one turn send A, B and C. One write of A B C leaves. The replies a and b arrive
together, c is late: after the deadline C is told so; c arrives then and falls into C's slot, where nobody waits.

Where the server does not know a function, nothing ran: the library is sent, once for all who miss it, and each of
their commands again behind it. The replies come in that order too.

In a cluster a reply may be `MOVED` or `ASK`: the command belongs elsewhere. Whoever keeps the pipes is told
(`Ring`) and may have another pipe adopt the command, with what is left of its deadline.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, cast

import hiredis
import msgspec

from billing_core.errors import Unavailable
from gateway.state.resp import ErrorReply, Reply, ReplyParser, Word, encode
from lua.library import is_absent

_LAST_LOOK_S: Final = 0.001
_ELSEWHERE: Final = frozenset({"MOVED", "ASK"})
_MOST_HOPS: Final = 3

Told = Reply | ErrorReply | Unavailable
"""How a command has ended."""

Tell = Callable[[Told], None]
"""Whoever waits: called where replies are read, between two others, so it is short and raises nothing."""


class PipeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait, and how long silence is borne.

    `push_at`: so many commands leave before the turn is over, and the server works while more is read; 0 never.
    """

    max_in_flight: int = 8_192
    push_at: int = 0
    max_unsent_bytes: int = 8 * 2**20
    stall_ms: int = 50
    hang_ms: int = 1_000


class PipeTally:
    """What happened on all connections of a link, for telemetry."""

    __slots__ = ("commands", "connects", "expired", "refused", "shed", "waiting", "writes")

    def __init__(self) -> None:
        self.commands = self.writes = self.expired = self.refused = self.connects = 0
        self.waiting = 0
        """Commands that wait for a place; see `fair`."""
        self.shed: Counter[str] = Counter()
        """What was never sent, by reason."""


class _Watch:
    """The slots of one turn that share a deadline, and their one timer."""

    __slots__ = ("hops", "slots", "timer", "unanswered")

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.hops = 0
        self.unanswered = 0
        self.timer: asyncio.TimerHandle | None = None


class Seat(Protocol):
    """What a command takes up until the server is done with it; its customer has `taken` so many."""

    taken: int

    def leave(self) -> None:
        """It is free again. Raises nothing."""
        ...


class Slot(msgspec.Struct, kw_only=True, eq=False):
    """One command on its way. `tell` is None once somebody was told, or where nobody waits; `source` is the library
    that has its function, `is_repeated`: it was brought here."""

    tell: Tell | None
    watch: _Watch
    packed: bytes
    source: str | None
    seat: Seat | None = None
    is_repeated: bool = False


class Ring(Protocol):
    """Who keeps the pipes of a cluster."""

    def elsewhere(self, slot: Slot, reply: ErrorReply) -> bool:
        """Send the command to the node that the reply names; whether it could be."""
        ...

    def node_changed(self) -> None:
        """Told when a connection stands, and when it is lost."""
        ...


class Pipe(asyncio.Protocol):
    """The shared connection; made by a Link, never used again once `lost` is done."""

    def __init__(self, limits: PipeLimits, tally: PipeTally, *, ring: Ring | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._most = limits.max_in_flight
        self._tally = tally
        self._ring = ring
        self._parser = ReplyParser()
        self._slots: deque[Slot] = deque()
        self._unsent: list[bytes] = []
        self._is_flush_due = False
        self._push_at = limits.push_at or limits.max_in_flight + 1
        self._fd = -1
        self._watches: dict[int, _Watch] = {}
        self._transport: asyncio.Transport | None = None
        self._loading: Slot | None = None
        self._choked = False
        self._silent_since: float | None = None
        self.lost: asyncio.Future[str] = self._loop.create_future()

    @property
    def in_flight_count(self) -> int:
        """Commands whose reply has not come, those past their deadline included."""
        return len(self._slots)

    def send(
        self, words: tuple[Word, ...], *, deadline_ms: int, source: str | None = None
    ) -> asyncio.Future[Reply]:
        """Send one command with this turn's others; the future fails with ErrorReply or Unavailable.

        Raises: Unavailable at once where nothing more may wait here.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.post(encode(words), tell=settler(future), deadline_ms=deadline_ms, source=source)
        return future

    def post(
        self, packed: bytes, *, tell: Tell, deadline_ms: int, source: str | None = None, seat: Seat | None = None
    ) -> None:
        """The same with a command that is encoded already, for whoever needs no future.

        Raises: as `send`, and then nobody is told.
        """
        if self._choked or self._silent_since is not None or self.lost.done() or len(self._slots) >= self._most:
            self.check()
        watch = self._watches.get(deadline_ms)
        if watch is None or not watch.unanswered:  # whose timer is off: all that it watched was answered meanwhile
            watch = self._watch(deadline_ms)
        slot = Slot(tell=tell, watch=watch, packed=packed, source=source, seat=seat)
        watch.slots.append(slot)
        watch.unanswered += 1
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        self._unsent.append(packed)
        self._slots.append(slot)
        if len(self._unsent) >= self._push_at:
            self.push()

    def adopt(self, slot: Slot, *, is_asking: bool) -> bool:
        """Take over what another node sent here, with what is left of its deadline; whether it may wait here.

        `is_asking`: this node is still getting the slot, and serves it only behind an `ASKING` in the same write.
        """
        old, watch = slot.watch, _Watch()
        if self._fault() or old.timer is None or old.hops == _MOST_HOPS:
            return False
        old.unanswered -= 1
        watch.hops, watch.unanswered = old.hops + 1, 1
        watch.slots.append(slot)
        left_s = max(0.0, old.timer.when() - self._loop.time())
        watch.timer = self._loop.call_later(left_s, self._last_look, watch)
        slot.watch, slot.is_repeated = watch, False
        if is_asking:
            self._enqueue(self._unheard(("ASKING",)))
        self._enqueue(slot)
        return True

    def check(self) -> None:
        """Raises: Unavailable where nothing may be sent now."""
        fault = self._fault()
        if fault:
            self._tally.refused += 1
            raise Unavailable(fault)

    def close(self) -> None:
        """Give the connection up; whoever still waits gets Unavailable."""
        if self._transport is not None:
            self._transport.abort()

    def _fault(self) -> str:
        """Why nothing may be sent now; empty when it may."""
        if self.lost.done():
            return "Redis is not connected"
        since = self._silent_since
        if since is not None and self._loop.time() - since > self._limits.stall_ms / 1_000:
            return "Redis does not answer"
        if len(self._slots) >= self._limits.max_in_flight or self._choked:
            return "too many commands are waiting for Redis"
        return ""

    def _watch(self, deadline_ms: int) -> _Watch:
        watch = self._watches[deadline_ms] = _Watch()
        watch.timer = self._loop.call_later(deadline_ms / 1_000, self._last_look, watch)
        return watch

    def _unheard(self, words: tuple[Word, ...]) -> Slot:
        """A command whose reply nobody waits for."""
        return Slot(tell=None, watch=_Watch(), packed=encode(words), source=None)

    def _enqueue(self, slot: Slot) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        self._unsent.append(slot.packed)
        self._slots.append(slot)

    def _flush(self) -> None:
        """The end of the turn: everything leaves in one write."""
        batch, self._unsent, self._is_flush_due = self._unsent, [], False
        self._watches.clear()
        if batch and self._transport is not None and not self.lost.done():
            self._tally.commands += len(batch)
            self._tally.writes += 1
            self._transport.write(b"".join(batch))

    def push(self) -> None:
        """In the middle of the turn: what has come so far leaves, where nothing is still to leave before it.

        A transport may keep what it is given until the turn is over; so the socket is written to.
        """
        transport = self._transport
        if self._fd < 0 or transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return
        batch, self._unsent = self._unsent, []
        self._tally.commands += len(batch)
        self._tally.writes += 1
        data = b"".join(batch)
        try:
            sent = os.write(self._fd, data)
        except OSError:  # the socket is full, or broken: the transport finds out which
            sent = 0
        if sent < len(data):
            transport.write(data[sent:])

    def _last_look(self, watch: _Watch) -> None:
        """The deadline passed. What already lies in the socket is read once more before anybody is told so.

        A loop that was late itself runs its timers before it reads: the reply may have been here in time.
        """
        watch.timer = self._loop.call_later(_LAST_LOOK_S, self._expire, watch)

    def _expire(self, watch: _Watch) -> None:
        if watch.unanswered and self._silent_since is None:
            self._silent_since = self._loop.time()
            self._loop.call_later(self._limits.hang_ms / 1_000, self._give_up, self._silent_since)
        for slot in watch.slots:
            if slot.watch is watch and slot.tell is not None:
                self._tally.expired += 1
                _tell(slot, Unavailable("Redis did not answer before the deadline"))

    def _give_up(self, since: float) -> None:
        if self._silent_since == since:
            self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._limits.max_unsent_bytes)
        if self._limits.push_at and transport.get_extra_info("sslcontext") is None:
            self._fd = transport.get_extra_info("socket").fileno()

    def pause_writing(self) -> None:
        """Called by the loop: the server does not read."""
        self._choked = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._choked = False

    def data_received(self, data: bytes) -> None:
        """Called by the loop: replies, in the order of the commands."""
        self._parser.feed(data)
        try:
            replies = self._parser.take()
        except hiredis.ProtocolError:
            self.close()
            return
        if replies:
            self._silent_since = None
        crowd: list[tuple[Slot, Reply | ErrorReply]] = []
        is_crowded = self._tally.waiting > 0 and len(replies) > 1
        for reply in replies:
            if not self._slots:
                self.close()  # a reply that nobody asked for: the order cannot be trusted any more
                break
            slot = self._slots.popleft()
            if is_crowded and slot.seat is not None and slot.seat.taken > 1:
                crowd.append((slot, reply))  # who has asked for one thing is told before who has asked for many
            else:
                self._answer(slot, reply)
        for slot, reply in crowd:
            self._answer(slot, reply)

    def _answer(self, slot: Slot, reply: Reply | ErrorReply) -> None:
        if isinstance(reply, ErrorReply) and self._is_sent_again(slot, reply):
            return
        if slot is self._loading:
            self._loading = None
        if slot.seat is not None:
            slot.seat.leave()
        watch = slot.watch
        watch.unanswered -= 1
        if not watch.unanswered and watch.timer is not None:
            watch.timer.cancel()
            watch.slots.clear()
        tell, slot.tell = slot.tell, None
        if tell is not None:
            tell(reply)

    def _is_sent_again(self, slot: Slot, reply: ErrorReply) -> bool:
        """Whether the command was not run and goes out once more: behind its library, or to another node."""
        if slot.source is not None and not slot.is_repeated and is_absent(reply):
            slot.is_repeated = True
            if self._loading is None:
                self._loading = self._unheard(("FUNCTION", "LOAD", slot.source))
                self._enqueue(self._loading)
            self._enqueue(slot)
            return True
        return reply.code in _ELSEWHERE and self._ring is not None and self._ring.elsewhere(slot, reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: nobody who waits will get a reply."""
        self._fd = -1
        if not self.lost.done():
            self.lost.set_result(str(exc) if exc else "the connection was closed")
        slots, self._slots = self._slots, deque()
        for slot in slots:
            if slot.watch.timer is not None:
                slot.watch.timer.cancel()
                slot.watch.slots.clear()
            if slot.seat is not None:
                slot.seat.leave()
            _tell(slot, Unavailable("the connection to Redis was lost"))


def _tell(slot: Slot, told: Told) -> None:
    """Once."""
    tell, slot.tell = slot.tell, None
    if tell is not None:
        tell(told)


def settler(future: asyncio.Future[Reply]) -> Tell:
    """Tells a future."""
    return partial(_settle, future)


def _settle(future: asyncio.Future[Reply], told: Told) -> None:
    if future.done():
        return
    if isinstance(told, Exception):
        future.set_exception(told)
    else:
        future.set_result(told)
