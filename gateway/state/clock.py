"""Redis' clock, as this process sees it.

Whether a command is too late to be run is decided where it runs, so the moment must be told on Redis' own clock.
That clock is asked once a second. A reply lies somewhere between the sending and the arrival, so each sample is an
interval as wide as its round trip; the narrowest of the last few is believed. When a newer one contradicts it, the
server's clock was set, or it is another server: what was known is forgotten and begins anew with the newer one.

Worked example: sent at 10.000 s of ours, arrived at 10.002 s, and Redis said 5,000,000 ms: ours 10.001 s is
Redis' 5,000,000 ms, give or take one. Ours 10.015 s is then told as 5,000,015: the last millisecond that counts
as in time, for the benefit of the doubt goes to the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from billing_core.errors import Unavailable
from gateway.state.resp import ErrorReply, Reply, Word, flat

_PERIOD_S: Final = 1.0
_ASK_MS: Final = 500
_KEPT_COUNT: Final = 16
_DRIFT_MS: Final = 1.0


class Asked(Protocol):
    """What can be asked for the time: a link."""

    def send(self, words: tuple[Word, ...], *, deadline_ms: int) -> asyncio.Future[Reply]: ...

    async def up(self) -> None: ...


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look at Redis' clock. Units: milliseconds; `ahead_ms` is Redis' clock less ours."""

    ahead_ms: float
    doubt_ms: float


class ServerClock:
    """What this process knows of Redis' clock; `keep` runs until it is cancelled."""

    def __init__(self, link: Asked, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._link = link
        self._now_s = now_s
        self._samples: deque[Sample] = deque(maxlen=_KEPT_COUNT)
        self._best: Sample | None = None

    def at_ms(self, moment_s: float) -> int:
        """A moment of our monotonic clock on Redis' clock, the last millisecond that it may be; 0 while unknown."""
        if self._best is None:
            return 0
        return int(moment_s * 1_000 + self._best.ahead_ms + self._best.doubt_ms) + 1

    def learn(self, sample: Sample) -> None:
        """Take one look into account."""
        best = self._best
        if best is not None and abs(best.ahead_ms - sample.ahead_ms) > best.doubt_ms + sample.doubt_ms + _DRIFT_MS:
            self._samples.clear()
        self._samples.append(sample)
        self._best = min(self._samples, key=lambda one: one.doubt_ms)

    async def keep(self) -> None:
        """Look at Redis' clock once a second; while it cannot be asked, what is known stays."""
        while True:
            await self._link.up()
            with contextlib.suppress(Unavailable, ErrorReply):  # the link has counted it; the next look comes soon
                self.learn(await self._look())
            await asyncio.sleep(_PERIOD_S)

    async def _look(self) -> Sample:
        """One sample. Raises: Unavailable, ErrorReply."""
        before_s = self._now_s()
        seconds, micros = flat(await self._link.send(("TIME",), deadline_ms=_ASK_MS))
        after_s = self._now_s()
        redis_ms = int(seconds) * 1_000 + int(micros) / 1_000
        return Sample(ahead_ms=redis_ms - (before_s + after_s) * 500, doubt_ms=(after_s - before_s) * 500)
