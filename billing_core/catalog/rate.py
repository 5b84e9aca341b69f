"""Rates: the words of a price as exact numbers.

Whatever its model, a price becomes one table of tiers `(lo, hi]` with a rate and a flat amount each, read in one of
two ways: graduated (every tier's units at that tier's rate) or volume (all units at the rate of the tier that the
total reaches). A per-unit price is a table of one open tier; a flat price one open tier whose rate is zero.

Worked example: 2.50 per 1,000,000 is a rate of 2_500_000_000 / 1_000_000 = 2500 nanos a unit; 100.00 per package
of 10 is 100_000_000_000 nanos a package, package_units 10, rounded up.

Units: nanos (1e-9 of the major unit) per package; a package is one unit where the price has none.
"""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from functools import lru_cache

import msgspec

from billing_core.catalog.document import Model, PackageRounding, PeriodMeasure, Price
from billing_core.errors import InvalidInput
from billing_core.values.money import Exact, nanos_of, whole
from billing_core.values.period import Period

_SECONDS = {PeriodMeasure.DAYS: 86_400, PeriodMeasure.HOURS: 3_600, PeriodMeasure.SECONDS: 1}
_TABLES_KEPT = 1_024
_TABLE_MODELS = frozenset({Model.GRADUATED, Model.VOLUME})


class Method(StrEnum):
    """How a table of tiers is read."""

    GRADUATED = "graduated"
    VOLUME = "volume"


class RateTier(msgspec.Struct, frozen=True, kw_only=True):
    """One tier: above the previous bound, up to and including `upto` packages; None is open."""

    upto: Exact | None
    unit_nanos: Exact
    flat_nanos: Exact = 0


class RateTable(msgspec.Struct, frozen=True, kw_only=True):
    """A price in exact numbers, ready to be applied to a quantity."""

    tiers: tuple[RateTier, ...]
    method: Method = Method.GRADUATED
    package_units: int = 1
    package_rounding: PackageRounding = PackageRounding.NONE
    free_units: int = 0
    first_flat_always_due: bool = False
    minimum_nanos: Exact | None = None
    maximum_nanos: Exact | None = None

    def packages(self, quantity: Exact) -> Exact:
        """What the table counts for a quantity: free units off, then packages, rounded as the price says."""
        exact = max(0, quantity - self.free_units)
        if self.package_units != 1:
            exact = whole(Fraction(exact) / self.package_units)
        if self.package_rounding is PackageRounding.UP:
            return -(-exact.numerator // exact.denominator)
        if self.package_rounding is PackageRounding.DOWN:
            return exact.numerator // exact.denominator
        return exact


def rates_of(price: Price, period: Period | None = None) -> RateTable:
    """The price's table.

    `period` is the billing period; only a rate per days, hours or seconds of the period reads it.

    Raises: InvalidInput where an amount is no decimal text, or such a rate is asked for without a period.
    """
    return _rates_of(price, batch_of(price, period))


@lru_cache(maxsize=_TABLES_KEPT)
def _rates_of(price: Price, per: Fraction) -> RateTable:
    """The table of a price whose rate buys so many packages."""
    packaged = price.model is Model.PACKAGE or price.package_units > 1
    return RateTable(
        tiers=_tiers_of(price, per),
        method=Method.VOLUME if price.model is Model.VOLUME else Method.GRADUATED,
        package_units=price.package_units,
        package_rounding=price.package_rounding if packaged else PackageRounding.NONE,
        free_units=price.free_units,
        first_flat_always_due=price.first_flat_always_due,
        minimum_nanos=_bound(price.minimum_amount, "minimum_amount"),
        maximum_nanos=_bound(price.maximum_amount, "maximum_amount"),
    )


def batch_of(price: Price, period: Period | None) -> Fraction:
    """How many packages the price's rate buys.

    Raises: InvalidInput where the rate is per measure of a period and there is no period.
    """
    if not isinstance(price.per, PeriodMeasure):
        return Fraction(price.per)
    if period is None:
        raise InvalidInput("a rate per measure of the period has no amount before the period is known", field="per")
    return Fraction(period.seconds, _SECONDS[price.per])


def bound_of(upto: int | str) -> Fraction:
    """A tier's bound as a number.

    Raises: ValueError where the text is no number.
    """
    return Fraction(upto)


def _tiers_of(price: Price, per: Fraction) -> tuple[RateTier, ...]:
    if price.model not in _TABLE_MODELS:
        unit = nanos_of(price.unit_amount or "0", field="unit_amount") / per
        flat = nanos_of(price.flat_amount or "0", field="flat_amount")
        return (RateTier(upto=None, unit_nanos=whole(unit), flat_nanos=whole(flat)),)
    return tuple(
        RateTier(
            upto=None if tier.upto is None else whole(bound_of(tier.upto)),
            unit_nanos=whole(nanos_of(tier.unit_amount, field=f"tiers[{index}].unit_amount") / per),
            flat_nanos=whole(nanos_of(tier.flat_amount, field=f"tiers[{index}].flat_amount")),
        )
        for index, tier in enumerate(price.tiers)
    )


def _bound(amount: str, field: str) -> Exact | None:
    return whole(nanos_of(amount, field=field)) if amount else None
