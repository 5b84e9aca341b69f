"""Where the commands of one link wait for their places, each until its turn or its deadline."""

from __future__ import annotations

import asyncio
import time
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
        command.timer = asyncio.get_running_loop().call_later(for_s, self._give_up, command)

    def _start(self, command: Waiting, share: Share) -> None:
        """Its turn has come."""
        self._tally.waiting -= 1
        if command.timer is not None:
            command.timer.cancel()
        left_ms = max(1, int((command.until_s - _turn_s()) * 1_000))
        try:
            self._send(command.packed, tell=command.tell, deadline_ms=left_ms, seat=share)
        except Unavailable as failure:
            share.leave()
            command.tell(failure)

    def _give_up(self, command: Waiting) -> None:
        """Its deadline has come first."""
        self._tally.waiting -= 1
        self._queue.withdraw(command)
        self._tally.shed[Shed.LATE] += 1
        command.tell(Unavailable(_WHY[Shed.LATE]))


def _turn_s() -> float:
    """When this turn of the loop began, where the loop can tell; to the millisecond."""
    return asyncio.get_running_loop().time()
