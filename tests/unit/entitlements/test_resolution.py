"""A plan, a subscription and an instant become the snapshot that the scripts read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from billing_core.catalog.catalog import PlanVersion, catalog_of, document_of_toml
from billing_core.contract.snapshot import (
    Entitlement,
    FeatureKind,
    Limit,
    Status,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.entitlements.resolution import CustomerFacts, Resolution, resolve
from billing_core.entitlements.source import Subscribed
from billing_core.entitlements.window import LIFETIME, bounds_of, rolling_window, stale_at, window_of
from billing_core.values.clock import from_ms, to_ms
from billing_core.values.period import Interval

UTC_ZONE, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 3, 17, 14, 30, tzinfo=UTC)
STARTED = datetime(2026, 1, 31, 9, tzinfo=UTC)

TEXT = """
[[meters]]
code = "calls"
event = "calls"
aggregation = "sum"
field = "quantity"
[[meters]]
code = "pages"
event = "pages"
aggregation = "sum"
field = "quantity"
[[features]]
code = "calls"
kind = "metered"
meter = "calls"
[[features]]
code = "pages"
kind = "metered"
meter = "pages"
[[features]]
code = "dark_mode"
kind = "switch"
[[features]]
code = "beta"
kind = "switch"
[[features]]
code = "seats"
kind = "static"
[[features]]
code = "unsold"
kind = "switch"
[[plans]]
code = "basic"
currency = "EUR"
anchor = "subscription"
entitlements = [
  { feature = "calls", limits = [{ units = 1000, interval = "month", mode = "soft" }] },
  { feature = "pages", limits = [{ units = 5, interval = "month", anchor = "subscription" }] },
  { feature = "dark_mode" },
  { feature = "beta", enabled = false },
  { feature = "seats", value = "25" },
]
[[plans.prices]]
code = "calls"
meter = "calls"
model = "per_unit"
unit_amount = "2.50"
per = 1000000
pay = "prepaid"
feature = "calls"
[[plans.prices]]
code = "pages"
meter = "pages"
model = "per_unit"
unit_amount = "0.01"
"""
VERSION = PlanVersion(version=4, terms=catalog_of(document_of_toml(TEXT)).terms("basic"))
CUSTOMER = CustomerFacts(version=9, status=Status.ACTIVE, clock_offset_ms=5000)


def resolved(*, zone: str = "UTC", now: datetime = NOW) -> Resolution:
    return resolve(
        CUSTOMER, Subscribed(plan=VERSION, started_at=STARTED, anchor_at=STARTED, time_zone=zone), now=now
    )


def limit_of(resolution: Resolution, feature: str) -> Limit:
    (limit,) = resolution.snapshot.features[feature].guard.limits
    return limit


def edges(window: Window) -> list[datetime]:
    assert window.kind is WindowKind.EDGES
    return [from_ms(edge) for edge in window.edges_ms]


def test_the_customers_facts_are_in_the_snapshot() -> None:
    """Version, status and clock offset come from the customer, features from the plan."""
    snapshot = resolved().snapshot
    assert (snapshot.version, snapshot.status, snapshot.clock_offset_ms) == (9, Status.ACTIVE, 5000)
    assert set(snapshot.features) == {"calls", "pages", "dark_mode", "beta", "seats"}
    assert len(snapshot_fields(snapshot)) == 10


def test_without_a_subscription_there_are_no_features() -> None:
    """So every check is refused as not entitled, and nothing has to be told again."""
    resolution = resolve(CUSTOMER, None, now=NOW)
    assert (resolution.snapshot.features, resolution.stale_at) == ({}, None)


def test_switches_and_values_are_told_as_the_plan_has_them() -> None:
    """A disabled switch is told as disabled; a feature of another plan is not told at all. Each names the plan."""
    features = resolved().snapshot.features
    assert features["dark_mode"] == Entitlement(kind=FeatureKind.SWITCH, enabled=True, plan="basic")
    assert features["beta"] == Entitlement(kind=FeatureKind.SWITCH, enabled=False, plan="basic")
    assert features["seats"] == Entitlement(kind=FeatureKind.STATIC, enabled=True, static_value="25", plan="basic")


def test_a_limit_follows_the_calendar_or_the_subscription() -> None:
    """The first of each month, or its last day where the anchor is the 31st; one window back to begin with."""
    calls, pages = limit_of(resolved(), "calls"), limit_of(resolved(), "pages")
    assert (calls.counter, calls.units, calls.ceiling) == ("calls@month", 1000, -1)
    assert (pages.counter, pages.units, pages.ceiling) == ("pages@month.subscription", 5, 5)
    assert [f"{edge:%m-%d %H}" for edge in edges(calls.window)[:4]] == [
        "02-01 00",
        "03-01 00",
        "04-01 00",
        "05-01 00",
    ]
    assert [f"{edge:%m-%d %H}" for edge in edges(pages.window)[:4]] == [
        "01-31 09",
        "02-28 09",
        "03-31 09",
        "04-30 09",
    ]


def test_a_limit_follows_the_subscription_where_the_bill_follows_the_calendar() -> None:
    """Billed from the first, limited from the 31st at nine: the windows of price and limit differ."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    subscribed = Subscribed(plan=VERSION, started_at=STARTED, anchor_at=first, time_zone="UTC")
    resolution = resolve(CUSTOMER, subscribed, now=NOW)
    tariff = resolution.snapshot.features["calls"].tariffs[0]
    assert [f"{edge:%m-%d %H}" for edge in edges(limit_of(resolution, "pages").window)[:2]] == [
        "01-31 09",
        "02-28 09",
    ]
    assert [f"{edge:%m-%d %H}" for edge in edges(tariff.window)[:2]] == [
        "02-01 00",
        "03-01 00",
    ]


def test_a_calendar_is_the_one_of_the_contracts_zone() -> None:
    """Midnight in Berlin is 23:00 in UTC in winter and 22:00 in summer."""
    window = limit_of(resolved(zone="Europe/Berlin"), "calls").window
    assert [f"{edge:%m-%d %H}" for edge in edges(window)[:4]] == ["01-31 23", "02-28 23", "03-31 22", "04-30 22"]


def test_a_prepaid_price_becomes_a_tariff_over_the_billing_period() -> None:
    """Named by plan, version and code; a price in arrears is none of the gate's business."""
    features = resolved().snapshot.features
    (tariff,) = features["calls"].tariffs
    assert (tariff.price_id, tariff.currency) == ("basic:4:calls", "EUR")
    assert (tariff.batch, tariff.tiers) == (1, (Tier(upto=0, nanos_per_batch=2500),))
    assert [f"{edge:%m-%d %H}" for edge in edges(tariff.window)[:3]] == ["01-31 09", "02-28 09", "03-31 09"]
    assert features["pages"].tariffs == ()


def test_edges_are_told_again_long_before_they_end() -> None:
    """Half way: more than a year ahead for months."""
    resolution = resolved()
    last_at = min(edges(limit_of(resolution, code).window)[-1] for code in ("calls", "pages"))
    assert last_at > NOW + timedelta(days=26 * 30)
    assert resolution.stale_at is not None
    assert NOW + timedelta(days=365) < resolution.stale_at < last_at


@pytest.mark.parametrize(
    ("interval", "zone", "kind"),
    [
        (Interval.MINUTE, BERLIN, WindowKind.STEPS),
        (Interval.HOUR, BERLIN, WindowKind.STEPS),
        (Interval.DAY, UTC_ZONE, WindowKind.STEPS),
        (Interval.WEEK, UTC_ZONE, WindowKind.STEPS),
        (Interval.DAY, BERLIN, WindowKind.EDGES),
        (Interval.WEEK, BERLIN, WindowKind.EDGES),
        (Interval.MONTH, UTC_ZONE, WindowKind.EDGES),
        (Interval.QUARTER, UTC_ZONE, WindowKind.EDGES),
        (Interval.YEAR, UTC_ZONE, WindowKind.EDGES),
    ],
)
def test_equal_windows_are_told_as_steps_and_others_as_edges(
    interval: Interval, zone: ZoneInfo, kind: WindowKind
) -> None:
    """A list of edges ascends, holds now with a window before it, and reaches two months or two years ahead."""
    window = window_of(STARTED, interval, zone=zone, now=NOW)
    assert window.kind is kind
    if kind is WindowKind.STEPS:
        assert (window.anchor_ms, stale_at(window, now=NOW)) == (to_ms(STARTED), None)
        return
    told = edges(window)
    assert all(before < after for before, after in pairwise(told))
    assert told[1] <= NOW < told[2]
    assert told[-1] >= NOW + timedelta(days=62)
    again_at = stale_at(window, now=NOW)
    assert again_at is not None
    assert NOW < again_at < told[-1]


def test_a_day_that_loses_an_hour_has_its_own_length() -> None:
    """29 March 2026 in Berlin."""
    told = edges(window_of(datetime(2026, 3, 1, tzinfo=BERLIN), Interval.DAY, zone=BERLIN, now=NOW))
    short = datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert told[told.index(short) + 1] - short == timedelta(hours=23)


def test_a_limit_for_life_has_one_window() -> None:
    """It never starts anew and never has to be told again."""
    text = TEXT.replace('interval = "month", anchor = "subscription"', 'anchor = "lifetime"')
    version = PlanVersion(version=1, terms=catalog_of(document_of_toml(text)).terms("basic"))
    resolution = resolve(
        CUSTOMER, Subscribed(plan=version, started_at=STARTED, anchor_at=STARTED, time_zone="UTC"), now=NOW
    )
    assert limit_of(resolution, "pages").window == LIFETIME
    assert stale_at(LIFETIME, now=NOW) is None


@pytest.mark.parametrize("since_at", [NOW - timedelta(hours=1), NOW, NOW + timedelta(hours=1)])
def test_what_counts_anew_from_an_instant_has_it_as_an_edge(since_at: datetime) -> None:
    """Equal steps are told as edges then, until the instant is far behind."""
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    window = window_of(midnight, Interval.DAY, zone=UTC_ZONE, now=NOW, since_at=since_at)
    assert since_at in edges(window)
    later = window_of(midnight, Interval.DAY, zone=UTC_ZONE, now=NOW + timedelta(days=2), since_at=since_at)
    assert later.kind is WindowKind.STEPS


def test_an_instant_that_is_an_edge_already_changes_nothing() -> None:
    """The first period of a subscription starts at its anchor."""
    plain = window_of(STARTED, Interval.MONTH, zone=UTC_ZONE, now=STARTED)
    assert window_of(STARTED, Interval.MONTH, zone=UTC_ZONE, now=STARTED, since_at=STARTED) == plain


def test_a_list_begins_as_many_windows_before_as_units_can_be_carried_over() -> None:
    """Else only one."""
    told = edges(window_of(STARTED, Interval.MONTH, zone=UTC_ZONE, now=NOW, before=3))
    assert f"{told[0]:%Y-%m-%d}" == "2025-11-30"


def test_a_rolling_window_is_told_by_its_length_in_sixty_buckets() -> None:
    """A month is 30 days, a year 365."""
    for interval in Interval:
        window = rolling_window(interval)
        assert (window.kind, window.every_ms % 60) == (WindowKind.ROLLING, 0)
    assert rolling_window(Interval.MONTH).every_ms == 30 * 86_400_000


def test_the_window_of_an_instant_has_bounds_where_it_has_any() -> None:
    """Steps and edges; a lifetime and the time just gone by have none."""
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    day = window_of(midnight, Interval.DAY, zone=UTC_ZONE, now=NOW)
    assert bounds_of(day, NOW) == (datetime(2026, 3, 17, tzinfo=UTC), datetime(2026, 3, 18, tzinfo=UTC))
    month = window_of(STARTED, Interval.MONTH, zone=UTC_ZONE, now=NOW)
    assert bounds_of(month, NOW) == (datetime(2026, 2, 28, 9, tzinfo=UTC), datetime(2026, 3, 31, 9, tzinfo=UTC))
    for window in (LIFETIME, rolling_window(Interval.DAY)):
        assert bounds_of(window, NOW) == (None, None)
    assert bounds_of(month, NOW + timedelta(days=4000)) == (None, None)
