"""The oracle's cases of minimum and commitment, as far as the house sells such things.

Not ours, and why:

    CM-03          a discount before the cap of a price: here a coupon is taken off a line after its price's maximum
    CM-07 to CM-11 commitments per window with an overage factor: a price has a minimum and a maximum per period
"""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pytest

from billing_core.catalog.catalog import PlanTerms, PlanVersion
from billing_core.catalog.document import Plan, PlanAnchor
from billing_core.catalog.rate import RateTable, RateTier
from billing_core.invoices.line import fee_line
from billing_core.pricing.charge import charge_between, charge_of
from billing_core.pricing.proration import ProrateBy, share_of
from billing_core.subscriptions.term import calendar_of
from billing_core.values.period import Interval, zone_of


def test_cm_01_and_cm_05_units_are_priced_and_free_ones_are_used_up_once() -> None:
    """CM-01: 10 at 100 are 1000. CM-05: of 10 free units none is left after 20, so 15 more are all billable."""
    hundred = RateTable(tiers=(RateTier(upto=None, unit_nanos=Fraction(100)),))
    assert charge_of(hundred, 10).amount_nanos == 1000
    one = RateTable(tiers=(RateTier(upto=None, unit_nanos=Fraction(1)),), free_units=10)
    assert charge_between(one, before=20, after=35, closing=True).amount_nanos == 15


@pytest.mark.parametrize(
    ("case", "interval", "start_at", "true_up"),
    [
        ("CM-13", Interval.MONTH, datetime(2023, 2, 4, tzinfo=UTC), 803_571),
        ("CM-15", Interval.YEAR, datetime(2022, 2, 1, tzinfo=UTC), 823_561),
    ],
)
def test_a_part_of_a_commitment_and_of_a_plan_are_each_rounded_and_then_subtracted(
    case: str, interval: Interval, start_at: datetime, true_up: int
) -> None:
    """Plan 1,000.00 and commitment 10,000.00, both in their share of the calendar's first period."""
    calendar = calendar_of(PlanAnchor.CALENDAR, interval, start_at=start_at, time_zone="UTC")
    part, full = calendar.period_from(start_at), calendar.full_period(start_at)
    share = share_of(part, full, by=ProrateBy.SECONDS, zone=zone_of("UTC"))
    billed: list[int] = []
    for fee in ("10000.00", "1000.00"):
        terms = PlanTerms(plan=Plan(code="p", currency="USD", fee_amount=fee))
        line = fee_line(PlanVersion(version=1, terms=terms), part, share=share)
        assert line is not None
        billed.append(line.amount_minor)
    assert billed[0] - billed[1] == true_up, case
