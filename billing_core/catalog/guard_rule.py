"""The rules of guards: what a limit, a rate and a spend cap must say, and what a kind of feature can be held to.

The same rules hold wherever a guard is written: in a plan, an add-on, an override, a trial or a budget.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from billing_core.catalog.document import Feature, FeatureKind
from billing_core.catalog.fault import Fault
from billing_core.catalog.guard import (
    EntitlementTerms,
    Guard,
    Limit,
    LimitAnchor,
    LimitMode,
    OnOutage,
    OnPlanChange,
    Rate,
    SpendCap,
    ceiling_of,
)
from billing_core.catalog.price_rule import amount_faults
from billing_core.values.money import MAX_EXACT, is_currency, nanos_of

MAX_LIMITS = 8
MAX_RATES = 4
MAX_GRACE_PERCENT = 1_000
_BELOW_2_53 = "2^53 - 1"


def entitlement_faults(one: EntitlementTerms, path: str, *, feature: Feature | None) -> Iterator[Fault]:
    """Every fault of one entitlement; `feature` is the one it names, where that exists."""
    if feature is None:
        yield Fault(f"{path}.feature", f"there is no feature {one.feature!r}")
        return
    if feature.kind is FeatureKind.STATIC and one.enabled and not one.value:
        yield Fault(f"{path}.value", "a static feature that is enabled has a value")
    if feature.kind is not FeatureKind.STATIC and one.value:
        yield Fault(f"{path}.value", f"a {feature.kind} feature has no value")
    yield from guard_faults(one, path, kind=feature.kind)
    for level, guard in one.levels.told.items():
        yield from guard_faults(guard, f"{path}.levels.{level}", kind=feature.kind)
    yield from _outage_faults(one, path, kind=feature.kind)
    yield from _slice_faults(one, path, kind=feature.kind)


def guard_faults(guard: Guard, path: str, *, kind: FeatureKind) -> Iterator[Fault]:
    """Every fault of a guard of a feature of that kind."""
    yield from _kind_faults(guard, path, kind=kind)
    if len(guard.limits) > MAX_LIMITS:
        yield Fault(f"{path}.limits", f"at most {MAX_LIMITS} limits")
    if len(guard.rates) > MAX_RATES:
        yield Fault(f"{path}.rates", f"at most {MAX_RATES} rates")
    windows: dict[str, int] = {}
    for index, limit in enumerate(guard.limits):
        where = f"{path}.limits[{index}]"
        yield from _limit_faults(limit, where)
        first = windows.setdefault(limit.window, index)
        if first != index:
            yield Fault(where, f"limits[{first}] has the same windows ({limit.window}); one limit says all of them")
    buckets: dict[str, int] = {}
    for index, rate in enumerate(guard.rates):
        where = f"{path}.rates[{index}]"
        yield from _rate_faults(rate, where)
        first = buckets.setdefault(rate.bucket, index)
        if first != index:
            yield Fault(where, f"rates[{first}] counts the same ({rate.bucket})")
    if guard.concurrent is not None and not 1 <= guard.concurrent <= MAX_EXACT:
        yield Fault(f"{path}.concurrent", f"must be a whole number from 1 to {_BELOW_2_53}")


def cap_faults(cap: SpendCap, path: str, *, currency: str, units: Collection[str]) -> Iterator[Fault]:
    """Every fault of a spend cap; `currency` is what it means where it names none, `units` are the tenant's own."""
    named = cap.currency or currency
    if not named:
        yield Fault(f"{path}.currency", "names the currency or credit unit that is capped")
    elif not is_currency(named) and named not in units:
        rule = f"{named!r} is neither an ISO 4217 currency nor a unit that the catalog declares"
        yield Fault(f"{path}.currency", rule)
    faults = list(amount_faults(cap.amount, f"{path}.amount"))
    yield from faults
    if not faults:
        nanos = nanos_of(cap.amount, field="amount")
        highest = nanos * (100 + max(0, cap.grace_percent)) / 100
        if nanos.denominator != 1 or highest > MAX_EXACT:
            yield Fault(f"{path}.amount", "at most 9 digits behind the point, and with its grace below 2^53 nanos")
    yield from _grace_faults(cap, path)
    if cap.anchor is LimitAnchor.ROLLING:
        yield Fault(f"{path}.anchor", "money is capped by calendar, by subscription or for a lifetime")
    else:
        yield from _window_faults(cap, path)


def _kind_faults(guard: Guard, path: str, *, kind: FeatureKind) -> Iterator[Fault]:
    if kind is FeatureKind.METERED:
        return
    if kind is not FeatureKind.GAUGE:
        for word in ("limits", "rates", "concurrent"):
            if getattr(guard, word):
                yield Fault(f"{path}.{word}", f"a {kind} feature cannot be limited")
        return
    for word in ("rates", "concurrent"):
        if getattr(guard, word):
            yield Fault(f"{path}.{word}", "a gauge has a level: only a lifetime limit can hold it")
    for index, limit in enumerate(guard.limits):
        if limit.anchor is not LimitAnchor.LIFETIME:
            yield Fault(f"{path}.limits[{index}].anchor", "a gauge is limited for its lifetime: it has no windows")
        if limit.on_plan_change is OnPlanChange.RESET:
            yield Fault(f"{path}.limits[{index}].on_plan_change", "what a gauge shows is there, whatever the plan")


def _limit_faults(limit: Limit, path: str) -> Iterator[Fault]:
    if not 0 <= limit.units <= MAX_EXACT:
        yield Fault(f"{path}.units", f"must be a whole number from 0 to {_BELOW_2_53}")
    yield from _grace_faults(limit, path)
    yield from _window_faults(limit, path)
    if not 0 <= limit.rollover_units <= MAX_EXACT:
        yield Fault(f"{path}.rollover_units", f"must be a whole number from 0 to {_BELOW_2_53}")
    elif limit.rollover_units and limit.anchor in {LimitAnchor.LIFETIME, LimitAnchor.ROLLING}:
        rule = f"a {limit.anchor} limit has no window after this one to carry units into"
        yield Fault(f"{path}.rollover_units", rule)
    highest = max(limit.units, ceiling_of(limit.units, limit.mode, grace_percent=limit.grace_percent))
    if highest + limit.rollover_units > MAX_EXACT >= limit.units:
        yield Fault(f"{path}.units", f"with grace and rollover at most {_BELOW_2_53}")


def _grace_faults(bound: Limit | SpendCap, path: str) -> Iterator[Fault]:
    if not 0 <= bound.grace_percent <= MAX_GRACE_PERCENT:
        yield Fault(f"{path}.grace_percent", f"must be from 0 to {MAX_GRACE_PERCENT}")
    elif bound.grace_percent and bound.mode is LimitMode.SOFT:
        yield Fault(f"{path}.grace_percent", "a soft limit never refuses, so it has no grace")


def _window_faults(bound: Limit | SpendCap, path: str) -> Iterator[Fault]:
    lifetime = bound.anchor is LimitAnchor.LIFETIME
    if lifetime and bound.interval is not None:
        yield Fault(f"{path}.interval", "a lifetime limit has no interval")
    if not lifetime and bound.interval is None:
        yield Fault(f"{path}.interval", f"a limit per {bound.anchor} window needs its interval")


def _rate_faults(rate: Rate, path: str) -> Iterator[Fault]:
    most = MAX_EXACT // rate.per.ms
    for word, units in (("units", rate.units), ("burst", rate.burst_units)):
        if not 1 <= units <= most:
            yield Fault(f"{path}.{word}", f"must be a whole number from 1 to {most} for a rate per {rate.per}")


def _outage_faults(one: EntitlementTerms, path: str, *, kind: FeatureKind) -> Iterator[Fault]:
    allows = one.on_outage is OnOutage.ALLOW
    if allows and kind is not FeatureKind.METERED:
        yield Fault(f"{path}.on_outage", "units are leased for an outage, and only a metered feature has units")
    elif allows and not 1 <= one.outage_units <= MAX_EXACT:
        yield Fault(f"{path}.outage_units", f"to allow in an outage needs units to lease, from 1 to {_BELOW_2_53}")
    elif not allows and one.outage_units:
        yield Fault(f"{path}.outage_units", 'is only read where on_outage is "allow"')


def _slice_faults(one: EntitlementTerms, path: str, *, kind: FeatureKind) -> Iterator[Fault]:
    if not one.slice_units:
        return
    if kind is not FeatureKind.METERED:
        yield Fault(f"{path}.slice_units", "a slice is of units, and only a metered feature has units")
    elif not 1 <= one.slice_units <= MAX_EXACT:
        yield Fault(f"{path}.slice_units", f"must be a whole number from 1 to {_BELOW_2_53}, or 0 for none")
    elif any(guard.rates or guard.concurrent is not None for guard in (one, *one.levels.told.values())):
        yield Fault(f"{path}.slice_units", "what has rates or a bound on open holds is decided one by one")
