"""Periods are half-open, cut from a calendar, and anchored on a day that is remembered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from billing_core.errors import InvalidInput
from billing_core.values.period import (
    Interval,
    Period,
    calendar_anchor,
    edge,
    edges_from,
    index_of,
    period_at,
    zone_of,
)

ZONE, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


MARCH = Period(start_at=at(2026, 3, 1), end_at=at(2026, 4, 1))


def test_a_period_holds_its_start_and_not_its_end() -> None:
    """The next one holds the end."""
    assert MARCH.holds(at(2026, 3, 1))
    assert MARCH.holds(at(2026, 4, 1) - timedelta(microseconds=1))
    assert not MARCH.holds(at(2026, 4, 1))
    assert MARCH.seconds == 31 * 86_400


@pytest.mark.parametrize(
    ("start", "end", "overlaps"),
    [
        (at(2026, 2, 1), at(2026, 3, 1), False),
        (at(2026, 4, 1), at(2026, 5, 1), False),
        (at(2026, 2, 1), at(2026, 3, 2), True),
        (at(2026, 3, 10), at(2026, 3, 11), True),
    ],
)
def test_periods_that_touch_do_not_overlap(start: datetime, end: datetime, overlaps: bool) -> None:
    """Neighbours share an edge and no instant."""
    other = Period(start_at=start, end_at=end)
    assert (MARCH.overlaps(other), other.overlaps(MARCH)) == (overlaps, overlaps)


@pytest.mark.parametrize("end", [at(2026, 3, 1), at(2026, 2, 1)])
def test_a_period_ends_after_it_starts(end: datetime) -> None:
    """An empty one is refused."""
    with pytest.raises(InvalidInput, match="ends after it starts"):
        Period(start_at=at(2026, 3, 1), end_at=end)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (-1, at(2025, 12, 30, 23)),
        (0, at(2026, 1, 30, 23)),
        (1, at(2026, 2, 27, 23)),
        (2, at(2026, 3, 30, 22)),
        (13, at(2027, 2, 27, 23)),
    ],
)
def test_the_anchor_makes_every_edge(n: int, expected: datetime) -> None:
    """31 January in Berlin, monthly: clamped in February, back on the 31st in March, on summer time."""
    anchor_at = datetime(2026, 1, 31, tzinfo=BERLIN)
    assert edge(anchor_at, Interval.MONTH, n=n, zone=BERLIN) == expected


def test_a_leap_day_returns_in_leap_years() -> None:
    """29 February 2024, yearly."""
    years = [edge(at(2024, 2, 29), Interval.YEAR, n=n, zone=ZONE) for n in range(5)]
    assert [(one.month, one.day) for one in years] == [(2, 29), (2, 28), (2, 28), (2, 28), (2, 29)]


@pytest.mark.parametrize("interval", list(Interval))
@pytest.mark.parametrize("zone", [ZONE, BERLIN], ids=str)
def test_every_instant_is_in_just_one_period(interval: Interval, zone: ZoneInfo) -> None:
    """The index is the one whose edges hold the instant, before the anchor as after it."""
    anchor_at = at(2026, 1, 31, 12, 34, 56)
    for days in (-800, -1, 0, 1, 57, 58, 365, 800):
        instant = anchor_at + timedelta(days=days, hours=7)
        n = index_of(anchor_at, interval, instant=instant, zone=zone)
        found = period_at(anchor_at, interval, instant=instant, zone=zone)
        assert found.holds(instant)
        assert found.start_at == edge(anchor_at, interval, n=n, zone=zone)
        assert next(edges_from(anchor_at, interval, instant=instant, zone=zone)) == found.start_at


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval.MINUTE, at(2026, 5, 13, 22, 10)),
        (Interval.HOUR, at(2026, 5, 13, 22)),
        (Interval.DAY, at(2026, 5, 13, 22)),
        (Interval.WEEK, at(2026, 5, 10, 22)),
        (Interval.MONTH, at(2026, 4, 30, 22)),
        (Interval.QUARTER, at(2026, 3, 31, 22)),
        (Interval.YEAR, at(2025, 12, 31, 23)),
    ],
)
def test_a_calendar_starts_at_midnight_of_its_zone(interval: Interval, expected: datetime) -> None:
    """Thursday, 14 May 2026, 00:10:30 in Berlin; weeks start on Monday."""
    instant = at(2026, 5, 13, 22, 10, 30)
    assert calendar_anchor(interval, instant, zone=BERLIN) == expected


@pytest.mark.parametrize("name", ["", "Mars/Base", "/etc/passwd", "../UTC", "Europe"])
def test_a_zone_that_does_not_exist_is_refused(name: str) -> None:
    """By the name of the field, and no file is read outside the zones."""
    with pytest.raises(InvalidInput, match="IANA") as caught:
        zone_of(name)
    assert caught.value.field == "time_zone"
