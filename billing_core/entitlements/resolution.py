"""What a customer may do, resolved: all its sources and an instant become the gateway's snapshot.

Every feature that a source speaks of stands in the snapshot, also the disabled ones; a feature that is missing is
not entitled. Windows follow the calendar of the contract's zone or the subscription's day; a price is counted by
billing period, which is the window of its tariff, and anew from the instant at which the plan came into force. The
snapshot names edges only so far ahead; `stale_at` is the instant at which it must be resolved and projected again,
because its edges come near their end or because a source begins or ends.

Counters are named after feature and window (`requests@month`), so they outlive a change of plan: what was used
stays used, unless the limit starts anew with the plan (`since_ms`). Prices in arrears are told only where money is
capped: then each act has its price at once, out of no wallet.

What is decided in slices is decided for many requests at once. So a feature is sliced only where it makes no
difference: nothing bounds how often or how many at a time, one wallet pays at most, and no meter counts events.

Worked example: 1,000 requests a calendar month in UTC, hard, with 5 percent grace, resolved on 17 March 2026, is
units 1000 and ceiling 1050 of counter `requests@month`, with edges 1 February, 1 March, 1 April and so on until May
2028.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from billing_core.catalog.document import Enforcement, FeatureKind, Pay
from billing_core.catalog.guard import Counts, Guard, Limit, LimitAnchor, OnPlanChange, Rate, SpendCap
from billing_core.catalog.tariff import prices_in_arrears, reads_each_use, tariff_of, why_not_told_at_once
from billing_core.contract import snapshot
from billing_core.entitlements.budget import NodeTerms, customer_caps, node_terms
from billing_core.entitlements.source import NOTHING, Combined, Holdings, Subscribed, combine
from billing_core.entitlements.window import LIFETIME, rolling_window, stale_at, window_of
from billing_core.values.clock import EPOCH, to_ms
from billing_core.values.period import Interval, calendar_anchor, zone_of

MOST_WINDOWS_BEFORE = 120
"""How far back a list of edges begins at most, so that what was carried over can be told."""

_KINDS = {
    FeatureKind.SWITCH: snapshot.FeatureKind.SWITCH,
    FeatureKind.STATIC: snapshot.FeatureKind.STATIC,
    FeatureKind.METERED: snapshot.FeatureKind.METERED,
    FeatureKind.GAUGE: snapshot.FeatureKind.GAUGE,
}
_FREE = snapshot.Guard()
_COUNTS = {Counts.REQUESTS: snapshot.RateCount.REQUESTS, Counts.UNITS: snapshot.RateCount.UNITS}


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is told, and when it must be told again (None: not because of time)."""

    snapshot: snapshot.Snapshot
    stale_at: datetime | None


class CustomerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the snapshot says apart from features. `version` grows each time it is resolved.

    Without a subscription, windows follow the customer's own zone and the day since when there is the customer.
    """

    version: int
    status: snapshot.Status
    clock_offset_ms: int
    time_zone: str = "UTC"
    since_at: datetime = EPOCH


def resolve(
    customer: CustomerFacts, subscribed: Subscribed | None, *, holdings: Holdings = NOTHING, now: datetime
) -> Resolution:
    """The customer's snapshot at `now`, an instant on the tenant's clock.

    Without a subscription only trials entitle; what is in `subscribed` is taken to be in force.
    """
    combined = combine(subscribed, holdings, now=now)
    builder = _Builder(customer, subscribed, now=now)
    budgets = builder.budgets(combined, holdings)
    capped = {cap.currency for budget in budgets.values() for cap in budget.caps}
    told = snapshot.Snapshot(
        version=customer.version,
        status=customer.status,
        clock_offset_ms=customer.clock_offset_ms,
        features={
            code: builder.entitlement(one, capped=capped, budgets=budgets.values())
            for code, one in combined.items()
        },
        budgets=budgets,
    )
    ends = [at for window in builder.windows if (at := stale_at(window, now=now)) is not None]
    changes_at = holdings.changes_at(now)
    return Resolution(snapshot=told, stale_at=min([*ends, *([changes_at] if changes_at else [])], default=None))


class _Builder:
    """Makes the parts of one snapshot; a window that many of them have is made once."""

    def __init__(self, customer: CustomerFacts, subscribed: Subscribed | None, *, now: datetime) -> None:
        self._subscribed = subscribed
        self._now = now
        self._zone: ZoneInfo = zone_of(subscribed.time_zone if subscribed else customer.time_zone)
        self._started_at = subscribed.started_at if subscribed else customer.since_at
        self._windows: dict[tuple[Interval, LimitAnchor, int], snapshot.Window] = {}
        self._periods: list[snapshot.Window] = []

    @property
    def windows(self) -> Iterable[snapshot.Window]:
        """All windows that were told."""
        return (*self._windows.values(), *self._periods)

    def entitlement(
        self, one: Combined, *, capped: set[str], budgets: Iterable[snapshot.Budget]
    ) -> snapshot.Entitlement:
        """What the customer may do with one feature; prices in arrears are told in the capped currencies."""
        terms, plan = one.terms, self._subscribed and self._subscribed.plan.terms.plan
        guard = self._guard(terms.feature, terms)
        guards = [guard, *(budget.guards.get(terms.feature, _FREE) for budget in budgets)]
        is_shadow = plan is not None and plan.enforcement is Enforcement.SHADOW
        tariffs = self._tariffs(terms.feature, capped=capped) if one.kind is FeatureKind.METERED else ()
        is_told_apart = is_shadow or len(tariffs) > 1 or any(map(_counts_requests, guards))
        return snapshot.Entitlement(
            kind=_KINDS[one.kind],
            enabled=terms.enabled,
            static_value=terms.value,
            guard=guard,
            tariffs=tariffs,
            outage_units=terms.outage_units,
            shadow=is_shadow,
            slice_units=0 if is_told_apart or self._reads_each_use(terms.feature) else terms.slice_units,
            plan=plan.code if plan is not None else "",
        )

    def _reads_each_use(self, feature: str) -> bool:
        """Whether the plan has a meter to which it matters in how many events the units come."""
        meters = self._subscribed.plan.terms.meters if self._subscribed else ()
        return any(reads_each_use(meter, feature) for meter in meters)

    def budgets(self, combined: Mapping[str, Combined], holdings: Holdings) -> dict[str, snapshot.Budget]:
        """What holds the nodes back, the customer's own spend caps among it."""
        plan = self._subscribed and self._subscribed.plan.terms.plan
        plan_caps, currency = (plan.spend_caps, plan.currency) if plan else ((), "")
        entitled = {code: one.terms for code, one in combined.items()}
        caps = customer_caps(holdings.budgets, plan_caps, currency=currency)
        nodes = node_terms(holdings.budgets, entitled, plan_caps=plan_caps, currency=currency)
        told = {node: self._budget(terms, currency=currency) for node, terms in nodes.items()}
        return told | ({"": self._budget(NodeTerms(caps=caps), currency=currency)} if caps else {})

    def _budget(self, terms: NodeTerms, *, currency: str) -> snapshot.Budget:
        return snapshot.Budget(
            guards={feature: self._guard(feature, guard) for feature, guard in terms.guards.items()},
            caps=tuple(self._cap(cap, currency=currency) for cap in terms.caps.values()),
        )

    def _guard(self, feature: str, guard: Guard) -> snapshot.Guard:
        return snapshot.Guard(
            limits=tuple(self._limit(feature, limit) for limit in guard.limits),
            rates=tuple(_rate(feature, rate) for rate in guard.rates),
            concurrent=-1 if guard.concurrent is None else guard.concurrent,
        )

    def _limit(self, feature: str, limit: Limit) -> snapshot.Limit:
        changed_at = self._subscribed and self._subscribed.changed_at
        is_reset = limit.on_plan_change is OnPlanChange.RESET and changed_at is not None
        before = -(-limit.rollover_units // max(1, limit.units))
        return snapshot.Limit(
            counter=f"{feature}@{limit.window}",
            units=limit.units,
            ceiling=limit.ceiling,
            window=self._window(limit.interval, limit.anchor, before=min(max(1, before), MOST_WINDOWS_BEFORE)),
            since_ms=to_ms(changed_at) if is_reset and changed_at else 0,
            carry_units=limit.rollover_units,
        )

    def _cap(self, cap: SpendCap, *, currency: str) -> snapshot.SpendCap:
        return snapshot.SpendCap(
            counter=cap.counter_in(currency),
            currency=cap.currency or currency,
            nanos=cap.nanos,
            ceiling=cap.ceiling,
            window=self._window(cap.interval, cap.anchor),
        )

    def _window(self, interval: Interval | None, anchor: LimitAnchor, *, before: int = 1) -> snapshot.Window:
        if interval is None:
            return LIFETIME
        name = interval, anchor, before
        if name not in self._windows:
            self._windows[name] = self._made_window(interval, anchor, before=before)
        return self._windows[name]

    def _made_window(self, interval: Interval, anchor: LimitAnchor, *, before: int) -> snapshot.Window:
        if anchor is LimitAnchor.ROLLING:
            return rolling_window(interval)
        anchor_at = self._started_at
        if anchor is LimitAnchor.CALENDAR:
            anchor_at = calendar_anchor(interval, self._started_at, zone=self._zone)
        return window_of(anchor_at, interval, zone=self._zone, now=self._now, before=before)

    def _tariffs(self, feature: str, *, capped: set[str]) -> tuple[snapshot.Tariff, ...]:
        """The feature's prepaid prices, in the order of the wallets; else, where money is capped, the other one."""
        subscribed = self._subscribed
        if subscribed is None:
            return ()
        terms = subscribed.plan.terms
        plan = terms.plan
        prices = [price for price in plan.prices if price.pay is Pay.PREPAID and price.feature == feature]
        if not prices and plan.currency in capped:
            arrears = prices_in_arrears(plan, feature, meters=terms.meters)
            prices = [] if why_not_told_at_once(arrears, meters=terms.meters) else arrears
        if not prices:
            return ()
        window = self._period(subscribed)
        return tuple(
            msgspec.structs.replace(
                tariff_of(
                    price,
                    price_id=subscribed.plan.price_id(price),
                    currency=price.currency or plan.currency,
                    window=window,
                ),
                prepaid=price.pay is Pay.PREPAID,
            )
            for price in prices
        )

    def _period(self, subscribed: Subscribed) -> snapshot.Window:
        """The billing periods, the first of this plan from when the plan came into force."""
        if not self._periods:
            since_at = subscribed.changed_at or subscribed.started_at
            interval = subscribed.plan.terms.plan.interval
            anchor_at, zone, now = subscribed.anchor_at, self._zone, self._now
            self._periods.append(window_of(anchor_at, interval, zone=zone, now=now, since_at=since_at))
        return self._periods[0]


def _counts_requests(guard: snapshot.Guard) -> bool:
    """Whether it matters how many requests there are, and not only how many units they ask for together."""
    return bool(guard.rates) or guard.concurrent >= 0


def _rate(feature: str, rate: Rate) -> snapshot.Rate:
    return snapshot.Rate(
        counter=f"{feature}~{rate.bucket}",
        units=rate.units,
        per_ms=rate.per.ms,
        burst_units=rate.burst_units,
        counts=_COUNTS[rate.counts],
    )
