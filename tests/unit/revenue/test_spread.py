"""Spreading, against the oracle's cases of revenue recognition. Amounts are cents unless said otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.revenue.spread import (
    Spreading,
    allocated,
    by_month,
    caught_up,
    day_count,
    days_passed,
    earned_daily,
    proportional_breakage,
)
from billing_core.values.period import Period

UTC_ZONE = ZoneInfo("UTC")


def period(start: str, end: str) -> Period:
    """`[start, end)`; oracle cases that name the last day are given with the day after."""
    return Period(
        start_at=datetime.fromisoformat(start).replace(tzinfo=UTC),
        end_at=datetime.fromisoformat(end).replace(tzinfo=UTC),
    )


def spread(total: int, start: str, end: str, way: str) -> dict[str, int]:
    return by_month(total, period(start, end), spreading=Spreading(way), zone=UTC_ZONE)


@pytest.mark.parametrize(
    ("case", "total", "start", "end", "way", "expected"),
    [
        ("RR-01", 10_000, "2019-01-10", "2019-03-16", "daily", [3385, 4308, 2307]),
        ("RR-03", 30_000, "2021-05-01", "2021-08-01", "even_months", [10_000, 10_000, 10_000]),
        ("RR-09", 120_000, "2023-02-01", "2023-04-01", "full_months", [60_000, 60_000]),
        ("RR-11", 120_000, "2023-02-05", "2023-04-01", "full_months", [60_000, 60_000]),
        ("RR-13", 120_000, "2023-03-01", "2023-06-19", "full_months", [40_000, 40_000, 40_000, 0]),
        ("RR-15", 120_000, "2023-03-13", "2024-03-13", "full_months", [10_000] * 12 + [0]),
        ("RR-17", 1_200_000, "2024-06-05", "2025-06-05", "full_months", [100_000] * 12 + [0]),
        ("RR-21", 12_000, "2024-06-15T12:00", "2024-10-13T12:00", "daily", [1600, 3100, 3100, 3000, 1200]),
        ("RR-23", 12_000, "2024-06-15T12:00", "2024-10-13T12:00", "even_months", [1550, 3066, 3066, 3068, 1250]),
        ("RR-25", 3_100, "2019-01-15", "2019-02-15", "daily", [1700, 1400]),
        ("RR-33", 12_000, "2019-01-01", "2020-01-01", "even_months", [1000] * 12),
    ],
)
def test_oracle_cases_come_out(case: str, total: int, start: str, end: str, way: str, expected: list[int]) -> None:
    """Each row is a case of the oracle; its months in order."""
    assert list(spread(total, start, end, way).values()) == expected, case


def test_rr_19_a_year_by_days_is_its_months_lengths() -> None:
    """365.00 from 1 January 2019: January 31, February 28, March 31; deferred 334 after January."""
    months = spread(36_500, "2019-01-01", "2020-01-01", "daily")
    assert [months[name] for name in ("2019-01", "2019-02", "2019-03")] == [3100, 2800, 3100]
    assert 36_500 - months["2019-01"] == 33_400


LINES = {
    "L1": (100_000, "2023-01-01", "2023-05-01"),
    "L2": (105_000, "2023-01-16", "2023-05-01"),
    "L3": (122_500, "2023-01-01", "2023-04-16"),
    "L4": (168_000, "2023-01-21", "2023-04-15"),
    "L5": (22_500, "2023-04-01", "2023-04-16"),
}


@pytest.mark.parametrize(
    ("case", "way", "month", "expected"),
    [
        ("RR-05", "month30", "2023-02", [55_000, 35_000, 60_000]),
        ("RR-05", "month30", "2023-03", [55_000, 35_000, 60_000]),
        ("RR-07", "daily", "2023-01", [41_833, 36_167, 22_000]),
    ],
)
def test_groups_of_lines_by_thirty_day_months_and_by_days(
    case: str, way: str, month: str, expected: list[int]
) -> None:
    """Groups L1+L2, L3, L4+L5 of the oracle's five lines."""
    groups = (("L1", "L2"), ("L3",), ("L4", "L5"))
    found = [sum(spread(*LINES[line], way).get(month, 0) for line in group) for group in groups]
    assert found == expected, case


def test_estimates_are_allocated_caught_up_and_broken_proportionally() -> None:
    """RR-27, RR-29, RR-31."""
    assert allocated(100_000, [100_000, 9_500]) == [91_324, 8_676]
    first = caught_up(8_676, done=4_500, expected=9_500)
    second = caught_up(8_676, done=8_500, expected=9_700)
    assert (second - first, 8_676 - second) == (3_493, 1_073)
    assert proportional_breakage(1_000, unredeemed_percent=10, redeemed=540) == 60


@pytest.mark.parametrize(
    ("at", "passed"),
    [
        ("2026-01-14T23:59:59", 0),
        ("2026-01-15T23:59:59", 0),
        ("2026-01-16T00:00:00", 1),
        ("2026-02-01T00:00:00", 17),
        ("2026-02-14T23:59:59", 30),
        ("2026-02-15T00:00:00", 31),
        ("2027-01-01T00:00:00", 31),
    ],
)
def test_a_day_is_over_at_midnight(at: str, passed: int) -> None:
    """Not a second before, and never more days than there are."""
    instant = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert days_passed(period("2026-01-15", "2026-02-15"), instant, zone=UTC_ZONE) == passed


def test_a_service_within_one_day_is_one_day_and_over_at_its_end() -> None:
    """The shortest service earns whole at its end."""
    short = period("2026-01-15T09:00", "2026-01-15T17:00")
    assert day_count(short, zone=UTC_ZONE) == 1
    assert days_passed(short, short.end_at - timedelta(seconds=1), zone=UTC_ZONE) == 0
    assert days_passed(short, short.end_at, zone=UTC_ZONE) == 1


def test_equal_parts_leave_the_remainder_to_the_last_day() -> None:
    """100 over 3 days: 33, 33, 34."""
    assert [earned_daily(100, passed=n, days=3) for n in (0, 1, 2, 3, 4)] == [0, 33, 66, 100, 100]


@given(
    total=st.integers(1, 10**12),
    start=st.datetimes(datetime(2020, 1, 1), datetime(2024, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    length=st.timedeltas(timedelta(seconds=1), timedelta(days=800)),
    way=st.sampled_from(list(Spreading)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"]),
)
def test_whatever_the_way_nothing_is_lost(
    total: int, start: datetime, length: timedelta, way: Spreading, zone: str
) -> None:
    """The months add up to the total, and none of a long service is negative beyond rounding."""
    months = by_month(total, Period(start_at=start, end_at=start + length), spreading=way, zone=ZoneInfo(zone))
    assert sum(months.values()) == total
    assert min(months.values()) >= -len(months)
