"""Every rule of limits, rates, caps and add-ons refuses, by the path of what breaks it."""

from __future__ import annotations

import msgspec
import pytest

from billing_core.catalog.catalog import catalog_of, terms_digest
from billing_core.catalog.document import CatalogDocument
from billing_core.catalog.guard import Limit, LimitAnchor, LimitMode, Rate, RatePer, SpendCap
from billing_core.contract.problem import decode_json
from billing_core.errors import InvalidInput, NotFound
from billing_core.values.period import Interval

Words = dict[str, object]
_DECODER = msgspec.json.Decoder(CatalogDocument)
MOST = 2**53 - 1

CALLS = {"code": "calls", "event": "calls", "aggregation": "sum", "field": "quantity"}
SEATS = {"code": "seats", "event": "seats", "aggregation": "max", "field": "quantity"}
FEATURES = [
    {"code": "calls", "kind": "metered", "meter": "calls"},
    {"code": "seats", "kind": "gauge", "meter": "seats"},
    {"code": "dark", "kind": "switch"},
    {"code": "size", "kind": "static"},
]


def document(*, entitlement: Words | None = None, plan: Words | None = None, **parts: object) -> Words:
    """A sound catalog with one entitlement, or parts, replaced."""
    sound: Words = {"code": "basic", "currency": "USD", "entitlements": [entitlement or {"feature": "calls"}]}
    return {"meters": [CALLS, SEATS], "features": FEATURES, "plans": [sound | (plan or {})], **parts}


def read(words: Words) -> CatalogDocument:
    return decode_json(msgspec.json.encode(words), _DECODER)


def refusal(words: Words) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        catalog_of(read(words))
    return caught.value


def day(**more: object) -> Words:
    return {"units": 10, "interval": "day"} | more


LIFE = {"units": 10, "anchor": "lifetime"}


@pytest.mark.parametrize(
    "entitlement",
    [
        {"feature": "calls", "limits": [day(), day(interval="month"), day(anchor="rolling"), LIFE]},
        {"feature": "calls", "limits": [day(units=0, grace_percent=1000), day(interval="week", mode="soft")]},
        {"feature": "calls", "limits": [day(rollover_units=20, on_plan_change="reset", anchor="subscription")]},
        {
            "feature": "calls",
            "rates": [{"units": 1, "per": "second"}, {"units": 9, "per": "second", "counts": "units"}],
        },
        {"feature": "calls", "rates": [{"units": 60, "per": "minute", "burst": 5}], "concurrent": 3},
        {"feature": "calls", "levels": {"team": {"limits": [day()]}, "key": {"concurrent": 1}}},
        {"feature": "calls", "on_outage": "allow", "outage_units": 100},
        {"feature": "calls", "slice_units": 100, "limits": [day()], "levels": {"team": {"limits": [day()]}}},
        {"feature": "seats", "limits": [LIFE], "levels": {"team": {"limits": [LIFE]}}},
        {"feature": "dark"},
        {"feature": "size", "value": "4"},
    ],
)
def test_a_sound_entitlement_is_taken(entitlement: Words) -> None:
    """In every word that there is."""
    terms = catalog_of(read(document(entitlement=entitlement))).terms("basic")
    assert terms.entitlement(str(entitlement["feature"])) is not None


@pytest.mark.parametrize(
    ("entitlement", "field", "rule"),
    [
        ({"limits": [day(units=-1)]}, "limits[0].units", "from 0 to"),
        ({"limits": [day(units=2**53)]}, "limits[0].units", "from 0 to"),
        ({"limits": [day(), day(units=MOST, interval="month", grace_percent=1)]}, "limits[1].units", "with grace"),
        ({"limits": [day(units=MOST, rollover_units=1)]}, "limits[0].units", "rollover"),
        ({"limits": [day(grace_percent=-1)]}, "limits[0].grace_percent", "from 0 to 1000"),
        ({"limits": [day(grace_percent=1001)]}, "limits[0].grace_percent", "from 0 to 1000"),
        ({"limits": [day(grace_percent=5, mode="soft")]}, "limits[0].grace_percent", "never refuses"),
        ({"limits": [{"units": 1}]}, "limits[0].interval", "needs its interval"),
        ({"limits": [{"units": 1, "anchor": "rolling"}]}, "limits[0].interval", "needs its interval"),
        ({"limits": [day(anchor="lifetime")]}, "limits[0].interval", "has no interval"),
        ({"limits": [{**LIFE, "rollover_units": 1}]}, "limits[0].rollover_units", "no window after"),
        ({"limits": [day(anchor="rolling", rollover_units=1)]}, "limits[0].rollover_units", "no window after"),
        ({"limits": [day(rollover_units=-1)]}, "limits[0].rollover_units", "from 0 to"),
        ({"limits": [day(), day(units=5, mode="soft")]}, "limits[1]", "the same windows (day)"),
        ({"limits": [day(anchor=a, interval=i) for a in ("calendar", "subscription", "rolling")
                     for i in ("minute", "day", "week")]}, "limits", "at most 8"),
        ({"rates": [{"units": 0, "per": "day"}]}, "rates[0].units", "from 1 to 104249991 for a rate per day"),
        ({"rates": [{"units": 1, "per": "day", "burst": 0}]}, "rates[0].burst", "from 1 to"),
        ({"rates": [{"units": 2**53, "per": "second"}]}, "rates[0].units", "from 1 to 9007199254740"),
        ({"rates": [{"units": 1, "per": "day"}, {"units": 2, "per": "day"}]}, "rates[1]", "counts the same (day)"),
        ({"concurrent": 0}, "concurrent", "from 1 to"),
        ({"levels": {"key": {"limits": [day(units=-1)]}}}, "levels.key.limits[0].units", "from 0 to"),
        ({"on_outage": "allow"}, "outage_units", "units to lease"),
        ({"outage_units": 5}, "outage_units", 'only read where on_outage is "allow"'),
        ({"slice_units": -1}, "slice_units", "from 1 to"),
        ({"slice_units": 2**53}, "slice_units", "from 1 to"),
        ({"slice_units": 5, "concurrent": 1}, "slice_units", "decided one by one"),
        ({"slice_units": 5, "rates": [{"units": 1, "per": "day"}]}, "slice_units", "decided one by one"),
        ({"slice_units": 5, "levels": {"key": {"concurrent": 1}}}, "slice_units", "decided one by one"),
        ({"feature": "dark", "slice_units": 1}, "slice_units", "only a metered feature"),
        ({"value": "1"}, "value", "a metered feature has no value"),
        ({"feature": "dark", "limits": [day()]}, "limits", "a switch feature cannot be limited"),
        ({"feature": "dark", "levels": {"key": {"concurrent": 1}}}, "levels.key.concurrent", "cannot be limited"),
        ({"feature": "size", "value": "1", "rates": [{"units": 1, "per": "day"}]}, "rates", "cannot be limited"),
        ({"feature": "size"}, "value", "has a value"),
        ({"feature": "dark", "on_outage": "allow", "outage_units": 1}, "on_outage", "only a metered feature"),
        ({"feature": "seats", "limits": [day()]}, "limits[0].anchor", "limited for its lifetime"),
        ({"feature": "seats", "limits": [{**LIFE, "on_plan_change": "reset"}]}, "limits[0].on_plan_change", "is"),
        ({"feature": "seats", "rates": [{"units": 1, "per": "day"}]}, "rates", "a gauge has a level"),
        ({"feature": "seats", "concurrent": 1}, "concurrent", "a gauge has a level"),
        ({"feature": "nothing"}, "feature", "there is no feature"),
    ],
)  # fmt: skip
def test_an_entitlement_that_breaks_a_rule_is_refused(entitlement: Words, field: str, rule: str) -> None:
    """The same in a plan and in an add-on."""
    words: Words = {"feature": "calls"} | entitlement
    failure = refusal(document(entitlement=words))
    assert failure.field == f"plans[0].entitlements[0].{field}"
    assert rule in failure.detail
    failure = refusal(document(addons=[{"code": "more", "entitlements": [words]}]))
    assert failure.field == f"addons[0].entitlements[0].{field}"


PRICE = {"code": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "0.01"}
CAP = {"amount": "10", "interval": "month"}


@pytest.mark.parametrize(
    ("plan", "field", "rule"),
    [
        ({"spend_caps": [{**CAP, "amount": "-1"}]}, "spend_caps[0].amount", "must not be negative"),
        ({"spend_caps": [{**CAP, "amount": "1e3"}]}, "spend_caps[0].amount", "is not an amount"),
        ({"spend_caps": [{**CAP, "amount": "0.0000000001"}]}, "spend_caps[0].amount", "at most 9 digits"),
        ({"spend_caps": [{**CAP, "amount": "9007199.3"}]}, "spend_caps[0].amount", "below 2^53 nanos"),
        ({"spend_caps": [{**CAP, "amount": "9000000", "grace_percent": 1}]}, "spend_caps[0].amount", "2^53"),
        ({"spend_caps": [{**CAP, "currency": "usd"}]}, "spend_caps[0].currency", "neither an ISO 4217"),
        ({"spend_caps": [{**CAP, "currency": "AIC"}]}, "spend_caps[0].currency", "'AIC' is neither"),
        ({"spend_caps": [{"amount": "10"}]}, "spend_caps[0].interval", "needs its interval"),
        ({"spend_caps": [{**CAP, "anchor": "rolling"}]}, "spend_caps[0].anchor", "by calendar"),
        ({"spend_caps": [{**CAP, "mode": "soft", "grace_percent": 1}]}, "spend_caps[0].grace_percent", "no grace"),
        ({"spend_caps": [CAP, {**CAP, "currency": "USD"}]}, "spend_caps[1]", "the same level"),
        ({"spend_caps": [CAP], "prices": [{**PRICE, "per": "hours_of_period"}]}, "spend_caps", "no cap would see"),
        (
            {"spend_caps": [CAP], "prices": [{"code": "v", "meter": "calls", "model": "volume",
                                              "tiers": [{"unit_amount": "1"}]}]},
            "spend_caps",
            "a volume price",
        ),
        ({"spend_caps": [CAP], "prices": [PRICE, {**PRICE, "code": "more"}]}, "spend_caps", "are both on it"),
    ],
)  # fmt: skip
def test_a_spend_cap_that_breaks_a_rule_is_refused(plan: Words, field: str, rule: str) -> None:
    """Also one that could not see what is spent."""
    failure = refusal(document(plan=plan))
    assert failure.field == f"plans[0].{field}"
    assert rule in failure.detail


def test_a_sound_plan_with_caps_is_taken() -> None:
    """On two levels, and in another currency, which prices in arrears are not in."""
    volume = {"code": "v", "meter": "calls", "model": "volume", "tiers": [{"unit_amount": "1"}]}
    plans = [
        {"spend_caps": [CAP, {**CAP, "level": "key", "mode": "soft"}], "prices": [PRICE], "enforcement": "shadow"},
        {"spend_caps": [{**CAP, "currency": "EUR"}], "prices": [volume]},
    ]
    for plan in plans:
        assert catalog_of(read(document(plan=plan))).plan("basic").spend_caps


@pytest.mark.parametrize(
    ("parts", "field", "rule"),
    [
        ({"addons": [{"code": "a"}]}, "addons[0].entitlements", "adds something"),
        ({"addons": [{"code": "a", "entitlements": [{"feature": "dark"}]}] * 2}, "addons[1].code", "already taken"),
        (
            {"addons": [{"code": "a", "entitlements": [{"feature": "dark", "enabled": False}]}]},
            "addons[0].entitlements[0].enabled",
            "never takes away",
        ),
        (
            {"addons": [{"code": "a", "entitlements": [{"feature": "dark"}, {"feature": "dark"}]}]},
            "addons[0].entitlements[1].feature",
            "already taken",
        ),
        (
            {"features": [{"code": "seats", "kind": "gauge", "meter": "calls"}]},
            "features[0].meter",
            "max or the latest",
        ),
        (
            {"features": [{"code": "seats", "kind": "gauge"}]},
            "features[0].meter",
            "a gauge feature names its meter",
        ),
        (
            {"features": [{"code": "users", "kind": "gauge", "meter": "seats"}]},
            "features[0].meter",
            "quantity of event 'users'",
        ),
    ],
)
def test_add_ons_and_gauges_that_break_a_rule_are_refused(parts: Words, field: str, rule: str) -> None:
    """A gauge is billed by its highest or its last level."""
    failure = refusal(document(plan={"entitlements": []}, **parts))
    assert failure.field == field
    assert rule in failure.detail


def test_a_gauge_has_no_price_at_the_gate() -> None:
    """Its level is billed after the period."""
    prepaid = {
        "code": "s",
        "meter": "seats",
        "model": "per_unit",
        "unit_amount": "1",
        "pay": "prepaid",
        "feature": "seats",
    }
    failure = refusal(document(plan={"entitlements": [{"feature": "seats"}], "prices": [prepaid]}))
    assert "a gauge feature has no quantity to charge for" in failure.detail


def test_an_add_on_is_cut_out_with_the_features_that_it_names() -> None:
    """So that who took it keeps its words."""
    more = {"code": "more", "entitlements": [{"feature": "calls", "limits": [day()]}, {"feature": "dark"}]}
    catalog = catalog_of(read(document(addons=[more])))
    assert [feature.code for feature in catalog.addon_terms("more").features] == ["calls", "dark"]
    with pytest.raises(NotFound) as caught:
        catalog.addon_terms("less")
    assert caught.value.field == "addon"


def test_words_that_say_the_default_change_no_digest() -> None:
    """A plan keeps its version."""
    plain = catalog_of(read(document(entitlement={"feature": "calls", "limits": [day()]})))
    told = {"feature": "calls", "limits": [day(mode="hard", anchor="calendar", rollover_units=0)]}
    assert terms_digest(plain.terms("basic")) == terms_digest(
        catalog_of(read(document(entitlement=told))).terms("basic")
    )


def test_counters_are_named_after_what_they_count() -> None:
    """Feature aside; never after a plan."""
    anchors = [(Interval.MONTH, LimitAnchor.CALENDAR), (Interval.MONTH, LimitAnchor.SUBSCRIPTION)]
    anchors += [(Interval.DAY, LimitAnchor.ROLLING)]
    names = [Limit(units=1, interval=interval, anchor=anchor).window for interval, anchor in anchors]
    assert names == ["month", "month.subscription", "day.rolling"]
    assert Limit(units=1, anchor=LimitAnchor.LIFETIME).window == "lifetime"
    assert Rate(units=1, per=RatePer.MINUTE).bucket == "minute"
    assert SpendCap(amount="1", interval=Interval.MONTH).counter_in("EUR") == "$EUR@month"
    assert SpendCap(amount="1", currency="AIC", anchor=LimitAnchor.LIFETIME).counter_in("EUR") == "$AIC@lifetime"


def test_a_grace_is_counted_in_whole_units() -> None:
    """Five percent of 10 is nothing yet, of 20 it is one."""
    assert [Limit(units=units, grace_percent=5, interval=Interval.DAY).ceiling for units in (10, 20)] == [10, 21]
    assert Limit(units=10, mode=LimitMode.SOFT, interval=Interval.DAY).ceiling == -1
    assert SpendCap(amount="0.10", grace_percent=10, interval=Interval.DAY).ceiling == 110_000_000


def test_a_meter_that_counts_events_is_no_meter_of_slices() -> None:
    """One event tells of a whole slice."""
    meters = [CALLS, SEATS, {"code": "acts", "event": "calls", "aggregation": "count"}]
    failure = refusal(document(entitlement={"feature": "calls", "slice_units": 5}, meters=meters))
    assert failure.field == "plans[0].entitlements[0].slice_units"
    assert "'acts' reads a count of events" in failure.detail
