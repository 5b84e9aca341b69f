"""What a customer may do, resolved: the plan, the subscription and an instant become the gateway's snapshot.

Every feature that the plan entitles stands in the snapshot, also the disabled ones; a feature that is missing is
not entitled. A limit's windows follow the calendar of the contract's zone or the subscription's anchor; a prepaid
price is counted by billing period, which is the window of its tariff. The snapshot names edges only so far ahead;
`stale_at` is the instant at which it must be resolved and projected again.

Worked example: 1,000 requests a calendar month in UTC, resolved on 17 March 2026, is a limit of 1000 with edges 1
February, 1 March, 1 April and so on until May 2028.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.catalog.catalog import PlanVersion
from billing_core.catalog.document import FeatureKind, LimitAnchor, LimitMode, Pay, PlanEntitlement
from billing_core.catalog.tariff import tariff_of
from billing_core.contract import snapshot
from billing_core.entitlements.window import LIFETIME, stale_at, window_of
from billing_core.values.period import calendar_anchor, zone_of

_KINDS = {
    FeatureKind.SWITCH: snapshot.FeatureKind.SWITCH,
    FeatureKind.STATIC: snapshot.FeatureKind.STATIC,
    FeatureKind.METERED: snapshot.FeatureKind.METERED,
}


class Subscribed(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a subscription that entitlements follow.

    Billing periods are counted from `anchor_at`, limits that follow the subscription from `started_at`: the two
    differ where the plan is billed by the calendar.
    """

    plan: PlanVersion
    started_at: datetime
    anchor_at: datetime
    time_zone: str


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is told, and when it must be told again (None: not because of time)."""

    snapshot: snapshot.Snapshot
    stale_at: datetime | None


class CustomerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the snapshot says apart from features. `version` grows each time it is resolved."""

    version: int
    status: snapshot.Status
    clock_offset_ms: int


def resolve(customer: CustomerFacts, subscribed: Subscribed | None, *, now: datetime) -> Resolution:
    """The customer's snapshot at `now`, an instant on the tenant's clock; without a subscription, no features."""
    features: dict[str, snapshot.Entitlement] = {}
    if subscribed is not None:
        for one in subscribed.plan.terms.plan.entitlements:
            features[one.feature] = _entitlement(subscribed, one, now=now)
    windows = [window for entitlement in features.values() for window in _windows(entitlement)]
    ends = [at for window in windows if (at := stale_at(window, now=now)) is not None]
    told = snapshot.Snapshot(
        version=customer.version,
        status=customer.status,
        clock_offset_ms=customer.clock_offset_ms,
        features=features,
    )
    return Resolution(snapshot=told, stale_at=min(ends, default=None))


def _entitlement(subscribed: Subscribed, one: PlanEntitlement, *, now: datetime) -> snapshot.Entitlement:
    return snapshot.Entitlement(
        kind=_KINDS[subscribed.plan.terms.feature(one.feature).kind],
        enabled=one.enabled,
        static_value=one.value,
        guard=snapshot.Guard(limits=_limits(subscribed, one, now=now)),
        tariffs=_tariffs(subscribed, one.feature, now=now),
    )


def _limits(subscribed: Subscribed, one: PlanEntitlement, *, now: datetime) -> tuple[snapshot.Limit, ...]:
    """The plan's limit, counted under the feature's name and its interval; none where it has none."""
    if one.limit_units is None:
        return ()
    interval = one.limit_interval.value if one.limit_interval else "lifetime"
    limit = snapshot.Limit(
        counter=f"{one.feature}@{interval}",
        units=one.limit_units,
        ceiling=-1 if one.limit_mode is LimitMode.SOFT else one.limit_units,
        window=_limit_window(subscribed, one, now=now),
    )
    return (limit,)


def _limit_window(subscribed: Subscribed, one: PlanEntitlement, *, now: datetime) -> snapshot.Window:
    interval = one.limit_interval
    if interval is None:  # no limit, or one for the whole life
        return LIFETIME
    zone = zone_of(subscribed.time_zone)
    started_at = subscribed.started_at
    calendar = one.limit_anchor is LimitAnchor.CALENDAR
    anchor_at = calendar_anchor(interval, started_at, zone=zone) if calendar else started_at
    return window_of(anchor_at, interval, zone=zone, now=now)


def _tariffs(subscribed: Subscribed, feature: str, *, now: datetime) -> tuple[snapshot.Tariff, ...]:
    """The feature's prepaid price, if the plan has one; a catalog has at most one."""
    plan = subscribed.plan.terms.plan
    prices = [price for price in plan.prices if price.pay is Pay.PREPAID and price.feature == feature]
    zone = zone_of(subscribed.time_zone)
    return tuple(
        tariff_of(
            price,
            price_id=subscribed.plan.price_id(price),
            currency=plan.currency,
            window=window_of(subscribed.anchor_at, plan.interval, zone=zone, now=now),
        )
        for price in prices
    )


def _windows(entitlement: snapshot.Entitlement) -> list[snapshot.Window]:
    limits = entitlement.guard.limits
    return [*(limit.window for limit in limits), *(tariff.window for tariff in entitlement.tariffs)]
