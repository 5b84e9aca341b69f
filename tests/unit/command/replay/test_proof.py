"""The proof compares two ways of knowing; whatever differs by one is found."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest

from billing_core.contract.shipped import shipped
from billing_core.errors import InvalidInput
from gateway.command.replay.cast import Method, Share, cast_of, top_up_units
from gateway.command.replay.latency import spread_of
from gateway.command.replay.list_price import ListPrice, list_price_of
from gateway.command.replay.proof import Account, Books, prove
from gateway.command.replay.trace import Columns, read_trace
from gateway.command.terminal.document import read_toml

CATALOG = read_toml(shipped("catalogs/language_model.toml"))
PRICE = list_price_of(CATALOG, "team")
TRACE = read_trace(shipped("samples/llm_requests.csv"), Columns())


def perfect() -> tuple[tuple[Account, ...], Books]:
    """What a house says in which nothing went wrong."""
    accounts = tuple(perfect_account(actor) for actor in cast_of(TRACE, 3))
    usage = sum(one.charged_nanos for one in accounts)
    top_ups = sum(one.top_up_nanos for one in accounts)
    books = Books(
        accounts={
            "cash": top_ups + 3 * 40_000_000_000,
            "contract_liability": usage - top_ups,
            "deferred_revenue": -3 * 20_000_000_000,
            "revenue_fees": -3 * 20_000_000_000,
            "revenue_usage": -usage,
        },
        reconcile_nanos=0,
        reconcile_findings=0,
    )
    return accounts, books


def perfect_account(actor: object) -> Account:
    share: Share = actor.share  # type: ignore[attr-defined]
    nanos = 2_500 * share.input_units + 10_000 * share.output_units
    lines = [
        (2 * units * 10**2 + 10**9) // (2 * 10**9)
        for units in (2_500 * share.input_units, 10_000 * share.output_units)
    ]
    return Account(
        actor=actor,  # type: ignore[arg-type]
        number="INV-000001",
        state="paid",
        input_units=share.input_units,
        output_units=share.output_units,
        input_minor=lines[0],
        output_minor=lines[1],
        usage_prepaid_minor=sum(lines),
        fees_minor=4_000,
        served_fees_minor=2_000,
        total_minor=4_000 + sum(lines),
        prepaid_minor=sum(lines),
        due_minor=4_000,
        paid_minor=4_000,
        top_up_nanos=5 * 10**9,
        charged_nanos=nanos,
        balance_nanos=5 * 10**9 - nanos,
        revenue_usage_nanos=nanos,
        revenue_fees_nanos=20_000_000_000,
    )


def broken(accounts: tuple[Account, ...], books: Books, *, settled: int = 300) -> set[str]:
    findings = prove(TRACE, accounts, price=PRICE, books=books, settled=settled)
    return {finding.law for finding in findings if not finding.holds}


def test_a_perfect_house_is_proved() -> None:
    """Every equality holds."""
    assert broken(*perfect()) == set()


@pytest.mark.parametrize(
    ("field", "law"),
    [
        ("input_units", "billed input is the trace's"),
        ("output_units", "billed output is the trace's"),
        ("charged_nanos", "the gate charged the exact price"),
        ("revenue_usage_nanos", "usage revenue is the exact price"),
        ("input_minor", "usage lines are the exact price, each rounded once"),
        ("usage_prepaid_minor", "wallets paid for all usage"),
        ("due_minor", "all that is due is paid"),
        ("balance_nanos", "wallets hold it"),
        ("fees_minor", "fees are recognized or deferred"),
        ("revenue_fees_nanos", "fee revenue is the fees of what was served"),
    ],
)
@pytest.mark.parametrize("by", [1, -1])
def test_one_unit_too_many_or_too_few_is_found(field: str, law: str, by: int) -> None:
    """In whatever the house says of one customer."""
    accounts, books = perfect()
    changed = msgspec.structs.replace(accounts[1], **{field: getattr(accounts[1], field) + by})
    assert law in broken((accounts[0], changed, accounts[2]), books)


@pytest.mark.parametrize("name", ["cash", "contract_liability", "deferred_revenue", "accounts_receivable"])
def test_a_book_that_is_off_by_a_nano_is_found(name: str) -> None:
    """And with it the trial balance."""
    accounts, books = perfect()
    changed = msgspec.structs.replace(books, accounts={**books.accounts, name: books.account(name) + 1})
    assert "the trial balance adds up to zero" in broken(accounts, changed)
    assert len(broken(accounts, changed)) == 2


def test_what_two_customers_exchange_is_found() -> None:
    """The sums alone would hold."""
    accounts, books = perfect()
    swapped = (
        msgspec.structs.replace(accounts[0], input_units=accounts[1].input_units),
        msgspec.structs.replace(accounts[1], input_units=accounts[0].input_units),
        accounts[2],
    )
    assert broken(swapped, books) == {"who is billed for requests of another"}


def test_a_request_that_was_not_served_is_found() -> None:
    """A refusal is not a success that costs less."""
    assert broken(*perfect(), settled=299) == {"every request was served"}


def test_the_whole_real_trace_costs_what_was_worked_out_by_hand() -> None:
    """22,361,870 tokens at 2.50 and 4,088,665 at 10.00 a million."""
    assert PRICE.cost_nanos(22_361_870, 4_088_665) == 96_791_325_000


def test_a_list_price_may_be_a_fraction_of_a_nano() -> None:
    """It stays one."""
    plan = {
        "code": "p",
        "currency": "USD",
        "prices": [price("input_tokens", unit_amount="1", per=3), price("output_tokens", unit_amount="2")],
    }
    found = list_price_of({"plans": [plan]}, "p")
    assert found == ListPrice(
        plan="p", currency="USD", fee_nanos=0, input_nanos=Fraction(10**9, 3), output_nanos=Fraction(2 * 10**9)
    )


def price(meter: str, *, unit_amount: str, per: int = 1) -> dict[str, object]:
    words = {"code": meter, "meter": meter, "model": "per_unit", "pay": "prepaid"}
    return words | {"unit_amount": unit_amount, "per": per}


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        ({"plans": []}, "has no plan 'p'"),
        ({"plans": [{"code": "p", "currency": "USD"}]}, "needs one prepaid per_unit price on input_tokens"),
        ({"plans": "none"}, "Expected `array`"),
    ],
)
def test_a_catalog_that_cannot_be_replayed_is_refused(document: dict[str, object], rule: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidInput, match=rule):
        list_price_of(document, "p")


def test_the_cast_shares_the_whole_trace() -> None:
    """Half pay by card; the others by ACH and wire in turn."""
    cast = cast_of(TRACE, 5)
    assert [actor.method for actor in cast] == [
        Method.STRIPE,
        Method.STRIPE,
        Method.STRIPE,
        Method.ACH,
        Method.WIRE,
    ]
    assert sum(actor.share.requests for actor in cast) == len(TRACE.requests)
    assert sum(actor.share.input_units for actor in cast) == TRACE.input_units
    assert len({actor.customer_id for actor in cast}) == 5


def test_a_top_up_covers_the_share_and_the_holds() -> None:
    """Rounded up to a whole unit, and never less than five."""
    share = Share(requests=1, input_units=4_000_000, output_units=0)
    assert top_up_units(share, PRICE, held_nanos=Fraction(1)) == 12
    assert top_up_units(share, PRICE, held_nanos=Fraction(0)) == 11
    assert top_up_units(Share(), PRICE, held_nanos=Fraction(1)) == 5


def test_percentiles_are_measured_values() -> None:
    """By nearest rank."""
    spread = spread_of([million * 1_000_000 for million in range(100, 0, -1)])
    assert (spread.p50_ms, spread.p99_ms, spread.longest_ms) == (50.0, 99.0, 100.0)
    assert spread_of([]).count == 0
    assert spread_of([7_000_000]).p99_ms == 7.0
