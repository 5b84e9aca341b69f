"""What is counted, in the simplest way: prices as fractions, windows, buckets, what is carried over, rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from billing_core.contract.snapshot import Limit, Rate, Tariff, Window, WindowKind

LARGEST = 2**53 - 1
HOUR_MS = 3_600_000
FOREVER = LARGEST


def cumulative(tariff: Tariff, units: int) -> Fraction:
    """A(units)."""
    count, low, total = math.ceil(Fraction(units, tariff.package_units)), 0, Fraction(0)
    for tier in tariff.tiers:
        inside = (count if tier.upto == 0 else min(count, tier.upto)) - low
        if inside > 0:
            total += Fraction(inside * tier.nanos_per_batch, tariff.batch) + tier.flat_nanos
        low = tier.upto
    return total


def debit(tariff: Tariff, used: int, quantity: int) -> int:
    return math.floor(cumulative(tariff, used + quantity)) - math.floor(cumulative(tariff, used))


def reserve(tariff: Tariff, used: int, quantity: int) -> int:
    return math.ceil(cumulative(tariff, used + quantity) - cumulative(tariff, used))


def window_of(window: Window, at: int) -> tuple[int, int] | None:
    """Start and end, or None outside the listed edges; not for a rolling one."""
    if window.kind is WindowKind.LIFETIME:
        return 0, 0
    if window.kind is WindowKind.STEPS:
        start = window.anchor_ms + (at - window.anchor_ms) // window.every_ms * window.every_ms
        return start, start + window.every_ms
    pairs = zip(window.edges_ms, window.edges_ms[1:], strict=False)
    return next(((start, end) for start, end in pairs if start <= at < end), None)


def starts_after(window: Window, first: int, last: int) -> int:
    """How many windows start in (first, last], one by one."""
    if window.kind is WindowKind.STEPS:
        return (last - window.anchor_ms) // window.every_ms - (first - window.anchor_ms) // window.every_ms
    return sum(first < edge <= last for edge in window.edges_ms)


def carried_over(limit: Limit, stored: Mapping[str, Any], start: int) -> int:
    """Window by window from the counter's last one, or from since_ms, to the one that starts now."""
    began, used, carried = (stored.get(f"{limit.counter}:{letter}", 0) for letter in "wuk")
    known = f"{limit.counter}:w" in stored
    if known and began == start:
        return min(carried, limit.carry_units)
    if not known or began < limit.since_ms:
        if limit.since_ms == 0:
            return 0
        began, used, carried = limit.since_ms, 0, 0
    for _ in range(min(1_000, starts_after(limit.window, began, start))):
        carried, used = min(limit.carry_units, max(0, limit.units + carried - used)), 0
    return carried if starts_after(limit.window, began, start) > 0 else 0


@dataclass(kw_only=True)
class Tally:
    """One counter while a request is looked at: `start` None where no window holds the instant."""

    name: str
    window: Window | None
    start: int | None
    reset: int
    used: int
    held: int
    carried: int = 0
    carries: bool = False
    begins: bool = False
    buckets: dict[int, int] = field(default_factory=dict)
    more_used: int = 0
    more_held: int = 0

    @property
    def planned(self) -> int:
        """Everything: what was there, and what this request adds."""
        return self.used + self.held + self.more_used + self.more_held


def open_tally(
    name: str, window: Window | None, *, stored: Mapping[str, Any], at: int, since_ms: int, limit: Limit | None
) -> Tally:
    """The counter of this name as it stands at the instant."""
    held, used, known = stored.get(f"{name}:h", 0), stored.get(f"{name}:u", 0), stored.get(f"{name}:w")
    if window is None:
        return Tally(name=name, window=None, start=None, reset=0, used=used, held=held)
    if window.kind is WindowKind.ROLLING:
        size, begins = window.every_ms // 60, known != since_ms
        pairs = () if begins else stored.get(f"{name}:b", ())
        listed = zip(pairs[::2], pairs[1::2], strict=True)
        buckets = {n: units for n, units in listed if (n + 1) * size > at - window.every_ms}
        reset = (min(buckets) + 1) * size + window.every_ms if buckets else 0
        total = sum(buckets.values())
        tally = Tally(name=name, window=window, start=since_ms, reset=reset, used=total, held=held, begins=begins)
        tally.buckets = buckets
        return tally
    span = window_of(window, at)
    if span is None:
        return Tally(name=name, window=window, start=None, reset=0, used=used, held=held)
    start = max(span[0], since_ms)
    tally = Tally(name=name, window=window, start=start, reset=span[1], used=used, held=held)
    if known != start:
        tally.begins, tally.used = True, 0
    if limit is not None and limit.carry_units:
        tally.carries, tally.carried = True, carried_over(limit, stored, start)
    return tally


def kept_fields(tally: Tally, at: int) -> dict[str, Any]:
    """What of the counter is written after the request: nothing where nothing was added."""
    if tally.more_used == 0 and tally.more_held == 0:
        return {}
    name, window, fields = tally.name, tally.window, dict[str, Any]()
    if window and window.kind is WindowKind.ROLLING:
        bucket = max([at // (window.every_ms // 60), *tally.buckets])
        if tally.more_used:
            tally.buckets[bucket] = tally.buckets.get(bucket, 0) + tally.more_used
        fields[f"{name}:b"] = tuple(part for pair in sorted(tally.buckets.items()) for part in pair)
    else:
        fields[f"{name}:u"] = tally.used + tally.more_used
    if tally.more_held:
        fields[f"{name}:h"] = tally.held + tally.more_held
    if tally.begins:
        fields[f"{name}:w"] = tally.start
        if tally.carries:
            fields[f"{name}:k"] = tally.carried
    return fields


def counts_until(tally: Tally, at: int) -> int:
    """Until when the counter matters."""
    if tally.more_used == 0 and tally.more_held == 0:
        return 0
    if tally.window and tally.window.kind is WindowKind.ROLLING:
        return at + tally.window.every_ms * 61 // 60
    if tally.carries or (tally.window and tally.window.kind is WindowKind.LIFETIME):
        return FOREVER
    return tally.reset


@dataclass(kw_only=True)
class Pace:
    """One rate while a request is looked at: its level in unit * ms, and when that was."""

    rate: Rate
    level: int
    since: int
    raised: int = 0
    is_counted: bool = False

    def admit(self, units: int) -> tuple[bool, int]:
        """Whether the units pass, and if not after how many ms (0 never)."""
        if units > self.rate.burst_units:
            return False, 0
        cost, most = units * self.rate.per_ms, self.rate.burst_units * self.rate.per_ms
        over = self.level + self.raised + cost - most
        if units and over > 0:
            return False, math.ceil(Fraction(over, self.rate.units))
        self.raised += cost
        return True, 0


def open_pace(rate: Rate, *, stored: Mapping[str, Any], at: int) -> Pace:
    level, since = stored.get(f"{rate.counter}:t", (0, at))
    return Pace(rate=rate, level=max(0, level - max(0, at - since) * rate.units), since=max(at, since))
