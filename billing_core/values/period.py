"""Periods: half-open `[start, end)` in UTC, cut from a calendar in the contract's zone.

An anchor day is remembered and clamped in each month, so 31 January is followed by 28 February and then by
31 March: the anchor, not the previous edge, makes the next one. All edges are counted from the anchor instant,
which makes the n-th edge a pure function of n.

Worked example: anchor 2026-01-31T00:00 Europe/Berlin, monthly. Edge 1 is 2026-02-28T00:00 local, which is
2026-02-27T23:00Z; edge 2 is 2026-03-31T00:00 local, already summer time: 2026-03-30T22:00Z.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from billing_core.errors import InvalidInput


class Interval(StrEnum):
    """The length of a period or a window, one calendar unit."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


_EXACT = {Interval.MINUTE: timedelta(minutes=1), Interval.HOUR: timedelta(hours=1)}
_DAYS = {Interval.DAY: 1, Interval.WEEK: 7}
_PERIODS_KEPT = 4_096
_MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.YEAR: 12}


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A half-open stretch of time, both edges in UTC."""

    start_at: datetime
    end_at: datetime

    def __post_init__(self) -> None:
        if self.start_at >= self.end_at:
            raise InvalidInput("a period ends after it starts", field="end_at")

    def holds(self, instant: datetime) -> bool:
        """Whether the instant lies in `[start, end)`."""
        return self.start_at <= instant < self.end_at

    def overlaps(self, other: Period) -> bool:
        """Whether any instant lies in both."""
        return self.start_at < other.end_at and other.start_at < self.end_at

    @property
    def seconds(self) -> int:
        """Whole seconds between the edges."""
        return (self.end_at - self.start_at) // timedelta(seconds=1)


def zone_of(name: str, *, field: str = "time_zone") -> ZoneInfo:
    """The IANA zone of that name.

    Raises: InvalidInput where the zone does not exist.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(f"{name!r} is not an IANA time zone", field=field) from None


def edge(anchor_at: datetime, interval: Interval, *, n: int, zone: ZoneInfo) -> datetime:
    """The n-th edge counted from the anchor (n may be negative), in UTC."""
    if interval in _EXACT:
        return anchor_at.astimezone(UTC) + n * _EXACT[interval]
    local = anchor_at.astimezone(zone)
    if interval in _DAYS:
        moved = local.replace(tzinfo=None) + timedelta(days=n * _DAYS[interval])
        return moved.replace(tzinfo=zone).astimezone(UTC)
    months = local.year * 12 + local.month - 1 + n * _MONTHS[interval]
    year, month = divmod(months, 12)
    day = min(local.day, calendar.monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day, fold=0).astimezone(UTC)


def index_of(anchor_at: datetime, interval: Interval, *, instant: datetime, zone: ZoneInfo) -> int:
    """The n with edge(n) <= instant < edge(n + 1)."""
    n = _estimate(anchor_at, interval, instant=instant)
    while edge(anchor_at, interval, n=n, zone=zone) > instant:
        n -= 1
    while edge(anchor_at, interval, n=n + 1, zone=zone) <= instant:
        n += 1
    return n


def _estimate(anchor_at: datetime, interval: Interval, *, instant: datetime) -> int:
    """An index that is at most a few steps off."""
    span = instant - anchor_at
    if interval in _EXACT:
        return span // _EXACT[interval]
    if interval in _DAYS:
        return span // timedelta(days=_DAYS[interval])
    months = (instant.year - anchor_at.year) * 12 + instant.month - anchor_at.month
    return months // _MONTHS[interval]


def period_at(anchor_at: datetime, interval: Interval, *, instant: datetime, zone: ZoneInfo) -> Period:
    """The period of this calendar that holds the instant; remembered, because many customers share a calendar."""
    return _period_at(anchor_at.astimezone(UTC), interval, instant=instant.astimezone(UTC), zone=zone)


@lru_cache(maxsize=_PERIODS_KEPT)
def _period_at(anchor_at: datetime, interval: Interval, *, instant: datetime, zone: ZoneInfo) -> Period:
    n = index_of(anchor_at, interval, instant=instant, zone=zone)
    return Period(
        start_at=edge(anchor_at, interval, n=n, zone=zone), end_at=edge(anchor_at, interval, n=n + 1, zone=zone)
    )


def edges_from(anchor_at: datetime, interval: Interval, *, instant: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Edges without end, from the start of the period that holds the instant."""
    n = index_of(anchor_at, interval, instant=instant, zone=zone)
    while True:
        yield edge(anchor_at, interval, n=n, zone=zone)
        n += 1


def calendar_anchor(interval: Interval, instant: datetime, *, zone: ZoneInfo) -> datetime:
    """The start of the calendar unit that holds the instant: weeks start on Monday."""
    local = instant.astimezone(zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    starts = {
        Interval.MINUTE: local.replace(second=0, microsecond=0),
        Interval.HOUR: local.replace(minute=0, second=0, microsecond=0),
        Interval.DAY: midnight,
        Interval.WEEK: midnight - timedelta(days=midnight.weekday()),
        Interval.MONTH: midnight.replace(day=1),
        Interval.QUARTER: midnight.replace(month=(local.month - 1) // 3 * 3 + 1, day=1),
        Interval.YEAR: midnight.replace(month=1, day=1),
    }
    return starts[interval].astimezone(UTC)
