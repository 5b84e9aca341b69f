"""How long answers took: every one is kept, so that a percentile is a measured value and no estimate."""

from __future__ import annotations

import msgspec


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Count, median, 99th percentile and the longest. Units: milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    longest_ms: float


def spread_of(latencies_ns: list[int]) -> Spread:
    """The spread of latencies in nanoseconds, by nearest rank: the p99 of 100 values is the 99th smallest."""
    ranked = sorted(latencies_ns)
    if not ranked:
        return Spread(count=0, p50_ms=0.0, p99_ms=0.0, longest_ms=0.0)
    return Spread(
        count=len(ranked),
        p50_ms=_rank(ranked, 50) / 1e6,
        p99_ms=_rank(ranked, 99) / 1e6,
        longest_ms=ranked[-1] / 1e6,
    )


def _rank(ranked: list[int], percent: int) -> int:
    return ranked[max(0, -(-len(ranked) * percent // 100) - 1)]
