"""Since when a request waits: as a rule since now, but not where this process has slept.

A process that is stopped and continued (a debugger, a frozen container, a machine that swaps) believes that no time
has passed. In its sockets lie requests whose callers have long given up and asked elsewhere; what was refused there
could be charged here. So a request's deadline begins when its last bytes came, and one that is over when we look is
not decided.

The kernel knows how long ago that was (TCP_INFO), also for a connection that was not accepted yet. To ask it for
every request costs two microseconds of a hundred, so a beat on the loop says whether it is needed: while the last
beat is young, nothing can have waited for long. Once a beat comes too late every request is looked at, for as long
as one may stand behind others. This does not depend on whether the loop runs the late beat before the sockets or
after them, because it is the age of the beat that counts.

Of requests that are pipelined on one connection the last one's bytes count for all.

A turn of the loop may be long without any sleep, because so many ask at once. What is read in it was there when it
began, so that is since when it waits, and not since the process came round to it.

Worked example: stopped at 10.00 s with a request in the socket, continued at 11.60. The last beat was at 9.98, so
nothing is trusted at 11.60: the kernel says 1,600 ms, the request waits since 10.00, its deadline of 15 ms is over.
One that comes at 11.70 is looked at too, and waits since 11.70.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from gateway.edge.wire import MAX_DEADLINE_MS

Connection = asyncio.BaseTransport | None
"""What carries a request; None once it is gone."""

_BEAT_S: Final = 0.05
_LATE_S: Final = 0.25
_DOUBT_S: Final = 0.001
"""A loop tells the beginning of its turn to the millisecond."""

_WATCH_S: Final = MAX_DEADLINE_MS / 1_000
_LAST_DATA_RECV: Final = struct.Struct("52xI")  # tcpi_last_data_recv of Linux' struct tcp_info, in milliseconds
_TCP: Final = (socket.AF_INET, socket.AF_INET6)


def waited_s(connection: Connection) -> float:
    """How long ago the connection's last bytes came, in seconds.

    Endless where nobody is there any more to be answered; 0 where it is no TCP.
    """
    if connection is None or connection.is_closing():
        return math.inf
    carrier = connection.get_extra_info("socket")
    if carrier is None or carrier.family not in _TCP:
        return 0.0
    info = carrier.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECV.size)
    (age_ms,) = _LAST_DATA_RECV.unpack(info)
    return age_ms / 1_000


class Slumber:
    """Knows whether this process has slept; `keep` runs as long as the process, and nothing is trusted before."""

    def __init__(
        self,
        *,
        now_s: Callable[[], float] = time.perf_counter,
        waited_s: Callable[[Connection], float] = waited_s,
        turn_s: Callable[[], float] | None = None,
    ) -> None:
        """`turn_s` tells when this turn of the loop began, on the same clock as `now_s`."""
        self._now_s = now_s
        self._turn_s = turn_s or now_s
        self._waited_s = waited_s
        self._due_s = math.inf
        self._watched_until_s = -math.inf
        self._trusted_until_s = -math.inf
        self.sleeps = 0
        self.overslept = 0

    def since_s(self, connection: Connection) -> float:
        """Since when the request that was just read waits, on this process' monotonic clock."""
        now_s = self._now_s()
        if now_s <= self._trusted_until_s:
            turn_s = self._turn_s() + _DOUBT_S
            return turn_s if now_s - _LATE_S < turn_s < now_s else now_s
        waited_s = self._waited_s(connection)
        if waited_s <= _LATE_S:
            return now_s
        self.overslept += 1
        return now_s - waited_s

    def beat(self) -> None:
        """Say that the loop runs."""
        now_s = self._now_s()
        if now_s > self._due_s:
            self.sleeps += 1
            self._watched_until_s = now_s + _WATCH_S
        self._due_s = now_s + _LATE_S
        self._trusted_until_s = self._due_s if now_s > self._watched_until_s else -math.inf

    async def keep(self) -> None:
        """Beat until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(_BEAT_S)
