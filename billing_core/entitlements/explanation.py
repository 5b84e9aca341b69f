"""An explanation: the snapshot in words for people, with the sources that each part came from.

It is made of the same resolution that the gateway is told, so what it says is what is decided by; only how much is
used stands elsewhere, in the live counters of the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from billing_core.contract import snapshot
from billing_core.contract.path import CUSTOMER_LEVEL
from billing_core.entitlements.source import Combined, Part
from billing_core.entitlements.window import bounds_of
from billing_core.values.clock import from_ms


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    """A limit and the window of now. No `ceiling`: nothing is refused. No bounds: rolling, or for a lifetime."""

    counter: str
    units: int
    ceiling: int | None
    carry_units: int
    window_start_at: datetime | None
    window_end_at: datetime | None


class RateView(msgspec.Struct, frozen=True, kw_only=True):
    """A rate: `units` each `per_ms`, at most `burst_units` at once."""

    counter: str
    units: int
    per_ms: int
    burst_units: int


class GuardView(msgspec.Struct, frozen=True, kw_only=True):
    """What holds one feature back at one place."""

    feature: str
    limits: tuple[LimitView, ...]
    rates: tuple[RateView, ...]
    concurrent: int | None


class PriceView(msgspec.Struct, frozen=True, kw_only=True):
    """A price that acts are told of; a prepaid one is paid out of the wallet of its currency."""

    price_id: str
    currency: str
    prepaid: bool


class FeatureView(msgspec.Struct, frozen=True, kw_only=True):
    """What the customer may do with one feature, and the sources that say so, in the order in which they count."""

    feature: str
    kind: str
    enabled: bool
    value: str
    sources: tuple[Part, ...]
    guard: GuardView
    prices: tuple[PriceView, ...]
    outage_units: int
    slice_units: int
    shadow: bool


class SpendCapView(msgspec.Struct, frozen=True, kw_only=True):
    """A cap and the window of now. Units: nanos."""

    counter: str
    currency: str
    nanos: int
    ceiling: int | None
    window_start_at: datetime | None
    window_end_at: datetime | None


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """What holds one node back, or all of a kind that are not named (`team:*`)."""

    node: str
    guards: tuple[GuardView, ...]
    spend_caps: tuple[SpendCapView, ...]


def features_told(
    told: snapshot.Snapshot, combined: Mapping[str, Combined], *, now: datetime
) -> tuple[FeatureView, ...]:
    """Every feature of the snapshot, by code."""
    return tuple(
        FeatureView(
            feature=code,
            kind=combined[code].kind.value,
            enabled=one.enabled,
            value=one.static_value,
            sources=combined[code].parts,
            guard=_guard(code, one.guard, now=now),
            prices=tuple(
                PriceView(price_id=tariff.price_id, currency=tariff.currency, prepaid=tariff.prepaid)
                for tariff in one.tariffs
            ),
            outage_units=one.outage_units,
            slice_units=one.slice_units,
            shadow=one.shadow,
        )
        for code, one in sorted(told.features.items())
    )


def nodes_told(told: snapshot.Snapshot, *, now: datetime) -> tuple[NodeView, ...]:
    """Every budget of the snapshot, the customer's first."""
    return tuple(
        NodeView(
            node=node or CUSTOMER_LEVEL,
            guards=tuple(_guard(code, guard, now=now) for code, guard in sorted(budget.guards.items())),
            spend_caps=tuple(_caps(budget.caps, now=now)),
        )
        for node, budget in sorted(told.budgets.items())
    )


def _guard(feature: str, guard: snapshot.Guard, *, now: datetime) -> GuardView:
    return GuardView(
        feature=feature,
        limits=tuple(_limits(guard.limits, now=now)),
        rates=tuple(
            RateView(counter=rate.counter, units=rate.units, per_ms=rate.per_ms, burst_units=rate.burst_units)
            for rate in guard.rates
        ),
        concurrent=guard.concurrent if guard.concurrent >= 0 else None,
    )


def _limits(limits: Iterable[snapshot.Limit], *, now: datetime) -> Iterable[LimitView]:
    for limit in limits:
        start_at, end_at = bounds_of(limit.window, now)
        since_at = from_ms(limit.since_ms) if limit.since_ms else None
        if start_at is not None and since_at is not None:
            start_at = max(start_at, since_at)
        yield LimitView(
            counter=limit.counter,
            units=limit.units,
            ceiling=limit.ceiling if limit.ceiling >= 0 else None,
            carry_units=limit.carry_units,
            window_start_at=start_at or since_at,
            window_end_at=end_at,
        )


def _caps(caps: Iterable[snapshot.SpendCap], *, now: datetime) -> Iterable[SpendCapView]:
    for cap in caps:
        start_at, end_at = bounds_of(cap.window, now)
        yield SpendCapView(
            counter=cap.counter,
            currency=cap.currency,
            nanos=cap.nanos,
            ceiling=cap.ceiling if cap.ceiling >= 0 else None,
            window_start_at=start_at,
            window_end_at=end_at,
        )
