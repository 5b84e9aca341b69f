"""Tariffs: a prepaid price as the scripts compute it, in integers below 2^53.

The scripts hold every rate of a tariff over one denominator, `batch`: the least common multiple of what the exact
rates need. Free units become a first tier that costs nothing. What cannot be told this way is refused when the
catalog is written, never rounded when a request is charged.

Worked example: tiers of 2.50 and 1.25 per 1,000,000 tokens are 2500 and 1250 nanos a token: batch 1. A price of
0.0083 per 3 units is 8_300_000 nanos per batch of 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import lcm

from billing_core.catalog.document import QUANTITY_FIELD, Aggregation, Meter, PackageRounding, Pay, Plan, Price
from billing_core.catalog.rate import Method, RateTable, RateTier, rates_of
from billing_core.contract.snapshot import Tariff, Tier, Window, WindowKind
from billing_core.errors import InvalidInput
from billing_core.values.money import MAX_EXACT


def tariff_of(price: Price, *, price_id: str, currency: str, window: Window) -> Tariff:
    """The price as a tariff.

    Raises: InvalidInput where it cannot be told in integers below 2^53, naming what.
    """
    table = rates_of(price)
    if table.method is Method.VOLUME:
        raise InvalidInput(
            "a volume price cannot be prepaid: later units would change what earlier ones cost", field="model"
        )
    if table.package_rounding is PackageRounding.DOWN:
        raise InvalidInput("a prepaid price cannot round packages down", field="package_rounding")
    tiers = _whole_tiers(table)
    batch = lcm(*(tier.unit_nanos.denominator for tier in tiers))
    _fits(batch, "the common denominator of its rates", field="tiers" if price.tiers else "unit_amount")
    return Tariff(
        price_id=price_id,
        currency=currency,
        package_units=1 if table.package_rounding is PackageRounding.NONE else table.package_units,
        batch=batch,
        tiers=tuple(
            _tier(tier, batch, place=f"tiers[{i}]." if price.tiers else "") for i, tier in enumerate(tiers)
        ),
        window=window,
    )


def counts_checks_of(meter: Meter, feature_code: str) -> bool:
    """Whether the meter sums what checks on the feature leave."""
    shape = (meter.event, meter.aggregation, meter.field, meter.scale)
    return shape == (feature_code, Aggregation.SUM, QUANTITY_FIELD, 0)


def reads_each_use(meter: Meter, feature_code: str) -> bool:
    """Whether it matters to the meter in how many events the units of the feature come."""
    return meter.event == feature_code and meter.aggregation is not Aggregation.SUM


def prices_in_arrears(plan: Plan, feature_code: str, *, meters: Iterable[Meter]) -> list[Price]:
    """The plan's prices in arrears on what checks of the feature leave."""
    counted = {meter.code for meter in meters if counts_checks_of(meter, feature_code)}
    return [price for price in plan.prices if price.pay is Pay.ARREARS and price.meter in counted]


def why_not_told_at_once(prices: Sequence[Price], *, meters: Iterable[Meter]) -> str:
    """Why prices in arrears on one feature cannot be told with each act; "" where they can.

    The bounds of a price (`minimum_amount`, `maximum_amount`) are those of a period; no act is told of them.
    """
    if len(prices) > 1:
        return f"prices {prices[0].code!r} and {prices[1].code!r} are both on it"
    for price in prices:
        if any(meter.code == price.meter and meter.group_by for meter in meters):
            return f"price {price.code!r} is told by groups"
        try:
            tariff_of(price, price_id=price.code, currency="", window=Window(kind=WindowKind.LIFETIME))
        except InvalidInput as fault:
            return f"price {price.code!r} cannot: {fault.detail}"
    return ""


def _whole_tiers(table: RateTable) -> list[RateTier]:
    """The tiers on what the scripts count: packages rounded up, or plain units."""
    exact = table.package_rounding is PackageRounding.NONE
    size = table.package_units if exact else 1
    tiers = [
        RateTier(
            upto=None if tier.upto is None else tier.upto * size,
            unit_nanos=Fraction(tier.unit_nanos) / size,
            flat_nanos=tier.flat_nanos,
        )
        for tier in table.tiers
    ]
    if not table.free_units:
        return tiers
    free = Fraction(table.free_units, 1 if exact else table.package_units)
    if free.denominator != 1:
        raise InvalidInput("the free units of a prepaid price are whole packages", field="free_units")
    shifted = [
        RateTier(
            upto=None if tier.upto is None else tier.upto + free,
            unit_nanos=tier.unit_nanos,
            flat_nanos=tier.flat_nanos,
        )
        for tier in tiers
    ]
    return [RateTier(upto=free, unit_nanos=Fraction(0)), *shifted]


def _tier(tier: RateTier, batch: int, *, place: str) -> Tier:
    if tier.upto is not None and tier.upto.denominator != 1:
        raise InvalidInput("the tiers of a prepaid price end at whole units", field=f"{place}upto")
    if tier.flat_nanos.denominator != 1:
        raise InvalidInput("a prepaid flat amount is a whole number of nanos", field=f"{place}flat_amount")
    upto = 0 if tier.upto is None else tier.upto.numerator
    nanos = (tier.unit_nanos * batch).numerator
    _fits(upto, "a tier's bound", field=f"{place}upto")
    _fits(nanos, "its rate over the common denominator", field=f"{place}unit_amount")
    _fits(tier.flat_nanos.numerator, "a flat amount in nanos", field=f"{place}flat_amount")
    return Tier(upto=upto, nanos_per_batch=nanos, flat_nanos=tier.flat_nanos.numerator)


def _fits(value: int, what: str, *, field: str) -> None:
    if value > MAX_EXACT:
        raise InvalidInput(
            f"a prepaid price is computed in integers below 2^53, and {what} is {value}", field=field
        )
