"""Periods: anchors are kept and clamped, starts are bounded, nothing overlaps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from billing_core.catalog.document import PlanAnchor
from billing_core.errors import InvalidInput
from billing_core.pricing.proration import ProrateBy, share_of
from billing_core.subscriptions.term import (
    MAX_BACKDATE,
    Calendar,
    anchor_after,
    calendar_of,
    check_start,
    contract_zone,
)
from billing_core.values.period import Interval, zone_of

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


def periods(calendar: Calendar, start_at: datetime, count: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for _ in range(count):
        period = calendar.period_from(start_at)
        found.append((period.start_at.isoformat()[:16], period.end_at.isoformat()[:16]))
        start_at = period.end_at
    return found


def test_month_ends_are_kept_and_clamped_for_a_year() -> None:
    """CA-01, CA-03: from 31 January each month ends on its last day, and day 31 returns."""
    start_at = datetime(2026, 1, 31, tzinfo=UTC)
    calendar = calendar_of(PlanAnchor.SUBSCRIPTION, Interval.MONTH, start_at=start_at, time_zone="UTC")
    ends = [end[5:10] for _, end in periods(calendar, start_at, 12)]
    assert ends == [
        "02-28",
        "03-31",
        "04-30",
        "05-31",
        "06-30",
        "07-31",
        "08-31",
        "09-30",
        "10-31",
        "11-30",
        "12-31",
        "01-31",
    ]


def test_a_calendar_plan_starts_with_a_part_of_a_month_in_the_contracts_zone() -> None:
    """In Berlin March begins at 23:00Z and ends, in summer time, at 22:00Z."""
    start_at = datetime(2026, 3, 10, 9, tzinfo=UTC)
    calendar = calendar_of(PlanAnchor.CALENDAR, Interval.MONTH, start_at=start_at, time_zone="Europe/Berlin")
    assert periods(calendar, start_at, 3) == [
        ("2026-03-10T09:00", "2026-03-31T22:00"),
        ("2026-03-31T22:00", "2026-04-30T22:00"),
        ("2026-04-30T22:00", "2026-05-31T22:00"),
    ]
    full = calendar.full_period(start_at)
    assert (full.start_at.isoformat()[:16], full.end_at.isoformat()[:16]) == (
        "2026-02-28T23:00",
        "2026-03-31T22:00",
    )


@pytest.mark.parametrize(
    ("start_at", "share"),
    [
        (datetime(2026, 1, 31, tzinfo=UTC), Fraction(1, 31)),
        (datetime(2026, 2, 1, tzinfo=UTC), Fraction(1)),
        (datetime(2026, 2, 15, 12, tzinfo=UTC), Fraction(27, 56)),
        (datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC), Fraction(1, 28 * 86_400)),
    ],
)
def test_the_first_period_is_a_share_of_the_full_one_by_seconds(start_at: datetime, share: Fraction) -> None:
    """What is charged for a part is its seconds over those of the whole."""
    calendar = calendar_of(PlanAnchor.CALENDAR, Interval.MONTH, start_at=start_at, time_zone="UTC")
    part, full = calendar.period_from(start_at), calendar.full_period(start_at)
    assert share_of(part, full, by=ProrateBy.SECONDS, zone=zone_of("UTC")) == share


@pytest.mark.parametrize(
    ("start_at", "free_from", "rule"),
    [
        (NOW, None, None),
        (NOW - MAX_BACKDATE, None, None),
        (NOW, NOW, None),
        (NOW - timedelta(days=1), NOW - timedelta(days=1), None),
        (NOW + timedelta(microseconds=1), None, "must not lie in the future"),
        (NOW - MAX_BACKDATE - timedelta(microseconds=1), None, "a clock in the past"),
        (datetime(1970, 1, 1, tzinfo=UTC), None, "a clock in the past"),
        (NOW - timedelta(days=1), NOW, "periods never overlap"),
        (NOW.replace(tzinfo=None), None, "needs a time zone"),
    ],
)
def test_a_start_is_bounded_by_now_by_the_past_and_by_the_last_subscription(
    start_at: datetime, free_from: datetime | None, rule: str | None
) -> None:
    """Each refusal names the field and its rule."""
    if rule is None:
        check_start(start_at, now=NOW, free_from=free_from)
        return
    with pytest.raises(InvalidInput, match=rule) as caught:
        check_start(start_at, now=NOW, free_from=free_from)
    assert caught.value.field == "start_at"


def test_the_contracts_zone_is_the_customers_where_it_has_one() -> None:
    """A customer who says nothing follows the plan."""
    assert contract_zone(customer_zone="UTC", plan_zone="Europe/Berlin") == "Europe/Berlin"
    assert contract_zone(customer_zone="Asia/Tokyo", plan_zone="Europe/Berlin") == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("was", "anchor", "interval", "anchor_at"),
    [
        (PlanAnchor.SUBSCRIPTION, PlanAnchor.SUBSCRIPTION, Interval.MONTH, "2026-01-31T09:00"),
        (PlanAnchor.SUBSCRIPTION, PlanAnchor.SUBSCRIPTION, Interval.YEAR, "2026-03-31T12:00"),
        (PlanAnchor.CALENDAR, PlanAnchor.SUBSCRIPTION, Interval.MONTH, "2026-03-31T12:00"),
        (PlanAnchor.SUBSCRIPTION, PlanAnchor.CALENDAR, Interval.MONTH, "2026-03-01T00:00"),
        (PlanAnchor.CALENDAR, PlanAnchor.CALENDAR, Interval.QUARTER, "2026-01-01T00:00"),
    ],
)
def test_a_change_of_plan_keeps_the_day_where_both_plans_follow_it(
    was: PlanAnchor, anchor: PlanAnchor, interval: Interval, anchor_at: str
) -> None:
    """Same length and both on the subscription's day; else the new plan's calendar begins with the change."""
    before = Calendar(interval=Interval.MONTH, anchor_at=datetime(2026, 1, 31, 9, tzinfo=UTC), time_zone="UTC")
    found = anchor_after(before, was=was, anchor=anchor, interval=interval, at=NOW)
    assert found.isoformat()[:16] == anchor_at
