"""Where the commands of one link wait for their places, each until its turn or its deadline.

One timer serves all: it is set to the earliest deadline. Most commands have their turn before; they stay in the
heap of deadlines until it is their time, or until there are too many of them.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from itertools import count
from typing import Final, Protocol

from billing_core.errors import Unavailable
from gateway.state.fair.queue import Bounds, FairQueue, Share, Shed, Waiting
from gateway.state.pipe import PipeTally, Seat, Tell

_WHY: Final = {
    Shed.FULL: "too many commands are waiting for Redis",
    Shed.CUSTOMER_FULL: "too many commands of this customer are waiting",
    Shed.SLOW: "too many commands of this customer are waiting for it to be in time",
    Shed.LATE: "the deadline was over before it was this customer's turn; nothing was charged",
}


_DOUBT_S: Final = 0.001
"""Timers of a loop go off to the millisecond."""

_FEW: Final = 1_024
_STALE_TIMES: Final = 4


class Send(Protocol):
    """Sends a command that has a place.

    Raises: Unavailable, and then nobody is told, and the place is still taken.
    """

    def __call__(self, packed: bytes, *, tell: Tell, deadline_ms: int, seat: Seat) -> None: ...


class Line:
    """The fair queue of a link, and the clock of those who wait in it."""

    def __init__(self, bounds: Bounds, tally: PipeTally, *, send: Send) -> None:
        self._tally = tally
        self._send = send
        self._deadlines: list[tuple[float, int, Waiting]] = []
        self._numbers = count()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0
        self._queue = FairQueue(bounds, self._start, now_s=_turn_s, worked_s=time.thread_time)
        self.take = self._queue.take

    @property
    def seated_count(self) -> int:
        """Commands that have a place."""
        return self._queue.taken

    @property
    def waiting_count(self) -> int:
        """Commands that wait."""
        return self._queue.waiting

    def wait(self, packed: bytes, *, place: str, tell: Tell, deadline_ms: int) -> None:
        """Wait for a place, as long as the deadline is away. Raises: Unavailable, and then nobody is told."""
        now_s, for_s = _turn_s(), deadline_ms / 1_000
        command = Waiting(packed, place=place, tell=tell, since_s=now_s, until_s=now_s + for_s)
        shed = self._queue.wait(command)
        if shed is not None:
            self._tally.shed[shed] += 1
            raise Unavailable(_WHY[shed])
        self._tally.waiting += 1
        heapq.heappush(self._deadlines, (command.until_s, next(self._numbers), command))
        has_stale = len(self._deadlines) > _FEW + _STALE_TIMES * self._queue.waiting
        if has_stale or self._alarm is None or command.until_s < self._alarm_s:
            self._set_alarm(now_s, has_stale=has_stale)

    def _start(self, command: Waiting, share: Share) -> None:
        """Its turn has come."""
        self._tally.waiting -= 1
        left_ms = max(1, int((command.until_s - _turn_s()) * 1_000))
        try:
            self._send(command.packed, tell=command.tell, deadline_ms=left_ms, seat=share)
        except Unavailable as failure:
            share.leave()
            command.tell(failure)

    def _set_alarm(self, now_s: float, *, has_stale: bool = False) -> None:
        """To the earliest deadline of those who wait."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, deadlines = None, self._deadlines
        if has_stale:
            deadlines[:] = [entry for entry in deadlines if entry[2].share is not None]
            heapq.heapify(deadlines)
        while deadlines and deadlines[0][2].share is None:
            heapq.heappop(deadlines)
        if deadlines:
            self._alarm_s = deadlines[0][0]
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, self._alarm_s - now_s), self._ring)

    def _ring(self) -> None:
        """Whose deadline has come before its turn is told so."""
        now_s, deadlines = _turn_s(), self._deadlines
        while deadlines and deadlines[0][0] <= now_s + _DOUBT_S:
            _, _, command = heapq.heappop(deadlines)
            if self._queue.withdraw(command):
                self._tally.waiting -= 1
                self._tally.shed[Shed.LATE] += 1
                command.tell(Unavailable(_WHY[Shed.LATE]))
        self._set_alarm(now_s)


def _turn_s() -> float:
    """When this turn of the loop began, where the loop can tell; to the millisecond."""
    return asyncio.get_running_loop().time()
