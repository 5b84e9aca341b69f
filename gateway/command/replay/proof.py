"""The proof: what was billed, collected and recognized, held against the trace and its list price.

Both sides are worked out apart: here the trace, two rates and fractions, there the gate, the stream, Postgres and
the books. Each finding is an equality; one that does not hold says both sides. An invoice rounds once per line, the
books do not round at all: so a customer's line is the exact price rounded half away from zero, and what the gate
charged and the books recognized is the exact price to the nano (rounded down, where a price is no whole number of
nanos).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from billing_core.values.money import to_minor, to_nanos
from gateway.command.replay.cast import Actor
from gateway.command.replay.list_price import ListPrice
from gateway.command.replay.trace import Trace


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What the house says of one customer in the end. `number` and `state` are those of the period's invoice.

    Units: minor units and nanos of the plan's currency. Totals are over all invoices of the customer;
    `served_fees_minor` are the fees of periods that have ended.
    """

    actor: Actor
    number: str = ""
    state: str = ""
    input_units: int = 0
    output_units: int = 0
    input_minor: int = 0
    output_minor: int = 0
    usage_prepaid_minor: int = 0
    fees_minor: int = 0
    served_fees_minor: int = 0
    total_minor: int = 0
    prepaid_minor: int = 0
    due_minor: int = 0
    paid_minor: int = 0
    top_up_nanos: int = 0
    charged_nanos: int = 0
    balance_nanos: int = 0
    revenue_usage_nanos: int = 0
    revenue_fees_nanos: int = 0


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What the house says of all customers together. `accounts` are signed nanos, debits positive."""

    accounts: Mapping[str, int]
    reconcile_nanos: int
    reconcile_findings: int

    def account(self, name: str) -> int:
        """What stands in the account; 0 where nothing was ever booked."""
        return self.accounts.get(name, 0)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One equality: what it says, and both sides."""

    law: str
    expected: int
    found: int
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether both sides are the same."""
        return self.expected == self.found


def prove(
    trace: Trace, accounts: tuple[Account, ...], *, price: ListPrice, books: Books, settled: int
) -> tuple[Finding, ...]:
    """All equalities; `settled` is how many requests the gate saw through."""
    served = Finding(law="every request was served", expected=len(trace.requests), found=settled, unit="requests")
    return (
        served,
        *_quantities(trace, accounts),
        *_money(price, accounts),
        *_bookings(price, accounts, books=books),
    )


def exact_nanos(actor: Actor, price: ListPrice) -> int:
    """What the actor's share costs in the wallet: each price rounded down to the nano."""
    return int(price.input_nanos * actor.share.input_units) + int(price.output_nanos * actor.share.output_units)


def _quantities(trace: Trace, accounts: tuple[Account, ...]) -> Iterator[Finding]:
    yield Finding(
        law="billed input is the trace's",
        expected=trace.input_units,
        found=sum(one.input_units for one in accounts),
        unit="tokens",
    )
    yield Finding(
        law="billed output is the trace's",
        expected=trace.output_units,
        found=sum(one.output_units for one in accounts),
        unit="tokens",
    )
    strangers = [
        one
        for one in accounts
        if (one.input_units, one.output_units) != (one.actor.share.input_units, one.actor.share.output_units)
    ]
    yield Finding(law="who is billed for requests of another", expected=0, found=len(strangers), unit="customers")


def _money(price: ListPrice, accounts: tuple[Account, ...]) -> Iterator[Finding]:
    exact = sum(exact_nanos(one.actor, price) for one in accounts)
    lines = [_lines_minor(one.actor, price) for one in accounts]
    yield Finding(
        law="the gate charged the exact price",
        expected=exact,
        found=sum(one.charged_nanos for one in accounts),
        unit="nanos",
    )
    yield Finding(
        law="usage revenue is the exact price",
        expected=exact,
        found=sum(one.revenue_usage_nanos for one in accounts),
        unit="nanos",
    )
    yield Finding(
        law="usage lines are the exact price, each rounded once",
        expected=sum(map(sum, lines)),
        found=sum(one.input_minor + one.output_minor for one in accounts),
        unit="minor units",
    )
    strangers = [
        one for one, line in zip(accounts, lines, strict=True) if line != (one.input_minor, one.output_minor)
    ]
    yield Finding(law="who has a line that is another amount", expected=0, found=len(strangers), unit="customers")
    yield Finding(
        law="wallets paid for all usage",
        expected=sum(one.input_minor + one.output_minor for one in accounts),
        found=sum(one.usage_prepaid_minor for one in accounts),
        unit="minor units",
    )


def _lines_minor(actor: Actor, price: ListPrice) -> tuple[int, int]:
    """The two usage lines of an actor, rounded as an invoice does."""
    return (
        to_minor(price.input_nanos * actor.share.input_units, price.currency),
        to_minor(price.output_nanos * actor.share.output_units, price.currency),
    )


def _bookings(price: ListPrice, accounts: tuple[Account, ...], *, books: Books) -> Iterator[Finding]:
    served = to_nanos(sum(one.served_fees_minor for one in accounts), price.currency)
    fees = to_nanos(sum(one.fees_minor for one in accounts), price.currency)
    paid = to_nanos(sum(one.paid_minor for one in accounts), price.currency)
    top_ups = sum(one.top_up_nanos for one in accounts)
    exact = sum(exact_nanos(one.actor, price) for one in accounts)
    laws = (
        (
            "all that is due is paid",
            sum(one.due_minor for one in accounts),
            sum(one.paid_minor for one in accounts),
            "minor units",
        ),
        ("cash is top-ups and paid invoices", top_ups + paid, books.account("cash"), "nanos"),
        ("no receivable is open", 0, books.account("accounts_receivable"), "nanos"),
        ("contract liability is top-ups less usage", exact - top_ups, books.account("contract_liability"), "nanos"),
        ("wallets hold it", top_ups - exact, sum(one.balance_nanos for one in accounts), "nanos"),
        (
            "fee revenue is the fees of what was served",
            served,
            sum(one.revenue_fees_nanos for one in accounts),
            "nanos",
        ),
        (
            "fees are recognized or deferred",
            fees,
            -books.account("revenue_fees") - books.account("deferred_revenue"),
            "nanos",
        ),
        ("the trial balance adds up to zero", 0, sum(books.accounts.values()), "nanos"),
        ("reconcile: the difference is zero", 0, books.reconcile_nanos, "nanos"),
        ("reconcile: what breaks a law of the books", 0, books.reconcile_findings, "findings"),
    )
    for law, expected, found, unit in laws:
        yield Finding(law=law, expected=expected, found=found, unit=unit)
