"""Every rule of a catalog refuses, by the path of what breaks it, and most lines here are refusals."""

from __future__ import annotations

import msgspec
import pytest

from billing_core.catalog.catalog import catalog_of
from billing_core.catalog.document import CatalogDocument
from billing_core.contract.problem import decode_json
from billing_core.errors import InvalidInput, UnknownField

Words = dict[str, object]
_DECODER = msgspec.json.Decoder(CatalogDocument)

CALLS = {"code": "calls", "event": "calls", "aggregation": "sum", "field": "quantity"}
HOSTS = {"code": "hosts", "event": "host", "aggregation": "unique", "field": "name", "group_by": ["region"]}
CALL_FEATURE = {"code": "calls", "kind": "metered", "meter": "calls"}
DARK = {"code": "dark_mode", "kind": "switch"}
SEATS = {"code": "seats", "kind": "static"}
OPEN = {"unit_amount": "1"}


def words(*, plan: Words | None = None, **parts: object) -> Words:
    """A sound catalog, with parts of it replaced."""
    sound = {"code": "basic", "currency": "USD", "entitlements": [{"feature": "calls"}], "prices": [priced()]}
    return {
        "meters": [CALLS, HOSTS],
        "features": [CALL_FEATURE, DARK, SEATS],
        "plans": [sound | (plan or {})],
        **parts,
    }


def priced(**more: object) -> Words:
    return {"code": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "0.01"} | more


def tiered(*tiers: Words, model: str = "graduated", **more: object) -> Words:
    return {"code": "calls", "meter": "calls", "model": model, "tiers": list(tiers), **more}


def prepaid(**more: object) -> Words:
    return priced() | {"pay": "prepaid", "feature": "calls"} | more


def refusal(document: Words) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        catalog_of(decode_json(msgspec.json.encode(document), _DECODER))
    return caught.value


@pytest.mark.parametrize(
    "price",
    [
        priced(),
        priced(per=1_000_000, flat_amount="1", free_units=7),
        priced(per="hours_of_period"),
        priced(model="package", package_units=10),
        {"code": "calls", "meter": "hosts", "model": "flat", "flat_amount": "5", "first_flat_always_due": True},
        tiered({"upto": 10, **OPEN}, {"upto": "20.5", **OPEN}, OPEN),
        tiered({"upto": 10, **OPEN}, OPEN, model="volume", minimum_amount="1", maximum_amount="1"),
        prepaid(),
        prepaid(model="package", package_units=10, free_units=20),
        tiered({"upto": 10, **OPEN, "flat_amount": "0.5"}, OPEN, pay="prepaid", feature="calls"),
    ],
)
def test_a_sound_price_is_taken(price: Words) -> None:
    """Each model, in arrears and prepaid."""
    document = decode_json(msgspec.json.encode(words(plan={"prices": [price]})), _DECODER)
    assert catalog_of(document).plan("basic").prices[0].code == "calls"


@pytest.mark.parametrize(
    ("price", "field", "rule"),
    [
        (priced(unit_amount=""), "unit_amount", "a per_unit price needs it"),
        (priced(unit_amount="-1"), "unit_amount", "must not be negative"),
        (priced(unit_amount="1e3"), "unit_amount", "is not an amount"),
        (priced(unit_amount="0.1 "), "unit_amount", "is not an amount"),
        (priced(unit_amount="NaN"), "unit_amount", "is not an amount"),
        (priced(tiers=[OPEN]), "tiers", "does not read it"),
        (priced(per=0), "per", "from 1 to"),
        (priced(package_units=0), "package_units", "from 1 to"),
        (priced(free_units=-1), "free_units", "from 0 to"),
        (priced(free_units=2**53), "free_units", "from 0 to"),
        (priced(first_flat_always_due=True), "first_flat_always_due", "no first flat amount"),
        (priced(meter="nothing"), "meter", "there is no meter 'nothing'"),
        (priced(minimum_amount="2", maximum_amount="1"), "minimum_amount", "must not be above"),
        (priced(maximum_amount="x"), "maximum_amount", "is not an amount"),
        (priced(feature="calls"), "feature", "only a prepaid price"),
        (priced(model="flat", unit_amount=""), "flat_amount", "a flat price needs it"),
        (priced(model="flat", unit_amount="", flat_amount="1", per=10), "model", "neither package_units nor per"),
        (priced(model="graduated", unit_amount=""), "tiers", "a graduated price needs it"),
        (tiered({"upto": 10, **OPEN}), "tiers", "the last tier must be open"),
        (tiered({"upto": 10, **OPEN}, model="volume"), "tiers", "the last tier must be open"),
        (tiered({"upto": 10, **OPEN}, {"upto": 10, **OPEN}, OPEN), "tiers[1].upto", "tiers ascend"),
        (tiered({"upto": 10, **OPEN}, {"upto": 5, **OPEN}, OPEN), "tiers[1].upto", "tiers ascend"),
        (tiered({"upto": 0, **OPEN}, OPEN), "tiers[0].upto", "tiers ascend"),
        (tiered({"upto": -1, **OPEN}, OPEN), "tiers[0].upto", "is not a number of units"),
        (tiered({"upto": "1e3", **OPEN}, OPEN), "tiers[0].upto", "is not a number of units"),
        (tiered({"upto": 2**53, **OPEN}, OPEN), "tiers[0].upto", "is not a number of units"),
        (tiered(OPEN, OPEN), "tiers[0].upto", "only the last tier may be open"),
        (tiered({"unit_amount": "-0.5"}), "tiers[0].unit_amount", "must not be negative"),
        (tiered({"flat_amount": "free"}), "tiers[0].flat_amount", "is not an amount"),
        (tiered({"upto": "1.5", **OPEN}, OPEN, package_units=10), "tiers[0].upto", "counts packages"),
        (tiered(*[{"upto": n, **OPEN} for n in range(1, 101)], OPEN), "tiers", "at most 100 tiers"),
        (tiered(OPEN, unit_amount="1"), "unit_amount", "does not read it"),
        (priced(pay="prepaid"), "feature", "names the feature"),
        (tiered(OPEN, model="volume", pay="prepaid", feature="calls"), "model", "cannot be prepaid"),
        (prepaid(flat_amount="1", first_flat_always_due=True), "first_flat_always_due", "nothing is due"),
        (prepaid(per="hours_of_period"), "per", "cannot wait"),
        (prepaid(minimum_amount="1"), "minimum_amount", "has no bounds"),
        (prepaid(package_units=10, package_rounding="down"), "package_rounding", "round packages down"),
        (prepaid(package_units=10, free_units=5), "free_units", "whole packages"),
        (prepaid(unit_amount="0.0000000001", per=2**53 - 1), "unit_amount", "integers below 2^53"),
        (prepaid(unit_amount="9007199.254740993"), "unit_amount", "integers below 2^53"),
        (prepaid(flat_amount="0.0000000001"), "flat_amount", "whole number of nanos"),
        (tiered({"upto": "0.5", **OPEN}, OPEN, pay="prepaid", feature="calls"), "tiers[0].upto", "whole units"),
        (prepaid(feature="nothing"), "feature", "there is no feature 'nothing'"),
        (prepaid(feature="dark_mode"), "feature", "has no quantity to charge for"),
        (prepaid(meter="hosts"), "meter", "groups them"),
    ],
)
def test_a_price_that_breaks_a_rule_is_refused(price: Words, field: str, rule: str) -> None:
    """The first fault is named by its path in the document."""
    failure = refusal(words(plan={"prices": [price]}))
    assert failure.field == f"plans[0].prices[0].{field}"
    assert rule in failure.detail


@pytest.mark.parametrize(
    ("plan", "field", "rule"),
    [
        ({"currency": "USX"}, "currency", "not an ISO 4217 currency"),
        ({"time_zone": "Mars/Base"}, "time_zone", "not an IANA time zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone", "not an IANA time zone"),
        ({"interval": "hour"}, "interval", "day, week, month"),
        ({"fee_amount": "-20"}, "fee_amount", "must not be negative"),
        ({"fee_amount": "20.001"}, "fee_amount", "whole number of minor units of USD"),
        ({"currency": "JPY", "fee_amount": "0.5"}, "fee_amount", "whole number of minor units of JPY"),
        ({"prices": [priced(), priced()]}, "prices[1].code", "already taken"),
        ({"prices": [prepaid(), prepaid(code="more")]}, "prices[1].feature", "already charged by price 'calls'"),
        ({"prices": [prepaid()], "entitlements": []}, "prices[0].feature", "no entitlement of 'calls'"),
        (
            {"entitlements": [{"feature": "calls"}, {"feature": "calls"}]},
            "entitlements[1].feature",
            "already taken",
        ),
        ({"entitlements": [{"feature": "nothing"}]}, "entitlements[0].feature", "there is no feature 'nothing'"),
        (
            {"entitlements": [{"feature": "seats"}]},
            "entitlements[0].value",
            "static feature that is enabled has a value",
        ),
        ({"entitlements": [{"feature": "dark_mode", "value": "1"}]}, "entitlements[0].value", "has no value"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused(plan: Words, field: str, rule: str) -> None:
    """Currency, zone, interval, fee, and what its parts say about each other."""
    failure = refusal(words(plan=plan))
    assert failure.field == f"plans[0].{field}"
    assert rule in failure.detail


@pytest.mark.parametrize(
    ("parts", "field", "rule"),
    [
        ({"meters": [CALLS, HOSTS, CALLS]}, "meters[2].code", "already taken by meters[0]"),
        ({"features": [CALL_FEATURE, DARK, DARK]}, "features[2].code", "already taken by features[1]"),
        ({"meters": [CALLS, {**HOSTS, "field": ""}]}, "meters[1].field", "needs the name of a field"),
        ({"meters": [CALLS, {**HOSTS, "aggregation": "count"}]}, "meters[1].field", "reads no field"),
        ({"meters": [CALLS, {**HOSTS, "scale": 2}]}, "meters[1].scale", "a unique is a whole number"),
        ({"meters": [CALLS, {**HOSTS, "scale": 13}]}, "meters[1].scale", "from 0 to 12"),
        ({"meters": [CALLS, {**HOSTS, "group_by": ["a", "a"]}]}, "meters[1].group_by[1]", "named twice"),
        ({"meters": [CALLS, {**HOSTS, "group_by": ["quantity"]}]}, "meters[1].group_by[0]", "to group by"),
        ({"meters": [CALLS, {**HOSTS, "group_by": list("abcde")}]}, "meters[1].group_by", "at most 4"),
        ({"features": [{**CALL_FEATURE, "meter": ""}]}, "features[0].meter", "names its meter"),
        ({"features": [{**CALL_FEATURE, "meter": "x"}]}, "features[0].meter", "there is no meter 'x'"),
        (
            {"features": [{**CALL_FEATURE, "meter": "hosts"}]},
            "features[0].meter",
            "must sum quantity of event 'calls'",
        ),
        ({"features": [CALL_FEATURE, {**DARK, "meter": "calls"}]}, "features[1].meter", "has no meter"),
    ],
)
def test_meters_and_features_that_break_a_rule_are_refused(parts: Words, field: str, rule: str) -> None:
    """Codes are taken once, and a check on a feature is counted by a meter that reads it."""
    failure = refusal(words(**parts))
    assert failure.field == field
    assert rule in failure.detail


@pytest.mark.parametrize(
    ("document", "kind", "field"),
    [
        ({"meters": [{**CALLS, "colour": 1}]}, UnknownField, "meters[0].colour"),
        ({"plan": []}, UnknownField, "plan"),
        ({"meters": [{"code": "x", "event": "x"}]}, InvalidInput, "meters[0].aggregation"),
        ({"meters": [{**CALLS, "code": "a:b"}]}, InvalidInput, "meters[0].code"),
        ({"plans": [{"code": "p", "currency": "USD", "fee_amount": 20.5}]}, InvalidInput, "plans[0].fee_amount"),
        ({"plans": [{"code": "p", "currency": "USD", "interval": "decade"}]}, InvalidInput, "plans[0].interval"),
    ],
)
def test_words_of_the_wrong_kind_are_refused_before_any_rule(
    document: Words, kind: type[InvalidInput], field: str
) -> None:
    """Unknown and missing words, codes with a colon, amounts that are numbers."""
    failure = refusal(document)
    assert type(failure) is kind
    assert failure.field == field


def test_every_fault_is_named_in_one_reading() -> None:
    """The first is the field; the others stand in the text."""
    failure = refusal(words(plan={"currency": "USX", "fee_amount": "-1", "prices": [priced(unit_amount="x")]}))
    assert failure.field == "plans[0].currency"
    assert "also plans[0].fee_amount: must not be negative" in failure.detail
    assert "also plans[0].prices[0].unit_amount" in failure.detail


def test_a_flood_of_faults_is_told_in_bounded_text() -> None:
    """Ten are named, the rest are counted."""
    prices = [priced(code=f"p{n}", unit_amount="x") for n in range(30)]
    assert refusal(words(plan={"prices": prices})).detail.endswith("and 20 more")
