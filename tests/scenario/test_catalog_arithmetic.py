"""Each starter catalog gets its company's published arithmetic right: exact before rounding, and to the cent."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from billing_core.catalog.catalog import Catalog, PlanTerms, catalog_of, document_of_toml
from billing_core.catalog.document import Pay
from billing_core.catalog.rate import rates_of
from billing_core.catalog.tariff import tariff_of
from billing_core.contract.shipped import shipped
from billing_core.contract.snapshot import Window, WindowKind
from billing_core.metering.sample import Sample, aggregate
from billing_core.pricing.charge import Charge, charge_of
from billing_core.pricing.cumulative import cumulative_nanos, debit_nanos
from billing_core.values.money import NANOS_PER_UNIT, to_minor
from billing_core.values.period import Period

MARCH = Period(start_at=datetime(2026, 3, 1, tzinfo=UTC), end_at=datetime(2026, 4, 1, tzinfo=UTC))
FEBRUARY = Period(start_at=datetime(2026, 2, 1, tzinfo=UTC), end_at=datetime(2026, 3, 1, tzinfo=UTC))
CATALOGS = ("language_model", "messaging", "monitoring", "speech")


def catalog(name: str) -> Catalog:
    return catalog_of(document_of_toml(shipped(f"catalogs/{name}.toml").read_text("utf-8")))


def charge(terms: PlanTerms, price: str, quantity: int | Decimal, period: Period = MARCH) -> Charge:
    return charge_of(rates_of(terms.price(price), period), quantity)


@pytest.mark.parametrize("name", CATALOGS)
def test_a_starter_catalog_holds_together_and_says_how_the_company_charges(name: str) -> None:
    """It passes every rule, and its first lines tell an operator what it does."""
    assert catalog(name).document.plans
    head = shipped(f"catalogs/{name}.toml").read_text("utf-8").split("[[meters]]")[0]
    assert "charged" in head
    assert "Worked month" in head


@pytest.mark.parametrize(
    ("name", "plan", "price", "quantity", "exact", "cents"),
    [
        ("messaging", "pay-as-you-go", "sms", 12_345, "102.4635", 10_246),
        ("messaging", "pay-as-you-go", "sms", 1, "0.0083", 1),
        ("messaging", "pay-as-you-go", "voice", 4, "0.0560", 6),
        ("messaging", "pay-as-you-go", "authentication", 1_000, "50.00", 5_000),
        ("speech", "pay-as-you-go", "recorded", 3_600, "0.15", 15),
        ("speech", "pay-as-you-go", "recorded", 1_234_567, "1234567/24000", 5_144),
        ("speech", "pay-as-you-go", "live", 98_765, "12.345625", 1_235),
        ("speech", "pay-as-you-go", "live", 1, "0.000125", 0),
        ("monitoring", "pro", "hosts", 3 * 744 + 2, "2234/49.6", 4_504),
        ("monitoring", "pro", "log_ingestion", Decimal("1234.5678"), "123.45678", 12_346),
        ("monitoring", "pro", "log_events", 98_765_432, "167.9012344", 16_790),
        ("language_model", "pay-as-you-go", "input", 22_361_870, "55.904675", 5_590),
        ("language_model", "pay-as-you-go", "output", 4_088_665, "40.88665", 4_089),
        ("language_model", "team", "input", 374, "0.000935", 0),
    ],
)
def test_a_worked_month_comes_out_exact_and_to_the_cent(
    name: str, plan: str, price: str, quantity: int | Decimal, exact: str, cents: int
) -> None:
    """The exact amount first, then the one rounding of the line."""
    amount = charge(catalog(name).terms(plan), price, quantity).amount_nanos
    over, _, under = exact.partition("/")
    assert Fraction(amount, NANOS_PER_UNIT) == Fraction(over) / Fraction(under or "1")
    assert to_minor(amount, "USD") == cents


def test_a_host_that_lived_two_hours_pays_two_hours() -> None:
    """Its agent reports every ten minutes; the hours that it was seen in are counted once each."""
    terms = catalog("monitoring").terms("pro")
    born = datetime(2026, 3, 7, 14, tzinfo=UTC)
    reports = [born + timedelta(minutes=10 * n) for n in range(12)]
    samples = [Sample(at=at, text=f"web-1/{at:%Y-%m-%dT%H}") for at in reports]
    hours = aggregate(terms.meter("host_hours").aggregation, samples)
    assert hours == 2
    amount = charge(terms, "hosts", hours).amount_nanos
    assert Fraction(amount, NANOS_PER_UNIT) == Fraction(15 * 2, 744)
    assert to_minor(amount, "USD") == 4


@pytest.mark.parametrize("period", [FEBRUARY, MARCH], ids=["of 28 days", "of 31 days"])
def test_a_host_that_lived_all_month_pays_the_published_price(period: Period) -> None:
    """15.00, however many hours the month has."""
    amount = charge(catalog("monitoring").terms("pro"), "hosts", period.seconds // 3600, period).amount_nanos
    assert to_minor(amount, "USD") == 1_500
    assert amount == 15 * NANOS_PER_UNIT


def test_call_minutes_are_rounded_up_for_each_call() -> None:
    """61, 60 and 10 seconds are two, one and one minute; their sum, 131 seconds, would only be three."""
    terms = catalog("messaging").terms("pay-as-you-go")
    minutes = [-(-seconds // 60) for seconds in (61, 60, 10)]
    assert charge(terms, "voice", sum(minutes)).amount_nanos == 4 * 14_000_000


def test_speech_is_billed_by_the_second_and_not_by_the_begun_minute() -> None:
    """Three clips of 20 seconds cost as much as one of a minute."""
    terms = catalog("speech").terms("pay-as-you-go")
    assert charge(terms, "recorded", 3 * 20).amount_nanos == Fraction(15, 100) * NANOS_PER_UNIT / 60


def test_token_debits_add_up_to_the_invoice_line() -> None:
    """What the gate takes request by request is the line's exact amount, whatever the requests were."""
    terms = catalog("language_model").terms("pay-as-you-go")
    price = terms.price("output")
    tariff = tariff_of(price, price_id="p", currency="USD", window=Window(kind=WindowKind.LIFETIME))
    chance, used, taken = random.Random(3), 0, 0
    for _ in range(500):
        tokens = chance.randrange(2_000)
        taken += debit_nanos(tariff, used_units=used, units=tokens)
        used += tokens
    assert taken == charge(terms, "output", used).amount_nanos == cumulative_nanos(tariff, used)


def test_the_demo_plan_has_prepaid_prices_on_the_features_that_the_replay_checks() -> None:
    """`tallygate up` and the replay rely on these codes."""
    terms = catalog("language_model").terms("pay-as-you-go")
    assert {price.feature: price.meter for price in terms.plan.prices} == {
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
    }
    assert {price.pay for price in terms.plan.prices} == {Pay.PREPAID}
    assert terms.plan.currency == "USD"


def test_the_team_plan_has_a_fee_a_static_value_a_switch_and_a_hard_limit() -> None:
    """20.00 in advance; the gate refuses request 10,001 of a day."""
    team = catalog("language_model").terms("team")
    assert team.plan.fee_amount == "20.00"
    entitled = {one.feature: one for one in team.plan.entitlements}
    assert entitled["max_context"].value == "1000000"
    assert entitled["fine_tuning"].enabled
    (limit,) = entitled["requests"].limits
    assert (limit.units, limit.ceiling, limit.window) == (10_000, 10_000, "day")
