"""What must be shown: ratios of one run, round by round, each with what is wanted of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bench.apparatus.ground import middle, spread
from bench.peers.roster import (
    AIOHTTP,
    GRPC_AIO,
    NGINX_LUA,
    OWN_PROXY,
    PIPELINED_CALLS,
    RATE_LIMITER,
    TALLYGATE,
)
from bench.peers.rounds import NOISY_TIMES, Findings, Sample

_HALF: Final = 0.5


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio of two peers' rates, ours above."""

    name: str
    ours: str
    theirs: str
    least: float


RATES: Final = (
    Wanted(name="check / nginx+lua, same script", ours=TALLYGATE, theirs=NGINX_LUA, least=1.3),
    Wanted(name="check / aiohttp+redis-py, same script", ours=TALLYGATE, theirs=AIOHTTP, least=3.0),
    Wanted(name="rate limit service / grpc.aio, same script", ours=RATE_LIMITER, theirs=GRPC_AIO, least=5.0),
    Wanted(
        name="check / pipelined redis-benchmark, same script", ours=TALLYGATE, theirs=PIPELINED_CALLS, least=0.4
    ),
    Wanted(
        name="authorize behind nginx / nginx+lua there",
        ours="nginx to tallygate",
        theirs="nginx to nginx+lua",
        least=1.0,
    ),
    Wanted(
        name="authorize behind envoy / nginx+lua there",
        ours="envoy to tallygate",
        theirs="envoy to nginx+lua",
        least=1.0,
    ),
    Wanted(name="own proxy / traefik's rate limit", ours=OWN_PROXY, theirs="traefik's rate limit", least=1.0),
    Wanted(name="own proxy / envoy's ext_authz", ours=OWN_PROXY, theirs="envoy to tallygate", least=1.0),
    Wanted(name="own proxy / aiohttp as a proxy", ours=OWN_PROXY, theirs="aiohttp as a proxy", least=3.0),
)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio, and what is wanted. `faults`: answers, in the runs that it is made of, that were no decision."""

    name: str
    ratios: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    faults: int = 0

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return middle(self.ratios)

    @property
    def spread(self) -> list[float]:
        """The smallest and the largest of the rounds."""
        return spread(self.ratios)

    @property
    def is_met(self) -> bool:
        """Whether the median is as wanted, and nothing failed."""
        high_enough = self.at_least is None or self.ratio >= self.at_least
        low_enough = self.at_most is None or self.ratio <= self.at_most
        return high_enough and low_enough and not self.faults


def claims_of(findings: Findings) -> Iterator[Claim]:
    """All that can be said of what was measured."""
    for wanted in RATES:
        ours, theirs = findings.closed.get(wanted.ours, ()), findings.closed.get(wanted.theirs, ())
        if ours and theirs:
            ratios = [a.report.per_second / b.report.per_second for a, b in zip(ours, theirs, strict=True)]
            yield Claim(name=wanted.name, ratios=ratios, at_least=wanted.least, faults=_faults(ours))
    yield from _half_load(findings)
    yield from _neighbour(findings)
    yield from _costs(findings)


def _half_load(findings: Findings) -> Iterator[Claim]:
    for paced in findings.paced:
        ours, theirs = paced.samples.get(TALLYGATE, ()), paced.samples.get(NGINX_LUA, ())
        if paced.part == _HALF and ours and theirs:
            ratios = [a.report.p99_us / b.report.p99_us for a, b in zip(ours, theirs, strict=True)]
            yield Claim(name="p99 at half load / nginx+lua", ratios=ratios, at_most=1.0, faults=_faults(ours))


def _neighbour(findings: Findings) -> Iterator[Claim]:
    """The quiet customer's p99; nginx+lua's for comparison, of which nothing is wanted."""
    for name, rounds in findings.neighbour.items():
        yield Claim(
            name=f"quiet p99 beside one at {NOISY_TIMES}x / alone, {name}",
            ratios=[one.beside.p99_us / one.alone.p99_us for one in rounds],
            at_most=2.0 if name == TALLYGATE else None,
            faults=sum(one.beside.not_allowed + one.beside.lost for one in rounds),
        )


def _costs(findings: Findings) -> Iterator[Claim]:
    """Processor time instead of speed: what is left of a ratio while somebody else keeps the machine busy."""
    for wanted in RATES:
        ours, theirs = findings.closed.get(wanted.ours, ()), findings.closed.get(wanted.theirs, ())
        if ours and theirs and wanted.theirs != PIPELINED_CALLS:
            ratios = [a.cpu_us / b.cpu_us for a, b in zip(ours, theirs, strict=True)]
            yield Claim(name=f"processor time, {wanted.name.split(',')[0]}", ratios=ratios)


def _faults(samples: Sequence[Sample]) -> int:
    return sum(one.report.not_allowed + one.report.lost for one in samples)
