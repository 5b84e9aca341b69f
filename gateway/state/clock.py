"""Redis' clock, as this process sees it.

Whether a command is too late to be run is decided where it runs, so the moment must be told on Redis' own clock.
That clock is asked once a second. A reply lies somewhere between the sending and the arrival, so each sample is an
interval as wide as its round trip; the narrowest of the last few is believed. When a newer one contradicts it, the
server's clock was set, or it is another server: what was known is forgotten and begins anew with the newer one.

One server has one clock. The nodes of a cluster have each their own, and shards move between nodes, so there the
clock is known for each shard that is in use.

Worked example: sent at 10.000 s of ours, arrived at 10.002 s, and Redis said 5,000,000 ms: ours 10.001 s is
Redis' 5,000,000 ms, give or take one. Ours 10.015 s is then told as 5,000,016: the last millisecond that may still
be in time, for the benefit of the doubt goes to the command.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from billing_core.contract.keys import epoch_key
from billing_core.errors import Unavailable
from gateway.state.resp import ErrorReply, Reply, Word, flat

_PERIOD_S: Final = 1.0
_ASK_MS: Final = 500
_KEPT_COUNT: Final = 16
_DRIFT_MS: Final = 1.0


class Asked(Protocol):
    """What can be asked for the time: a link."""

    def run(
        self, name: str, keys: Sequence[Word], *, args: Sequence[Word], deadline_ms: int
    ) -> asyncio.Future[Reply]: ...

    async def up(self) -> None: ...


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look at Redis' clock. Units: milliseconds; `ahead_ms` is Redis' clock less ours."""

    ahead_ms: float
    doubt_ms: float


class _Estimate:
    """What is known of one clock."""

    __slots__ = ("best", "latest_ms", "samples")

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=_KEPT_COUNT)
        self.best: Sample | None = None
        self.latest_ms = 0.0
        """Redis' clock less ours, at most."""

    def learn(self, sample: Sample) -> None:
        best = self.best
        if best is not None and abs(best.ahead_ms - sample.ahead_ms) > best.doubt_ms + sample.doubt_ms + _DRIFT_MS:
            self.samples.clear()
        self.samples.append(sample)
        self.best = min(self.samples, key=lambda one: one.doubt_ms)
        self.latest_ms = self.best.ahead_ms + self.best.doubt_ms


class ServerClock:
    """What this process knows of Redis' clocks; `keep` runs until it is cancelled."""

    def __init__(
        self, link: Asked, *, is_cluster: bool = False, now_s: Callable[[], float] = time.perf_counter
    ) -> None:
        self._link = link
        self._now_s = now_s
        self._is_cluster = is_cluster
        self._estimates: dict[int, _Estimate] = {} if is_cluster else {0: _Estimate()}

    def at_ms(self, moment_s: float, *, shard: int) -> int:
        """A moment of our monotonic clock on the clock of the shard's server, the last millisecond that it may be.

        0 while unknown.
        """
        place = shard if self._is_cluster else 0
        known = self._estimates.get(place)
        if known is None:
            known = self._estimates[place] = _Estimate()
        return int(moment_s * 1_000 + known.latest_ms) + 1 if known.best is not None else 0

    def learn(self, sample: Sample, *, place: int = 0) -> None:
        """Take one look into account."""
        self._estimates[place].learn(sample)

    async def keep(self) -> None:
        """Look at the clocks once a second; while one cannot be asked, what is known of it stays."""
        while True:
            await self._link.up()
            await asyncio.gather(*(self._look(place) for place in list(self._estimates)))
            await asyncio.sleep(_PERIOD_S)

    async def _look(self, place: int) -> None:
        """One sample; none where Redis cannot be asked now: the link counts that, and the next look comes soon."""
        before_s = self._now_s()
        try:
            reply = await self._link.run("clock", (epoch_key(place),), args=(), deadline_ms=_ASK_MS)
        except (Unavailable, ErrorReply):
            return
        after_s = self._now_s()
        seconds, micros = flat(reply)
        redis_ms = int(seconds) * 1_000 + int(micros) / 1_000
        ahead_ms = redis_ms - (before_s + after_s) * 500
        self.learn(Sample(ahead_ms=ahead_ms, doubt_ms=(after_s - before_s) * 500), place=place)
