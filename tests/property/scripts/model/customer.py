"""A customer as the model keeps them: counters, grants and holds as Valkey has them, prices as fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from desk import Reply

from billing_core.contract.keys import CustomerKeys
from billing_core.contract.snapshot import Entitlement, Snapshot, Tariff, Window, WindowKind

LARGEST = 2**53 - 1

Charges = list[tuple[str, int]]
Grant = tuple[str, int, int, int, int, int]
"""grant_id, effective_ms, expires_ms, priority, paid, created_ms"""


class ReplyError(Exception):
    """An error reply."""


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
    """Start and end, or None outside the listed edges."""
    if window.kind is WindowKind.LIFETIME:
        return 0, 0
    if window.kind is WindowKind.STEPS:
        start = window.anchor_ms + (at - window.anchor_ms) // window.every_ms * window.every_ms
        return start, start + window.every_ms
    pairs = zip(window.edges_ms, window.edges_ms[1:], strict=False)
    return next(((start, end) for start, end in pairs if start <= at < end), None)


@dataclass(kw_only=True)
class Tally:
    """One counter while a request is looked at: `window` None where the start is not known."""

    name: str
    window: tuple[int, int] | None
    used: int
    held: int = 0
    more_used: int = 0
    more_held: int = 0
    planned: int = 0
    begins: bool = False


@dataclass(kw_only=True)
class Line:
    """One charge of a request or a hold while it is looked at."""

    feature: str
    quantity: int
    static: str = ""
    entitlement: Entitlement | None = None
    tariff: Tariff | None = None
    tally: Tally | None = None
    price: Tally | None = None
    held: int = 0
    cost: int = 0
    lost: int = 0


@dataclass(kw_only=True)
class Customer:
    """One customer's keys and what they hold."""

    keys: CustomerKeys
    snapshot: Snapshot | None = None
    counters: dict[str, int] = field(default_factory=dict)
    order: dict[str, list[Grant]] = field(default_factory=dict)
    remaining: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    granted: dict[str, int] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    answers: dict[str, tuple[tuple[str, Reply], int]] = field(default_factory=dict)

    def tally(self, name: str, window: Window | None, at: int) -> Tally:
        """The counter of this name in the window that counts at the instant."""
        span = window_of(window, at) if window else None
        used = self.counters.get(f"{name}:u", 0)
        begins = span is not None and self.counters.get(f"{name}:w") != span[0]
        held = 0 if name.startswith("$") else self.counters.get(f"{name}:h", 0)
        return Tally(name=name, window=span, used=0 if begins else used, held=held, begins=begins)

    def write(self, tally: Tally) -> None:
        """Keep what the counter gained or lost."""
        if tally.more_used == 0 and tally.more_held == 0:
            return
        self.counters[f"{tally.name}:u"] = tally.used + tally.more_used
        if tally.more_held:
            self.counters[f"{tally.name}:h"] = tally.held + tally.more_held
        if tally.begins and tally.window:
            self.counters[f"{tally.name}:w"] = tally.window[0]

    def usable(self, currency: str, at: int) -> list[str]:
        """Grants that may be debited, in burn order."""
        listed = self.order.get(currency, [])
        return [grant[0] for grant in listed if grant[1] <= at and (grant[2] == 0 or at < grant[2])]

    def balance(self, currency: str, at: int) -> int:
        return sum(self.remaining[grant] for grant in self.usable(currency, at))

    def plan(self, currency: str, at: int, *, amount: int) -> dict[str, int]:
        """What to take of each grant for the amount, as far as it goes."""
        parts: dict[str, int] = {}
        for grant in self.usable(currency, at):
            part = min(self.remaining[grant], amount - sum(parts.values()))
            if part > 0:
                parts[grant] = part
        return parts


def tallies(lines: list[Line]) -> list[Tally]:
    found = [tally for line in lines for tally in (line.tally, line.price) if tally]
    return list({id(tally): tally for tally in found}.values())


def burn_rank(grant: Grant) -> tuple[object, ...]:
    grant_id, effective_ms, expires_ms, priority, paid, created_ms = grant
    return priority, expires_ms or math.inf, paid, effective_ms, created_ms, grant_id
