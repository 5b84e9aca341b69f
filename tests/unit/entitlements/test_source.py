"""Which sources are in force, in which order they count, and what the gateway is told of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from billing_core.catalog.catalog import AddonTerms, PlanVersion, catalog_of
from billing_core.catalog.document import CatalogDocument, FeatureKind
from billing_core.catalog.guard import EntitlementTerms
from billing_core.contract import snapshot
from billing_core.contract.snapshot import Status, WindowKind
from billing_core.entitlements.budget import BudgetDocument
from billing_core.entitlements.resolution import CustomerFacts, Resolution, resolve
from billing_core.entitlements.source import Holdings, OwnEntitlement, OwnKind, Subscribed, TakenAddon, combine
from billing_core.values.clock import to_ms

NOW = datetime(2026, 3, 17, 14, 30, tzinfo=UTC)
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
LATER, SOONER = NOW + timedelta(days=3), NOW + timedelta(days=1)
CUSTOMER = CustomerFacts(version=9, status=Status.ACTIVE, clock_offset_ms=0)

DOCUMENT: dict[str, Any] = {
    "meters": [
        {"code": code, "event": code, "aggregation": "sum", "field": "quantity"} for code in ("calls", "pages")
    ]
    + [{"code": "seats", "event": "seats", "aggregation": "max", "field": "quantity"}],
    "features": [
        {"code": "calls", "kind": "metered", "meter": "calls"},
        {"code": "pages", "kind": "metered", "meter": "pages"},
        {"code": "seats", "kind": "gauge", "meter": "seats"},
        {"code": "export", "kind": "switch"},
        {"code": "beta", "kind": "switch"},
    ],
    "plans": [
        {
            "code": "basic",
            "currency": "USD",
            "entitlements": [
                {"feature": "calls", "limits": [{"units": 1000, "interval": "month", "grace_percent": 5}]},
                {"feature": "seats", "limits": [{"units": 5, "anchor": "lifetime"}]},
                {"feature": "export", "enabled": False},
            ],
            "prices": [{"code": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "0.01"}],
        }
    ],
    "addons": [
        {
            "code": "more",
            "entitlements": [
                {"feature": "calls", "limits": [{"units": 500, "interval": "month"}]},
                {"feature": "seats", "limits": [{"units": 2, "anchor": "lifetime"}]},
            ],
        },
        {"code": "extras", "entitlements": [{"feature": "export"}, {"feature": "pages", "concurrent": 2}]},
    ],
}


def subscribed(changed_at: datetime | None = None, **plan: Any) -> Subscribed:
    words = {**DOCUMENT, "plans": [{**DOCUMENT["plans"][0], **plan}]}
    terms = catalog_of(msgspec.convert(words, CatalogDocument)).terms("basic")
    version = PlanVersion(version=2, terms=terms)
    return Subscribed(plan=version, started_at=STARTED, anchor_at=STARTED, time_zone="UTC", changed_at=changed_at)


def addon(code: str, quantity: int = 1, **when: datetime) -> TakenAddon:
    terms: AddonTerms = catalog_of(msgspec.convert(DOCUMENT, CatalogDocument)).addon_terms(code)
    return TakenAddon(subscription_id="sub_1", terms=terms, quantity=quantity, **({"effective_at": STARTED} | when))


def own(kind: OwnKind, words: dict[str, Any], name: str = "ent_1", **when: datetime) -> OwnEntitlement:
    terms = msgspec.convert(words, EntitlementTerms)
    kinds = {"export": FeatureKind.SWITCH, "beta": FeatureKind.SWITCH, "seats": FeatureKind.GAUGE}
    return OwnEntitlement(
        entitlement_id=name,
        kind=kind,
        feature_kind=kinds.get(terms.feature, FeatureKind.METERED),
        terms=terms,
        **({"effective_at": STARTED} | when),
    )


def trial(words: dict[str, Any], **more: Any) -> OwnEntitlement:
    return own(OwnKind.TRIAL, words, **({"expires_at": LATER} | more))


def override(words: dict[str, Any], **more: Any) -> OwnEntitlement:
    return own(OwnKind.OVERRIDE, words, **more)


def holdings(*taken: TakenAddon | OwnEntitlement, budgets: list[dict[str, Any]] | None = None) -> Holdings:
    return Holdings(
        addons=tuple(one for one in taken if isinstance(one, TakenAddon)),
        own=tuple(one for one in taken if isinstance(one, OwnEntitlement)),
        budgets=msgspec.convert({"nodes": budgets or []}, BudgetDocument),
    )


def resolved(held: Holdings, *, to: Subscribed | None, now: datetime = NOW) -> Resolution:
    return resolve(CUSTOMER, to, holdings=held, now=now)


def limits(resolution: Resolution, feature: str = "calls") -> dict[str, tuple[int, int]]:
    told = resolution.snapshot.features[feature].guard.limits
    return {limit.counter: (limit.units, limit.ceiling) for limit in told}


def sources(held: Holdings, feature: str = "calls", *, to: Subscribed | None) -> list[str]:
    return [part.source.value for part in combine(to, held, now=NOW)[feature].parts]


def test_add_ons_count_by_their_quantity() -> None:
    """1,000 and three times 500; 5 seats and three times 2; a grace stays."""
    resolution = resolved(holdings(addon("more", 3)), to=subscribed())
    assert limits(resolution) == {"calls@month": (2500, 2625)}
    assert limits(resolution, "seats") == {"seats@lifetime": (11, 11)}


def test_an_add_on_brings_features_that_the_plan_has_not() -> None:
    """A switch that was off, a feature that was not there."""
    features = resolved(holdings(addon("extras", 2)), to=subscribed()).snapshot.features
    assert (features["export"].enabled, features["pages"].guard.concurrent) == (True, 4)


def test_a_trial_widens_until_its_instant_and_falls_away_by_itself() -> None:
    """Its end is when the customer is resolved again; at that instant it counts no longer."""
    held = holdings(trial({"feature": "calls", "limits": [{"units": 9000, "interval": "month"}]}))
    resolution = resolved(held, to=subscribed())
    assert limits(resolution) == {"calls@month": (9000, 9450)}
    assert resolution.stale_at == LATER
    assert limits(resolved(held, to=subscribed(), now=LATER)) == {"calls@month": (1000, 1050)}
    assert limits(resolved(held, to=subscribed(), now=LATER - timedelta(milliseconds=1))) != {
        "calls@month": (1000, 1050)
    }


def test_a_trial_needs_no_subscription_and_an_override_and_an_add_on_do() -> None:
    """There is nothing to alter and nothing to add to."""
    held = holdings(trial({"feature": "beta"}), override({"feature": "export"}), addon("more"))
    resolution = resolved(held, to=None)
    assert set(resolution.snapshot.features) == {"beta"}
    assert resolution.stale_at == LATER


def test_an_override_replaces_everything_before_it() -> None:
    """Plan, add-ons and trials; by a denial too."""
    words = {"feature": "calls", "limits": [{"units": 7, "interval": "day"}]}
    others = (addon("more", 3), trial({"feature": "calls"}))
    assert limits(resolved(holdings(*others, override(words)), to=subscribed())) == {"calls@day": (7, 7)}
    denial = override({"feature": "calls", "enabled": False})
    assert not resolved(holdings(*others, denial), to=subscribed()).snapshot.features["calls"].enabled
    assert sources(holdings(*others, denial), to=subscribed()) == ["override"]


def test_of_several_overrides_the_one_that_took_effect_last_counts() -> None:
    """While it lasts; then the one before it counts again."""
    first = override({"feature": "calls", "limits": [{"units": 1, "interval": "day"}]}, name="ent_2")
    second = override(
        {"feature": "calls", "limits": [{"units": 2, "interval": "day"}]},
        name="ent_1",
        effective_at=NOW,
        expires_at=SOONER,
    )
    held = holdings(second, first)
    assert limits(resolved(held, to=subscribed())) == {"calls@day": (2, 2)}
    assert resolved(held, to=subscribed()).stale_at == SOONER
    assert limits(resolved(held, to=subscribed(), now=SOONER)) == {"calls@day": (1, 1)}


def test_what_begins_later_counts_from_its_instant_on() -> None:
    """And the customer is resolved again at it."""
    held = holdings(addon("more", effective_at=SOONER), trial({"feature": "beta"}, effective_at=SOONER))
    resolution = resolved(held, to=subscribed())
    assert (limits(resolution), "beta" in resolution.snapshot.features) == ({"calls@month": (1000, 1050)}, False)
    assert resolution.stale_at == SOONER
    again = resolved(held, to=subscribed(), now=SOONER)
    assert (limits(again), "beta" in again.snapshot.features) == ({"calls@month": (1500, 1575)}, True)


def test_what_was_taken_with_another_subscription_is_left_out() -> None:
    """It ended with it."""
    held = holdings(addon("more"), trial({"feature": "beta"}))
    assert held.with_subscription("sub_1") == held
    assert held.with_subscription("sub_2") == held.with_subscription(None) == Holdings(own=held.own)


def test_sources_count_in_their_order_and_are_told() -> None:
    """Plan, add-on, trial, budget."""
    held = holdings(
        trial({"feature": "calls", "limits": [{"units": 5000, "interval": "month"}]}),
        addon("more"),
        budgets=[{"guards": [{"feature": "calls", "limits": [{"units": 4000, "interval": "month"}]}]}],
    )
    assert sources(held, to=subscribed()) == ["plan", "addon", "trial", "budget"]
    assert limits(resolved(held, to=subscribed())) == {"calls@month": (4000, 4000)}


def test_a_source_from_before_a_feature_changed_its_kind_does_not_count() -> None:
    """A switch cannot be widened by a limit."""
    held = holdings(trial({"feature": "calls"}))
    odd = msgspec.structs.replace(held.own[0], feature_kind=FeatureKind.SWITCH)
    assert sources(Holdings(own=(odd,)), to=subscribed()) == ["plan"]


def test_a_shadow_plan_is_told_so_for_each_of_its_features() -> None:
    """Refusals are recorded, not made."""
    for enforcement, shadow in (("enforce", False), ("shadow", True)):
        features = resolved(holdings(), to=subscribed(enforcement=enforcement)).snapshot.features
        assert {one.shadow for one in features.values()} == {shadow}


def test_a_limit_that_starts_anew_with_the_plan_counts_from_the_change() -> None:
    """One that keeps does not, whatever the plan was called before."""
    for rule, since_ms in (("keep", 0), ("reset", to_ms(SOONER))):
        words = {"units": 10, "interval": "month", "on_plan_change": rule}
        plan = {"entitlements": [{"feature": "calls", "limits": [words]}]}
        for changed_at, told in ((None, 0), (SOONER, since_ms)):
            (limit,) = (
                resolved(holdings(), to=subscribed(changed_at, **plan)).snapshot.features["calls"].guard.limits
            )
            assert (limit.counter, limit.since_ms) == ("calls@month", told)


def test_prices_are_counted_anew_from_the_change_of_plan() -> None:
    """The instant is an edge of the tariff's windows, with the natural ones around it."""
    price = DOCUMENT["plans"][0]["prices"][0] | {"pay": "prepaid", "feature": "calls"}
    changed_at = datetime(2026, 3, 10, 12, tzinfo=UTC)
    (tariff,) = resolved(holdings(), to=subscribed(changed_at, prices=[price])).snapshot.features["calls"].tariffs
    first = [datetime.fromtimestamp(edge / 1000, UTC).isoformat()[:13] for edge in tariff.window.edges_ms[:4]]
    assert first == ["2026-02-01T00", "2026-03-01T00", "2026-03-10T12", "2026-04-01T00"]
    assert tariff.prepaid


def test_prices_of_one_feature_stand_in_the_order_of_the_wallets() -> None:
    """Each in its own currency."""
    price = DOCUMENT["plans"][0]["prices"][0] | {"pay": "prepaid", "feature": "calls"}
    prices = [price | {"code": code, "currency": code} for code in ("EUR", "USD")]
    tariffs = resolved(holdings(), to=subscribed(prices=prices)).snapshot.features["calls"].tariffs
    assert [(one.currency, one.price_id) for one in tariffs] == [("EUR", "basic:2:EUR"), ("USD", "basic:2:USD")]


def test_a_price_in_arrears_is_told_only_where_its_money_is_capped() -> None:
    """By the plan or by a budget of any node; another currency's cap asks for nothing."""
    plan, caps = subscribed(), [{"amount": "5", "interval": "month"}]
    assert resolved(holdings(), to=plan).snapshot.features["calls"].tariffs == ()
    other = holdings(budgets=[{"spend_caps": [{"amount": "5", "currency": "EUR", "interval": "month"}]}])
    assert resolved(other, to=plan).snapshot.features["calls"].tariffs == ()
    held = holdings(
        budgets=[{"node": "key:a", "spend_caps": [{"amount": "5", "currency": "USD", "interval": "month"}]}]
    )
    for resolution in (resolved(holdings(), to=subscribed(spend_caps=caps)), resolved(held, to=plan)):
        (tariff,) = resolution.snapshot.features["calls"].tariffs
        assert (tariff.prepaid, tariff.currency, tariff.price_id) == (False, "USD", "basic:2:calls")
        assert resolution.snapshot.features["seats"].tariffs == ()


def test_budgets_are_told_by_node_with_windows_of_the_contract() -> None:
    """The customer's caps under the empty name; its guards in the features."""
    held = holdings(
        budgets=[
            {"spend_caps": [{"amount": "50", "currency": "USD", "interval": "month", "grace_percent": 10}]},
            {"node": "team:*", "guards": [{"feature": "calls", "limits": [{"units": 9, "interval": "day"}]}]},
        ]
    )
    budgets = resolved(held, to=subscribed()).snapshot.budgets
    assert set(budgets) == {"", "team:*"}
    (cap,) = budgets[""].caps
    assert (cap.counter, cap.nanos, cap.ceiling) == ("$USD@month", 50 * 10**9, 55 * 10**9)
    (limit,) = budgets["team:*"].guards["calls"].limits
    assert (limit.counter, limit.window.kind) == ("calls@day", WindowKind.STEPS)


def test_every_word_of_a_guard_is_told() -> None:
    """Rates, holds, rolling and carrying limits, leases for an outage."""
    words = {
        "feature": "calls",
        "limits": [
            {"units": 10, "interval": "month", "anchor": "rolling"},
            {"units": 4, "interval": "month", "rollover_units": 10, "mode": "soft"},
        ],
        "rates": [{"units": 60, "per": "minute", "burst": 5}, {"units": 2, "per": "second", "counts": "units"}],
        "concurrent": 3,
        "on_outage": "allow",
        "outage_units": 100,
    }
    told = resolved(holdings(), to=subscribed(entitlements=[words])).snapshot.features["calls"]
    rolling, carrying = told.guard.limits
    assert (rolling.counter, rolling.window) == (
        "calls@month.rolling",
        snapshot.Window(kind=WindowKind.ROLLING, every_ms=30 * 86_400_000),
    )
    assert (carrying.carry_units, carrying.ceiling) == (10, -1)
    edges = carrying.window.edges_ms
    assert sum(edge <= to_ms(NOW) for edge in edges) == 4
    assert told.guard.rates == (
        snapshot.Rate(counter="calls~minute", units=60, per_ms=60_000, burst_units=5),
        snapshot.Rate(
            counter="calls~second.units",
            units=2,
            per_ms=1_000,
            burst_units=2,
            counts=snapshot.RateCount.UNITS,
        ),
    )
    assert (told.guard.concurrent, told.outage_units) == (3, 100)


def test_without_a_subscription_windows_follow_the_customers_own_zone() -> None:
    """A trial's day in Berlin begins at 23:00 in UTC in winter."""
    held = holdings(trial({"feature": "pages", "limits": [{"units": 1, "interval": "day"}]}))
    customer = CustomerFacts(
        version=1, status=Status.ACTIVE, clock_offset_ms=0, time_zone="Europe/Berlin", since_at=STARTED
    )
    (limit,) = resolve(customer, None, holdings=held, now=NOW).snapshot.features["pages"].guard.limits
    assert {datetime.fromtimestamp(edge / 1000, UTC).hour for edge in limit.window.edges_ms[:3]} == {23}


SLICED = {"feature": "calls", "slice_units": 100, "limits": [{"units": 9_000, "interval": "month"}]}
PREPAID = {
    "code": "calls",
    "feature": "calls",
    "meter": "calls",
    "model": "per_unit",
    "unit_amount": "0.01",
    "pay": "prepaid",
}


def told(*held: Any, budgets: list[dict[str, Any]] | None = None, **plan: Any) -> int:
    words: dict[str, Any] = {"entitlements": [SLICED], **plan}
    resolution = resolved(holdings(*held, budgets=budgets), to=subscribed(**words))
    return resolution.snapshot.features["calls"].slice_units


def test_the_plan_says_how_many_units_a_slice_has() -> None:
    """With limits, with a price, with add-ons and trials beside it."""
    assert told() == told(prices=[PREPAID]) == 100
    assert told(addon("more")) == told(trial({"feature": "calls"})) == 100
    assert told(override({"feature": "calls"})) == 0
    assert told(override({"feature": "calls", "slice_units": 7})) == 7


@pytest.mark.parametrize(
    "held",
    [
        {
            "budgets": [
                {"node": "team:ml", "guards": [{"feature": "calls", "rates": [{"units": 1, "per": "second"}]}]}
            ]
        },
        {"budgets": [{"node": "team:*", "guards": [{"feature": "calls", "concurrent": 3}]}]},
        {"enforcement": "shadow"},
    ],
)
def test_what_is_looked_at_one_by_one_is_not_sliced(held: dict[str, Any]) -> None:
    """A rate or a bound on open holds, wherever it stands; and shadow mode."""
    assert told(**held) == 0


def test_a_budget_with_limits_only_is_no_hindrance() -> None:
    """They count units."""
    guards = [{"feature": "calls", "limits": [{"units": 5, "interval": "day"}]}]
    assert told(budgets=[{"node": "team:ml", "guards": guards}]) == 100
