"""What a replay shows in the end: the traffic, the customers with their bills, the books, and the proof."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.console import Group, RenderableType

from gateway.command.replay.latency import Spread, spread_of
from gateway.command.replay.list_price import ListPrice
from gateway.command.replay.proof import Account, Books, Finding
from gateway.command.replay.trace import Trace
from gateway.command.replay.traffic import Tally
from gateway.command.terminal.table import facts_of, minor, nanos, table_of


def traffic_page(trace: Trace, tally: Tally, *, seconds: float) -> RenderableType:
    """How the traffic went. A latency counts from the first attempt of an act to its answer."""
    done = f"{tally.done:,} of {len(trace.requests):,} requests in {seconds:,.1f} s"
    rate = f"{tally.done / seconds:,.0f} requests a second, each a hold and a settle" if seconds else ""
    refused = ", ".join(f"{count:,} {reason}" for reason, count in sorted(tally.refused.items()))
    return facts_of(
        (
            ("traffic", done),
            ("rate", rate),
            ("hold", _latency(spread_of(tally.hold_ns))),
            ("settle", _latency(spread_of(tally.settle_ns))),
            ("sent again", f"{tally.retries:,} acts had to be" if tally.retries else ""),
            ("refused", refused),
        )
    )


def _latency(spread: Spread) -> str:
    return f"p50 {spread.p50_ms:,.1f} ms, p99 {spread.p99_ms:,.1f} ms, longest {spread.longest_ms:,.1f} ms"


_HEADINGS: Final = (
    "Customer",
    "Invoice",
    ">Input",
    ">Output",
    ">Billed",
    ">Prepaid",
    ">Due",
    "Collected by",
    "State",
    ">Usage revenue",
    ">Fee revenue",
)


def account_page(accounts: tuple[Account, ...], price: ListPrice) -> RenderableType:
    """Bills, collection and revenue, one customer a line, and the sums."""
    rows = [(one.actor.customer_id, one.number, *_cells((one,), price)) for one in accounts]
    return table_of(_HEADINGS, (*rows, ("all", "", *_cells(accounts, price))))


def _cells(accounts: tuple[Account, ...], price: ListPrice) -> tuple[str | int, ...]:
    """What these customers add up to; how they pay, and whether they have, where they all do the same."""
    currency = price.currency
    return (
        sum(one.input_units for one in accounts),
        sum(one.output_units for one in accounts),
        minor(sum(one.total_minor for one in accounts), currency),
        minor(sum(one.prepaid_minor for one in accounts), currency),
        minor(sum(one.due_minor for one in accounts), currency),
        _same(one.actor.method.value for one in accounts),
        _same(one.state for one in accounts),
        nanos(sum(one.revenue_usage_nanos for one in accounts), currency),
        nanos(sum(one.revenue_fees_nanos for one in accounts), currency),
    )


def _same(words: Iterable[str]) -> str:
    different = set(words)
    return different.pop() if len(different) == 1 else ""


def books_page(books: Books, price: ListPrice) -> RenderableType:
    """The trial balance."""
    rows = [
        (name, nanos(max(amount, 0), price.currency), nanos(max(-amount, 0), price.currency))
        for name, amount in sorted(books.accounts.items())
    ]
    debit = sum(max(amount, 0) for amount in books.accounts.values())
    credit = sum(max(-amount, 0) for amount in books.accounts.values())
    rows.append(("sum", nanos(debit, price.currency), nanos(credit, price.currency)))
    return table_of(("Account", ">Debit", ">Credit"), rows)


def proof_page(findings: tuple[Finding, ...]) -> RenderableType:
    """Every equality, and what is wrong with those that do not hold."""
    table = table_of(
        ("", "Proof", ">Expected", ">Found", ""),
        (("✓" if one.holds else "✗", one.law, one.expected, one.found, one.unit) for one in findings),
    )
    wrong = sum(not one.holds for one in findings)
    said = f"{wrong} of {len(findings)} do not hold." if wrong else f"All {len(findings)} hold."
    return Group(table, "", said)
