"""Spreading: an amount that was billed ahead becomes revenue over the days or months of its service.

Daily is the house's way: each day the same whole amount, what does not divide evenly on the last day. A day is a
date in the contract's zone; the day on which service starts counts whole and the one on which it ends does not. The
other ways exist for contracts and books that ask for them:

    daily          by days; each month rounded, remainder in the last
    month30        every month has thirty days, and so has a part of one in proportion
    even_months    whole months alike, parts of a month by time; the last whole month takes the remainder
    full_months    a month that service starts in counts whole, one that it does not fill to its end not at all
    exact          by the microsecond

Worked example: 100.00 from 10 January to 16 March 2019 (exclusive), 65 days: January 33.85, February 43.08, March
what is left, 23.07.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from zoneinfo import ZoneInfo

import msgspec

from billing_core.values.money import round_half_away, split_largest_remainder
from billing_core.values.period import Interval, Period, calendar_anchor, edges_from

_MICROSECOND = timedelta(microseconds=1)


class Spreading(StrEnum):
    """How an amount is spread."""

    DAILY = "daily"
    MONTH30 = "month30"
    EVEN_MONTHS = "even_months"
    FULL_MONTHS = "full_months"
    EXACT = "exact"


def day_count(period: Period, *, zone: ZoneInfo) -> int:
    """How many days of service a period has: at least one."""
    return max(1, (_date(period.end_at, zone) - _date(period.start_at, zone)).days)


def days_passed(period: Period, at: datetime, *, zone: ZoneInfo) -> int:
    """How many of the period's days are over at the instant."""
    count = day_count(period, zone=zone)
    if at >= period.end_at:
        return count
    return min(count, max(0, (_date(at, zone) - _date(period.start_at, zone)).days))


def earned_daily(total: int, *, passed: int, days: int) -> int:
    """What is earned when so many of the days are over: equal whole parts, the remainder with the last day."""
    return total if passed >= days else passed * (total // days)


def by_month(total: int, period: Period, *, spreading: Spreading, zone: ZoneInfo) -> dict[str, int]:
    """The amount told by calendar month, `2019-01` and so on; the parts add up to the total."""
    served = Served(period=period, months=_months(period, zone))
    weights = _WEIGHTS[spreading](served, zone)
    if spreading is Spreading.EVEN_MONTHS:
        return _even(total, served, weights=weights)
    mass = sum(weights.values(), Fraction(0))
    shares = {month: round_half_away(total * weight / mass) for month, weight in weights.items()}
    last = [month for month, weight in weights.items() if weight][-1]
    shares[last] += total - sum(shares.values())
    return shares


def _date(instant: datetime, zone: ZoneInfo) -> date:
    return instant.astimezone(zone).date()


Weights = dict[str, Fraction]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A period of service and the whole calendar months that it touches."""

    period: Period
    months: dict[str, Period]


def _months(period: Period, zone: ZoneInfo) -> dict[str, Period]:
    """The calendar months that the period touches, whole."""
    found: dict[str, Period] = {}
    anchor = calendar_anchor(Interval.MONTH, period.start_at, zone=zone)
    edges = edges_from(anchor, Interval.MONTH, instant=period.start_at, zone=zone)
    start = next(edges)
    for end in edges:
        found[start.astimezone(zone).strftime("%Y-%m")] = Period(start_at=start, end_at=end)
        if end >= period.end_at:
            return found
        start = end
    return found


def _clip(period: Period, month: Period) -> tuple[datetime, datetime]:
    return max(period.start_at, month.start_at), min(period.end_at, month.end_at)


def _daily(served: Served, zone: ZoneInfo) -> Weights:
    weights: Weights = {}
    for name, month in served.months.items():
        start, end = _clip(served.period, month)
        weights[name] = Fraction((_date(end, zone) - _date(start, zone)).days)
    return weights if any(weights.values()) else dict.fromkeys(weights, Fraction(1))


def _thirty(served: Served, zone: ZoneInfo) -> Weights:
    weights: Weights = {}
    for name, month in served.months.items():
        start, end = _clip(served.period, month)
        begin = min(_date(start, zone).day, 30) - 1
        stop = 30 if end == month.end_at else min(_date(end, zone).day - 1, 30)
        weights[name] = Fraction(stop - begin)
    return weights


def _even_weights(served: Served, zone: ZoneInfo) -> Weights:  # noqa: ARG001 - all have one shape
    """Time by months; whole ones are made alike by `_even`."""
    weights: Weights = {}
    for name, month in served.months.items():
        start, end = _clip(served.period, month)
        weights[name] = Fraction((end - start) // _MICROSECOND, (month.end_at - month.start_at) // _MICROSECOND)
    return weights


def _even(total: int, served: Served, *, weights: Weights) -> dict[str, int]:
    whole = [name for name, weight in weights.items() if weight == 1]
    spans = {name: month.end_at - month.start_at for name, month in served.months.items()}
    times = {name: weights[name] * (spans[name] // _MICROSECOND) for name in weights}
    mass = sum(times.values(), Fraction(0))
    shares = {name: round_half_away(total * times[name] / mass) for name in weights if name not in whole}
    left = total - sum(shares.values())
    if not whole:
        shares[list(weights)[-1]] += left
        return shares
    each = left // len(whole)
    shares |= dict.fromkeys(whole, each)
    shares[whole[-1]] += left - each * len(whole)
    return {name: shares[name] for name in weights}


def _full(served: Served, zone: ZoneInfo) -> Weights:  # noqa: ARG001 - all have one shape
    names = list(served.months)
    weights = dict.fromkeys(names, Fraction(1))
    if len(names) > 1 and served.period.end_at < served.months[names[-1]].end_at:
        weights[names[-1]] = Fraction(0)
    return weights


def _exact(served: Served, zone: ZoneInfo) -> Weights:  # noqa: ARG001 - all have one shape
    weights: Weights = {}
    for name, month in served.months.items():
        start, end = _clip(served.period, month)
        weights[name] = Fraction((end - start) // _MICROSECOND)
    return weights


_WEIGHTS: Mapping[Spreading, Callable[[Served, ZoneInfo], Weights]] = MappingProxyType(
    {
        Spreading.DAILY: _daily,
        Spreading.MONTH30: _thirty,
        Spreading.EVEN_MONTHS: _even_weights,
        Spreading.FULL_MONTHS: _full,
        Spreading.EXACT: _exact,
    }
)


def allocated(price_minor: int, standalone: list[int]) -> list[int]:
    """A price split over the performance obligations by their standalone selling prices.

    Source: ASC 606-10-32-31. Example: 100,000 over products of 100,000 and points of 9,500: 91,324 and 8,676.
    """
    return split_largest_remainder(price_minor, standalone)


def caught_up(total: int, *, done: int, expected: int) -> int:
    """What is earned in all when `done` of a total now expected to be `expected` is performed.

    Example: 8,676 for points, 8,500 of now 9,700 redeemed: 7,603; less what was recognized before is this year's.
    Source: ASC 606-10-55-43 (a change of estimate is caught up).
    """
    return round_half_away(Fraction(total * min(done, expected), expected))


def proportional_breakage(sold: int, *, unredeemed_percent: int, redeemed: int) -> int:
    """What of the part never to be redeemed is earned along with what was redeemed.

    Example: 1,000 sold, 10 % never redeemed, 540 redeemed: 540 / 900 of 100 is 60. The house itself books breakage
    only when a grant lapses.
    Source: ASC 606-10-55-48.
    """
    never = Fraction(sold * unredeemed_percent, 100)
    return round_half_away(never * redeemed / (sold - never))
