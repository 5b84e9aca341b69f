"""What makes a document a catalog: the rules, and every fault told by its place.

All faults of a document are found in one reading; the first is the error's field and rule, the others are named in
its text, so that an operator does not repair a catalog one upload at a time. The rules of one price stand in
`price_rule`; here are those that need the whole document: codes that are unique, names that exist, plans whose
parts agree with each other.

Worked example: a graduated price whose table ends at 10 is refused as
`plans[0].prices[1].tiers: the last tier must be open (leave out upto), or units above 10 have no price`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from billing_core.catalog.document import (
    QUANTITY_FIELD,
    Addon,
    Aggregation,
    CatalogDocument,
    Feature,
    FeatureKind,
    Meter,
    Plan,
)
from billing_core.catalog.fault import Fault, raise_first
from billing_core.catalog.guard import SpendLevel
from billing_core.catalog.guard_rule import cap_faults, entitlement_faults
from billing_core.catalog.price_rule import amount_faults, price_faults
from billing_core.catalog.tariff import counts_checks_of, prices_in_arrears, reads_each_use, why_not_told_at_once
from billing_core.errors import InvalidInput
from billing_core.values.ids import is_code
from billing_core.values.money import is_unit, minor_exponent
from billing_core.values.period import Interval, zone_of

MAX_SCALE = 12
MAX_GROUP_FIELDS = 4
SHORT_INTERVALS = frozenset({Interval.MINUTE, Interval.HOUR})


class _Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """The document's meters and features by code, and its units."""

    meters: dict[str, Meter]
    features: dict[str, Feature]
    units: frozenset[str]


def check_document(document: CatalogDocument) -> None:
    """Raise InvalidInput unless the document is a catalog."""
    raise_first(list(document_faults(document)))


def document_faults(document: CatalogDocument) -> Iterator[Fault]:
    """Every fault, in the order of the document."""
    yield from _duplicates("units", (unit.code for unit in document.units))
    yield from _duplicates("meters", (meter.code for meter in document.meters))
    yield from _duplicates("features", (feature.code for feature in document.features))
    yield from _duplicates("plans", (plan.code for plan in document.plans))
    yield from _duplicates("addons", (addon.code for addon in document.addons))
    shelf = _Shelf(
        meters={meter.code: meter for meter in document.meters},
        features={feature.code: feature for feature in document.features},
        units=frozenset(unit.code for unit in document.units),
    )
    for index, unit in enumerate(document.units):
        if not is_unit(unit.code):
            rule = (
                f"{unit.code!r} must be 2 to 16 capital letters and digits, a letter first, and no currency's code"
            )
            yield Fault(f"units[{index}].code", rule)
    for index, meter in enumerate(document.meters):
        yield from _meter_faults(meter, f"meters[{index}]")
    for index, feature in enumerate(document.features):
        yield from _feature_faults(feature, f"features[{index}]", shelf=shelf)
    for index, plan in enumerate(document.plans):
        yield from _plan_faults(plan, f"plans[{index}]", shelf=shelf)
    for index, addon in enumerate(document.addons):
        yield from _addon_faults(addon, f"addons[{index}]", shelf=shelf)


def _duplicates(path: str, codes: Iterable[str], *, member: str = "code") -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, code in enumerate(codes):
        if code in first:
            yield Fault(f"{path}[{index}].{member}", f"{code!r} is already taken by {path}[{first[code]}]")
        first.setdefault(code, index)


def _meter_faults(meter: Meter, path: str) -> Iterator[Fault]:
    if meter.aggregation is Aggregation.COUNT:
        if meter.field:
            yield Fault(f"{path}.field", "a count reads no field")
    elif not is_code(meter.field):
        yield Fault(f"{path}.field", f"{meter.aggregation} needs the name of a field")
    if not 0 <= meter.scale <= MAX_SCALE:
        yield Fault(f"{path}.scale", f"must be from 0 to {MAX_SCALE}")
    elif meter.scale and meter.aggregation in {Aggregation.COUNT, Aggregation.UNIQUE}:
        yield Fault(f"{path}.scale", f"a {meter.aggregation} is a whole number")
    if len(meter.group_by) > MAX_GROUP_FIELDS:
        yield Fault(f"{path}.group_by", f"at most {MAX_GROUP_FIELDS} fields")
    for index, name in enumerate(meter.group_by):
        if not is_code(name) or name == QUANTITY_FIELD:
            yield Fault(f"{path}.group_by[{index}]", f"{name!r} cannot be the name of a property to group by")
        elif name in meter.group_by[:index]:
            yield Fault(f"{path}.group_by[{index}]", f"{name!r} is named twice")


def _feature_faults(feature: Feature, path: str, *, shelf: _Shelf) -> Iterator[Fault]:
    if feature.kind not in {FeatureKind.METERED, FeatureKind.GAUGE}:
        if feature.meter:
            yield Fault(f"{path}.meter", f"a {feature.kind} feature has no meter")
        return
    meter = shelf.meters.get(feature.meter)
    if not feature.meter:
        yield Fault(f"{path}.meter", f"a {feature.kind} feature names its meter")
    elif meter is None:
        yield Fault(f"{path}.meter", f"there is no meter {feature.meter!r}")
    elif feature.kind is FeatureKind.GAUGE:
        if not _shows_level_of(meter, feature.code):
            rule = f"its meter must be the max or the latest {QUANTITY_FIELD} of event {feature.code!r} at scale 0"
            yield Fault(f"{path}.meter", rule)
    elif not counts_checks_of(meter, feature.code):
        rule = f"its meter must sum {QUANTITY_FIELD} of event {feature.code!r} at scale 0: what a check leaves"
        yield Fault(f"{path}.meter", rule)


def _shows_level_of(meter: Meter, feature_code: str) -> bool:
    of_level = meter.aggregation in {Aggregation.MAX, Aggregation.LATEST}
    return of_level and (meter.event, meter.field, meter.scale) == (feature_code, QUANTITY_FIELD, 0)


def _plan_faults(plan: Plan, path: str, *, shelf: _Shelf) -> Iterator[Fault]:
    try:
        minor_exponent(plan.currency)
    except InvalidInput as fault:
        yield Fault(f"{path}.currency", fault.detail)
    try:
        zone_of(plan.time_zone)
    except InvalidInput as fault:
        yield Fault(f"{path}.time_zone", fault.detail)
    if plan.interval in SHORT_INTERVALS:
        yield Fault(f"{path}.interval", "a plan is billed by day, week, month, quarter or year")
    yield from amount_faults(plan.fee_amount, f"{path}.fee_amount", whole_minor_of=plan.currency)
    yield from _duplicates(f"{path}.entitlements", (one.feature for one in plan.entitlements), member="feature")
    for index, one in enumerate(plan.entitlements):
        feature = shelf.features.get(one.feature)
        yield from entitlement_faults(one, f"{path}.entitlements[{index}]", feature=feature)
        for meter in shelf.meters.values():
            if one.slice_units and reads_each_use(meter, one.feature):
                rule = f"one event tells of a slice, and meter {meter.code!r} reads a {meter.aggregation} of events"
                yield Fault(f"{path}.entitlements[{index}].slice_units", rule)
    yield from _duplicates(f"{path}.prices", (price.code for price in plan.prices))
    for index, price in enumerate(plan.prices):
        where = f"{path}.prices[{index}]"
        meter = shelf.meters.get(price.meter)
        if meter is None:
            yield Fault(f"{where}.meter", f"there is no meter {price.meter!r}")
        yield from price_faults(price, where, meter=meter, units=shelf.units)
    yield from _prepaid_faults(plan, path, shelf=shelf)
    yield from _spend_cap_faults(plan, path, shelf=shelf)


def _addon_faults(addon: Addon, path: str, *, shelf: _Shelf) -> Iterator[Fault]:
    if not addon.entitlements:
        yield Fault(f"{path}.entitlements", "an add-on adds something")
    yield from _duplicates(f"{path}.entitlements", (one.feature for one in addon.entitlements), member="feature")
    for index, one in enumerate(addon.entitlements):
        where = f"{path}.entitlements[{index}]"
        yield from entitlement_faults(one, where, feature=shelf.features.get(one.feature))
        if not one.enabled:
            yield Fault(f"{where}.enabled", "an add-on adds, it never takes away")


def _spend_cap_faults(plan: Plan, path: str, *, shelf: _Shelf) -> Iterator[Fault]:
    """Caps are sound, and money that they cap is seen while it is spent."""
    first: dict[tuple[SpendLevel, str], int] = {}
    for index, cap in enumerate(plan.spend_caps):
        where = f"{path}.spend_caps[{index}]"
        yield from cap_faults(cap, where, currency=plan.currency, units=shelf.units)
        place = first.setdefault((cap.level, cap.counter_in(plan.currency)), index)
        if place != index:
            yield Fault(where, f"spend_caps[{place}] caps the same level, currency and windows")
    if all((cap.currency or plan.currency) != plan.currency for cap in plan.spend_caps):
        return
    for one in plan.entitlements:
        prices = prices_in_arrears(plan, one.feature, meters=shelf.meters.values())
        reason = why_not_told_at_once(prices, meters=shelf.meters.values())
        if reason:
            rule = f"what {one.feature!r} costs cannot be told with each act, so no cap would see it: {reason}"
            yield Fault(f"{path}.spend_caps", rule)


def _prepaid_faults(plan: Plan, path: str, *, shelf: _Shelf) -> Iterator[Fault]:
    """A prepaid price is charged at the gate, so the gate knows its feature, and one price of it in each wallet."""
    entitled = {one.feature for one in plan.entitlements}
    charged: dict[tuple[str, str], str] = {}
    for index, price in enumerate(plan.prices):
        if not price.feature:
            continue
        where, feature = f"{path}.prices[{index}]", shelf.features.get(price.feature)
        if feature is None:
            yield Fault(f"{where}.feature", f"there is no feature {price.feature!r}")
        elif feature.kind is not FeatureKind.METERED:
            yield Fault(f"{where}.feature", f"a {feature.kind} feature has no quantity to charge for")
        elif feature.meter != price.meter:
            yield Fault(f"{where}.meter", f"checks on {price.feature!r} are counted by the meter {feature.meter!r}")
        elif price.feature not in entitled:
            yield Fault(
                f"{where}.feature", f"the plan has no entitlement of {price.feature!r}, so nobody could pay"
            )
        place = price.feature, price.currency or plan.currency
        if place in charged:
            yield Fault(f"{where}.feature", f"{price.feature!r} is already charged by price {charged[place]!r}")
        charged.setdefault(place, price.code)
