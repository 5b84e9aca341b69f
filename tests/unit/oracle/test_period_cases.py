"""Calendar anchors and proration with answers known from other systems.

Periods are half-open here. Where a source names the last day instead, its end is restated as the day after.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from billing_core.pricing.proration import ProrateBy, share_of, shares_of
from billing_core.values.money import round_half_away
from billing_core.values.period import Interval, Period, edge, index_of

Agrees = Callable[[str, str], bool]
ZONE = ZoneInfo("UTC")


def at(text: str) -> datetime:
    return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)


def period(start: str, end: str) -> Period:
    return Period(start_at=at(start), end_at=at(end))


def left(full: Period, change: str, by: ProrateBy = ProrateBy.SECONDS) -> Fraction:
    """The share of the period that is left at a change."""
    return share_of(Period(start_at=at(change), end_at=full.end_at), full, by=by, zone=ZONE)


@pytest.mark.parametrize(
    ("name", "n", "says"),
    [("CA-01", 1, "2026-02-28"), ("CA-03", 2, "2026-03-31 (day 31 returns; no drift to 28)")],
)
def test_the_anchor_day_is_kept_and_clamped(name: str, n: int, says: str, agrees: Agrees) -> None:
    """31 January, 28 February, 31 March."""
    assert edge(at("2026-01-31"), Interval.MONTH, n=n, zone=ZONE) == at(says[:10])
    assert agrees(name, says)


@pytest.mark.parametrize(
    ("name", "interval", "ends", "says"),
    [
        ("CA-05", Interval.MONTH, {"2012-09-15": 1, "2012-09-16": 2}, "1 / 2"),
        ("CA-09", Interval.WEEK, {"2012-07-29": 1, "2012-07-30": 2, "2012-07-31": 2}, "1 / 2 / 2"),
    ],
)
def test_whole_intervals_are_counted(
    name: str, interval: Interval, ends: dict[str, int], says: str, agrees: Agrees
) -> None:
    """From 16 July 2012."""
    assert {end: index_of(at("2012-07-16"), interval, instant=at(end), zone=ZONE) for end in ends} == ends
    assert agrees(name, says)


def test_ca_07_months_step_forward_and_back(agrees: Agrees) -> None:
    """Seven months from 8 April 2016, and the same seven back."""
    days = ["05-08", "06-08", "07-08", "08-08", "09-08", "10-08", "11-08"]
    forward = [edge(at("2016-04-08"), Interval.MONTH, n=n, zone=ZONE) for n in range(1, 8)]
    assert forward == [at(f"2016-{day}") for day in days]
    back = [edge(forward[-1], Interval.MONTH, n=-n, zone=ZONE) for n in range(1, 8)]
    assert back == [*forward[-2::-1], at("2016-04-08")]
    assert agrees("CA-07", f"{', '.join(days)}; receding from 11-08 is the exact inverse")


class Change(NamedTuple):
    """Old and new price in cents; the part that is left of the old period is credited and charged."""

    old: int
    new: int
    full: Period
    on: str
    says: str
    credit: int
    debit: int
    new_in_full: bool = False
    by: ProrateBy = ProrateBy.SECONDS


JUNE = period("2025-06-01", "2025-07-01")
FEB_LEAP = period("2024-02-18", "2024-03-18")
LEAP_YEAR = period("2024-02-18", "2025-02-18")
THIRTY = period("2026-01-01", "2026-01-31")
MARCH = period("2024-03-01", "2024-04-01")
DAYS = ProrateBy.DAYS
CHANGES = {
    "PR-01": Change(10_000, 30_000, JUNE, "2025-06-16", "credit 5000c, debit 15000c", 5_000, 15_000),
    "PR-03": Change(10_000, 30_000, FEB_LEAP, "2024-02-25", "credit 7586c, debit 22759c", 7_586, 22_759),
    "PR-05": Change(100_000, 300_000, LEAP_YEAR, "2024-09-05", "credit 45355c, debit 136066c", 45_355, 136_066),
    "PR-07": Change(
        10_000, 100_000, JUNE, "2025-06-16", "credit 5000c, debit 100000c in full", 5_000, 100_000, True
    ),
    "PR-09": Change(
        10_000, 100_000, FEB_LEAP, "2024-02-25", "credit 7586c, debit 100000c in full", 7_586, 100_000, True
    ),
    "PR-11": Change(
        100_000, 10_000, LEAP_YEAR, "2024-04-19", "credit 83333c, debit 10000c in full", 83_333, 10_000, True
    ),
    "PR-13": Change(10_000, 50_000, JUNE, "2025-06-16", "credit 5000c, debit 25000c", 5_000, 25_000),
    "PR-15": Change(7_500, 95_000, JUNE, "2025-06-16", "credit 3750c, debit 47500c", 3_750, 47_500),
    "PR-19": Change(500, 2_000, JUNE, "2025-06-02", "credit 4.83, charge 19.33, net 14.50", 483, 1_933),
    "PR-21": Change(10_000, 20_000, THIRTY, "2026-01-01", "-10000c / +20000c", 10_000, 20_000, by=DAYS),
    "PR-23": Change(5_000, 10_000, THIRTY, "2026-01-16", "-2500c / +5000c", 2_500, 5_000, by=DAYS),
    "PR-29": Change(1_000, 2_000, MARCH, "2024-03-15", "credit -5.48, charge 10.97, net 5.49", 548, 1_097, by=DAYS),
    "PR-31": Change(
        5_000, 10_000, MARCH, "2024-03-15", "credit -27.42, charge 54.84, net 27.42", 2_742, 5_484, by=DAYS
    ),
    "PR-33": Change(4_000, 0, MARCH, "2024-03-15", "credit -21.94, charge 0, net -21.94", 2_194, 0, by=DAYS),
    "PR-35": Change(
        30_000,
        15_000,
        period("2026-01-01", "2026-04-01"),
        "2026-02-15",
        "credit 150, charge 75, net -75",
        15_000,
        7_500,
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_credits_the_old_price_and_charges_the_new_one(name: str, agrees: Agrees) -> None:
    """Each is prorated and rounded apart; discounts are taken before; a new interval starts a new full period."""
    change = CHANGES[name]
    share = left(change.full, change.on, change.by)
    assert round_half_away(change.old * share) == change.credit
    assert round_half_away(change.new * (1 if change.new_in_full else share)) == change.debit
    assert agrees(name, change.says)


def test_pr_17_more_seats_pay_for_what_is_left(agrees: Agrees) -> None:
    """Five more at 15.00 with two thirds left."""
    assert round_half_away(5 * 1_500 * left(JUNE, "2025-06-11")) == 5_000
    assert agrees("PR-17", "delta 5000c")


def test_pr_25_several_changes_on_one_day_add_up(agrees: Agrees) -> None:
    """Half is left: 100 to 200, 50 added, 30 removed. The source removes it as -1500 and adds 50 as 2500."""
    half = left(THIRTY, "2026-01-16", DAYS)
    moves = [round_half_away(amount * half) for amount in (-10_000, 20_000, -3_000, 5_000)]
    assert (moves, sum(moves)) == ([-5_000, 10_000, -1_500, 2_500], 6_000)
    assert agrees("PR-25", "-5000 +10000 -1500 +2500 = +6000c")


def test_pr_27_a_component_is_prorated_over_its_own_period(agrees: Agrees) -> None:
    """A month of a year's 3,650.00 is 30 of its 365 days."""
    month = share_of(period("2026-04-01", "2026-05-01"), period("2026-01-01", "2027-01-01"), by=DAYS, zone=ZONE)
    assert round_half_away(365_000 * month) == 30_000
    assert agrees("PR-27", "30000c (30/365 of the year)")


class Served(NamedTuple):
    """From `start` to `end`, billed monthly in advance on `day`, for all that begins until `target`."""

    day: int
    start: str
    end: str
    target: str
    shares: list[str]
    says: str


ADVANCE = " cycles (in advance, monthly)"
SERVED = {
    "PR-37": Served(1, "2011-02-01", "2011-02-14", "2011-02-01", ["13/28"], "13/28"),
    "PR-39": Served(27, "2011-02-14", "2012-01-01", "2011-03-01", ["13/31", "1"], "1 + 13/31"),
    "PR-41": Served(7, "2011-02-07", "2011-02-15", "2011-04-21", ["8/28"], "8/28"),
    "PR-43": Served(7, "2011-02-07", "2011-03-07", "2011-04-21", ["1"], "1"),
    "PR-45": Served(7, "2011-02-07", "2011-03-10", "2011-04-21", ["1", "3/31"], "1 + 3/31"),
    "PR-47": Served(7, "2011-01-31", "2011-03-10", "2011-04-21", ["7/31", "1", "3/31"], "7/31 + 1 + 3/31"),
    "PR-49": Served(10, "2011-02-10", "2011-02-24", "2011-04-21", ["1/2"], "1/2"),
    "PR-51": Served(13, "2011-02-01", "2012-01-01", "2011-02-04", ["12/31"], "12/31"),
    "PR-53": Served(13, "2011-02-01", "2012-01-01", "2011-04-13", ["12/31", "1", "1", "1"], "3 + 12/31"),
    "PR-55": Served(15, "2011-01-01", "2011-02-27", "2011-01-07", ["14/31"], "14/31"),
    "PR-57": Served(15, "2011-01-01", "2011-02-27", "2011-02-27", ["14/31", "1", "12/28"], "14/31 + 1 + 12/28"),
    "PR-59": Served(17, "2010-06-17", "2010-07-25", "2010-06-20", ["1"], "1"),
}


@pytest.mark.parametrize("name", SERVED)
def test_a_partial_period_is_a_share_of_the_full_one_around_it(name: str, agrees: Agrees) -> None:
    """What was served is cut on the billing day; each piece divides by the days of its own full period."""
    case = SERVED[name]
    anchor_at = datetime(2010, 1, case.day, tzinfo=UTC)
    pieces = shares_of(
        period(case.start, case.end), anchor_at=anchor_at, interval=Interval.MONTH, by=DAYS, zone=ZONE
    )
    due = [piece.share for piece in pieces if piece.served.start_at <= at(case.target)]
    assert due == [Fraction(share) for share in case.shares]
    assert agrees(name, case.says + ADVANCE)


def test_pr_61_months_of_thirty_days(agrees: Agrees) -> None:
    """23 May to 15 June is seven days to the end of a May of thirty days, and fifteen more."""
    share = share_of(
        period("2023-05-23", "2023-06-15"),
        period("2023-05-23", "2023-06-23"),
        by=ProrateBy.DAYS_OF_THIRTY,
        zone=ZONE,
    )
    assert share == Fraction(22, 30)
    assert agrees("PR-61", "0.733333333")


def test_pr_63_a_source_that_counts_both_ends_is_a_day_longer(agrees: Agrees) -> None:
    """32 days of a quarter of 91, the last one included."""
    share = share_of(period("2024-05-20", "2024-06-21"), period("2024-04-01", "2024-07-01"), by=DAYS, zone=ZONE)
    assert round_half_away(91_000 * share) == 32_000
    assert agrees("PR-63", "32000c (32 days incl. both ends)")


def test_pr_65_actual_days(agrees: Agrees) -> None:
    """22 of the 30 days from 23 June to 23 July."""
    share = share_of(period("2023-06-23", "2023-07-15"), period("2023-06-23", "2023-07-23"), by=DAYS, zone=ZONE)
    assert share == Fraction(22, 30)
    assert agrees("PR-65", "0.733333333")


def test_every_published_case_of_these_families_is_here(published_ids: Callable[[str], set[str]]) -> None:
    """No case is left out."""
    apart = {"PR-17", "PR-25", "PR-27", "PR-61", "PR-63", "PR-65"}
    assert published_ids("PR") <= set(CHANGES) | set(SERVED) | apart
    assert published_ids("CA") <= {"CA-01", "CA-03", "CA-05", "CA-07", "CA-09"}
