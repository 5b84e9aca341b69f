"""One connection of the lane: requests in, answers out in their order.

    reading    bytes become requests; up to `MOST_OPEN` of them are under way at once, then nothing more is read
    leaving    a request that is not the lane's: once all before it are answered, aiohttp gets the connection
    ending     the last request was taken (`Connection: close`, or bytes that cannot be read): its answer closes
    lingering  the last answer is out; what still comes is dropped, so that the client can read that answer

Who does not read is not read from either: while the answers pile up in the socket, no request is taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from billing_core.errors import InvalidInput, TooLarge
from gateway.edge.lane.head import Head, Malformed
from gateway.edge.lane.reader import Reader
from gateway.edge.lane.turn import Turn
from gateway.edge.message import Answer, Outcome
from gateway.edge.reply import failed

if TYPE_CHECKING:
    from gateway.edge.lane.lane import Lane

MOST_OPEN: Final = 64
_MOST_UNREAD_BYTES: Final = 65_536
_REQUEST_TIMEOUT: Final = 408


class Connection(asyncio.Protocol):
    """Made by a lane for each connection that comes."""

    __slots__ = (
        "_is_choked", "_is_deaf", "_is_ending", "_is_lingering", "_is_paused", "_lane", "_reader", "_since_s",
        "_transport", "_turns", "tick",
    )  # fmt: skip

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._reader = Reader(lane.memory, lane.bounds)
        self._turns: deque[Turn[Outcome]] = deque()
        self._transport: asyncio.Transport | None = None
        self._since_s = 0.0
        self._is_choked = self._is_deaf = self._is_paused = self._is_ending = self._is_lingering = False
        self.tick = lane.tick
        """When it was last heard of, or answered; the lane counts the ticks."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_MOST_UNREAD_BYTES)
        self._lane.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop says it
        """Called by the loop. What was asked is decided all the same; nobody is told."""
        self._transport = None
        self._lane.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        lane, transport = self._lane, self._transport
        if self._is_ending or transport is None:
            return
        self._since_s = lane.slumber.since_s(transport)
        if not self._turns:
            whole = self._reader.take_whole(data)
            if whole is not None:
                self.tick = lane.tick
                self._begin(*whole)
                return
        if self._reader.is_clean:
            self.tick = lane.tick  # from here on a slow sender's time runs
        self._reader.feed(data)
        self._read()

    def eof_received(self) -> bool:
        """Called by the loop: nothing more comes. Whoever has asked is still answered."""
        self._is_ending = self._is_deaf = True
        if self._turns:
            self._turns[-1].is_last = True
        return bool(self._turns)

    def pause_writing(self) -> None:
        """Called by the loop: the client does not read its answers."""
        self._is_choked = True
        self._hold_up()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._is_choked = False
        self._go_on()

    def end(self, before_tick: int) -> None:
        """Close if nothing is being asked, and nothing was since that tick."""
        is_idle = self._reader.is_clean and not self._turns
        if self._transport is not None and (is_idle or self._is_lingering) and self.tick <= before_tick:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def look(self, tick: int) -> None:
        """Called now and then: close what has been silent, or slow, for too long."""
        transport, age = self._transport, tick - self.tick
        if transport is None:
            return
        if self._is_lingering or self._is_choked:
            if age > self._lane.patience.slow_ticks:
                transport.abort()
        elif self._turns:
            self.tick = tick
        elif self._reader.is_clean:
            if age > self._lane.patience.idle_ticks:
                transport.close()
        elif age > self._lane.patience.slow_ticks and not self._is_ending:
            self._refuse(failed(InvalidInput("did not come in time", field="request"), status=_REQUEST_TIMEOUT))

    def _read(self) -> None:
        """Begin what is whole."""
        reader = self._reader
        while not self._is_ending and not self._is_paused:
            try:
                found = reader.take()
            except Malformed as fault:
                self._refuse(failed(InvalidInput(fault.detail, field="request"), status=fault.status))
                return
            except TooLarge as failure:
                self._refuse(failed(failure))
                return
            if found is None:
                return
            head, body = found
            if head.route is None:
                self._leave()
                return
            if not reader.is_clean:
                self.tick = self._lane.tick
            self._begin(head, body)
            if len(self._turns) >= MOST_OPEN:
                self._hold_up()

    def _begin(self, head: Head, body: bytes) -> None:
        is_last = head.is_last or self._lane.is_stopping
        if is_last:
            self._is_ending = True
        turn: Turn[Outcome] = Turn(tell=self._tell, is_last=is_last)
        self._turns.append(turn)
        self._lane.begin(head, body, since_s=self._since_s, turn=turn)

    def _refuse(self, answer: Answer) -> None:
        """Answer what cannot be understood, behind all that was, and read no more."""
        self._is_ending = True
        turn: Turn[Outcome] = Turn(tell=self._tell, is_last=True)
        self._turns.append(turn)
        turn.take(answer)

    def _tell(self) -> None:
        """An answer is there: write it, and those behind it, if no earlier one is still missing."""
        turns, transport = self._turns, self._transport
        while turns and turns[0].is_done:
            turn = turns.popleft()
            if transport is None or transport.is_closing():
                continue
            if turn.answer is None:
                transport.abort()
                return
            transport.write(self._lane.written(turn.answer, is_last=turn.is_last))
            if turn.is_last:
                self._linger(transport)
                return
        if self._is_paused:
            self._go_on()

    def _linger(self, transport: asyncio.Transport) -> None:
        self._is_ending = self._is_lingering = True
        self.tick = self._lane.tick
        if self._is_deaf:
            transport.close()
            return
        if self._is_paused:
            self._is_paused = False
            transport.resume_reading()
        transport.write_eof()

    def _hold_up(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Read again, where nothing stands against it any more."""
        transport = self._transport
        if not self._is_paused or self._is_choked or transport is None or len(self._turns) >= MOST_OPEN:
            return
        self._is_paused = False
        transport.resume_reading()
        self._read()

    def _leave(self) -> None:
        """Let aiohttp have the connection, and what was read of it; not before all that was asked is answered."""
        transport = self._transport
        if transport is None:
            return
        if self._turns:
            self._hold_up()
            return
        self._lane.connections.discard(self)
        self._transport = None
        self._lane.hand_over(transport, self._reader.rest())
