"""Shares of periods beyond the published cases: zones, times of day, refusals."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from billing_core.errors import InvalidInput
from billing_core.pricing.discount import Coupon, discounts_of, percent_minor
from billing_core.pricing.proration import ProrateBy, share_of, shares_of
from billing_core.values.period import Interval, Period

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=BERLIN).astimezone(UTC)


MARCH = Period(start_at=berlin(2026, 3, 1), end_at=berlin(2026, 4, 1))


def test_by_seconds_a_day_of_23_hours_is_a_smaller_share() -> None:
    """29 March 2026 in Berlin, of a month of 743 hours."""
    day = Period(start_at=berlin(2026, 3, 29), end_at=berlin(2026, 3, 30))
    assert share_of(day, MARCH, by=ProrateBy.SECONDS, zone=BERLIN) == Fraction(23, 743)


def test_by_days_every_day_of_the_contracts_zone_is_the_same_share() -> None:
    """Also the one of 23 hours, and though its UTC edges lie on other dates."""
    day = Period(start_at=berlin(2026, 3, 29), end_at=berlin(2026, 3, 30))
    assert share_of(day, MARCH, by=ProrateBy.DAYS, zone=BERLIN) == Fraction(1, 31)


def test_by_days_the_start_day_counts_whole_and_the_end_day_does_not() -> None:
    """From 23:00 on the 10th to 01:00 on the 12th are two days."""
    part = Period(start_at=berlin(2026, 3, 10, 23), end_at=berlin(2026, 3, 12, 1))
    assert share_of(part, MARCH, by=ProrateBy.DAYS, zone=BERLIN) == Fraction(2, 31)


@pytest.mark.parametrize("by", list(ProrateBy))
def test_a_whole_period_is_one(by: ProrateBy) -> None:
    """By whatever is counted."""
    assert share_of(MARCH, MARCH, by=by, zone=BERLIN) == 1


def test_what_is_prorated_lies_in_its_period() -> None:
    """A part that sticks out is refused."""
    part = Period(start_at=berlin(2026, 2, 28), end_at=berlin(2026, 3, 10))
    with pytest.raises(InvalidInput, match="lies in the full period"):
        share_of(part, MARCH, by=ProrateBy.SECONDS, zone=BERLIN)


def test_a_period_of_hours_is_not_prorated_by_days() -> None:
    """It may have none."""
    hours = Period(start_at=berlin(2026, 3, 1, 1), end_at=berlin(2026, 3, 1, 5))
    with pytest.raises(InvalidInput, match="at least one"):
        share_of(hours, hours, by=ProrateBy.DAYS, zone=BERLIN)


def test_shares_follow_one_another_without_a_gap() -> None:
    """From the middle of one month to the middle of another, in the contract's zone."""
    served = Period(start_at=berlin(2026, 1, 16), end_at=berlin(2026, 3, 11, 12))
    shares = shares_of(
        served, anchor_at=berlin(2026, 1, 1), interval=Interval.MONTH, by=ProrateBy.SECONDS, zone=BERLIN
    )
    assert [share.share for share in shares] == [Fraction(16, 31), 1, Fraction(10 * 24 + 12, 743)]
    edges = [(share.served.start_at, share.served.end_at) for share in shares]
    assert edges[0][0] == served.start_at
    assert edges[-1][1] == served.end_at
    assert all(before[1] == after[0] for before, after in pairwise(edges))


@pytest.mark.parametrize(
    ("percent", "fixed_minor"),
    [(None, None), (Fraction(10), 10), (Fraction(101), None), (Fraction(-1), None), (None, -1)],
)
def test_a_coupon_is_one_sound_thing(percent: Fraction | None, fixed_minor: int | None) -> None:
    """A percentage from 0 to 100, or an amount that is not negative; not both, not neither."""
    with pytest.raises(InvalidInput):
        Coupon(code="c", percent=percent, fixed_minor=fixed_minor)


def test_a_negative_line_has_no_discount() -> None:
    """A credit is not discounted again."""
    with pytest.raises(InvalidInput, match="negative line"):
        discounts_of(-1, ())


def test_a_percentage_is_rounded_half_away_from_zero() -> None:
    """Of amounts in both directions."""
    assert [percent_minor(amount, Fraction(50)) for amount in (1, 3, -1, -3)] == [1, 2, -1, -2]
