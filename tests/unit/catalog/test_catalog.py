"""Terms, digests, rates and tariffs of a sound catalog."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import msgspec
import pytest

from billing_core.catalog.catalog import (
    Catalog,
    PlanTerms,
    PlanVersion,
    canonical_json,
    catalog_of,
    document_of_toml,
    terms_digest,
)
from billing_core.catalog.document import Model, PackageRounding, Plan, Price, PriceTier
from billing_core.catalog.rate import rates_of
from billing_core.catalog.tariff import tariff_of
from billing_core.contract.snapshot import Tier, Window, WindowKind
from billing_core.errors import InvalidInput, NotFound, UnknownField
from billing_core.values.period import Period

TEXT = """
[[meters]]
code = "calls"
event = "calls"
aggregation = "sum"
field = "quantity"
[[meters]]
code = "bytes"
event = "transfer"
aggregation = "sum"
field = "bytes"
[[features]]
code = "calls"
kind = "metered"
meter = "calls"
[[features]]
code = "dark_mode"
kind = "switch"
[[plans]]
code = "basic"
currency = "USD"
entitlements = [{ feature = "calls" }]
prices = [{ code = "bytes", meter = "bytes", model = "per_unit", unit_amount = "0.10" }]
[[plans]]
code = "empty"
currency = "EUR"
"""
FOREVER = Window(kind=WindowKind.LIFETIME)


def catalog(text: str = TEXT) -> Catalog:
    return catalog_of(document_of_toml(text))


def test_terms_hold_what_the_plan_names_and_nothing_else() -> None:
    """The meters of its prices and of its features, sorted by code."""
    terms = catalog().terms("basic")
    assert [meter.code for meter in terms.meters] == ["bytes", "calls"]
    assert [feature.code for feature in terms.features] == ["calls"]
    assert catalog().terms("empty") == PlanTerms(plan=Plan(code="empty", currency="EUR"))


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ('code = "dark_mode"', 'code = "light_mode"', True),
        ('currency = "EUR"', 'currency = "CHF"', True),
        ('unit_amount = "0.10"', 'unit_amount = "0.11"', False),
        ('aggregation = "sum"\nfield = "bytes"', 'aggregation = "max"\nfield = "bytes"', False),
        ('entitlements = [{ feature = "calls" }]', 'entitlements = [{ feature = "calls", enabled = true }]', True),
        ('entitlements = [{ feature = "calls" }]', "entitlements = []", False),
    ],
)
def test_a_plan_keeps_its_digest_while_its_terms_stay(before: str, after: str, same: bool) -> None:
    """What another plan or an unused feature says makes no new version; what the plan uses does."""
    assert before in TEXT
    changed = catalog(TEXT.replace(before, after))
    assert (terms_digest(changed.terms("basic")) == terms_digest(catalog().terms("basic"))) is same


def test_terms_read_back_as_they_were_written() -> None:
    """Their canonical JSON has sorted keys and leaves defaults out."""
    terms = catalog().terms("basic")
    raw = canonical_json(terms)
    assert msgspec.json.decode(raw, type=PlanTerms) == terms
    assert b'{"entitlements":' not in raw[:20]
    assert b'"plan":{"code":"basic","currency":"USD","entitlements":[{"feature":"calls"}],"prices":[' in raw


def test_look_ups_name_what_is_missing() -> None:
    """Not found, with the kind of thing."""
    terms = catalog().terms("basic")
    for look in (catalog().plan, catalog().meter, catalog().feature, terms.meter, terms.feature, terms.price):
        with pytest.raises(NotFound, match="'nothing'"):
            look("nothing")
    assert terms.entitlement("nothing") is None
    assert terms.entitlement("calls") is not None


def test_a_price_is_named_by_plan_version_and_code() -> None:
    """The name that counters and invoice lines carry."""
    version = PlanVersion(version=3, terms=catalog().terms("basic"))
    assert version.price_id(version.terms.price("bytes")) == "basic:3:bytes"


@pytest.mark.parametrize(
    ("text", "kind", "field"),
    [
        ("plans = [", InvalidInput, "body"),
        ('[[plans]]\ncode = "p"\ncurrency = "USD"\ncolour = "red"', UnknownField, "plans[0].colour"),
        ('[[plans]]\ncode = "p"\ncurrency = "USD"\nfee_amount = 20.5', InvalidInput, "plans[0].fee_amount"),
    ],
)
def test_a_toml_text_that_is_no_catalog_says_where(text: str, kind: type[InvalidInput], field: str) -> None:
    """Broken TOML, unknown words, a float where an amount belongs."""
    with pytest.raises(kind) as caught:
        document_of_toml(text)
    assert caught.value.field == field


def price(**words: object) -> Price:
    return Price(code="p", meter="m", **({"model": Model.PER_UNIT} | words))


def test_a_rate_per_hours_of_the_period_waits_for_the_period() -> None:
    """15.00 over the 744 hours of March."""
    timed = price(unit_amount="15", per="hours_of_period")
    timed = msgspec.convert(msgspec.to_builtins(timed), Price)
    march = Period(start_at=datetime(2026, 3, 1, tzinfo=UTC), end_at=datetime(2026, 4, 1, tzinfo=UTC))
    assert rates_of(timed, march).tiers[0].unit_nanos == Fraction(15 * 10**9, 744)
    with pytest.raises(InvalidInput, match="before the period is known"):
        rates_of(timed)


@pytest.mark.parametrize(
    ("words", "package_units", "batch", "tiers"),
    [
        ({"unit_amount": "2.50", "per": 1_000_000}, 1, 1, (Tier(upto=0, nanos_per_batch=2500),)),
        ({"unit_amount": "0.0083", "per": 3}, 1, 3, (Tier(upto=0, nanos_per_batch=8_300_000),)),
        (
            {"unit_amount": "1", "model": Model.PACKAGE, "package_units": 10},
            10,
            1,
            (Tier(upto=0, nanos_per_batch=10**9),),
        ),
        (
            {
                "unit_amount": "1",
                "model": Model.PACKAGE,
                "package_units": 10,
                "free_units": 20,
                "flat_amount": "0.5",
            },
            10,
            1,
            (Tier(upto=2, nanos_per_batch=0), Tier(upto=0, nanos_per_batch=10**9, flat_nanos=5 * 10**8)),
        ),
        (
            {
                "model": Model.GRADUATED,
                "package_units": 3600,
                "package_rounding": PackageRounding.NONE,
                "tiers": (PriceTier(upto=10, unit_amount="0.15"), PriceTier(unit_amount="0.10")),
            },
            1,
            9,
            (Tier(upto=36_000, nanos_per_batch=375_000), Tier(upto=0, nanos_per_batch=250_000)),
        ),
    ],
)
def test_a_tariff_is_the_price_in_whole_numbers(
    words: dict[str, object], package_units: int, batch: int, tiers: tuple[Tier, ...]
) -> None:
    """One denominator for all rates; free units are a tier; an unrounded conversion moves into the bounds."""
    tariff = tariff_of(price(**words), price_id="p:1:p", currency="USD", window=FOREVER)
    assert (tariff.package_units, tariff.batch, tariff.tiers) == (package_units, batch, tiers)
