"""The life of an invoice as a table, and the sums that it must keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from billing_core.errors import Conflict, InvariantBroken
from billing_core.invoices.invoice import (
    Invoice,
    InvoiceAct,
    InvoiceReason,
    InvoiceState,
    Totals,
    finalized,
    number_text,
    state_after,
    totals_of,
)
from billing_core.invoices.line import Line, LineKind

START, END = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
DRAFT = Invoice(
    tenant_id="t",
    invoice_id="inv_1",
    customer_id="c",
    subscription_id="sub_1",
    number=None,
    currency="USD",
    state=InvoiceState.DRAFT,
    reason=InvoiceReason.PERIOD,
    time_zone="UTC",
    period_start_at=START,
    period_end_at=END,
    total_minor=11_000,
    prepaid_minor=9_700,
    due_minor=1_300,
    paid_minor=0,
    due_at=None,
    created_at=END,
    finalized_at=None,
    paid_at=None,
    voided_at=None,
)


def line(amount: int, prepaid: int = 0, kind: LineKind = LineKind.USAGE) -> Line:
    return Line(
        kind=kind,
        description="x",
        plan_code="p",
        plan_version=1,
        service_start_at=START,
        service_end_at=END,
        amount_minor=amount,
        prepaid_minor=prepaid,
    )


@pytest.mark.parametrize(
    ("state", "act", "following"),
    [
        ("draft", "finalize", "finalized"),
        ("draft", "pay", None),
        ("draft", "void", "void"),
        ("finalized", "finalize", None),
        ("finalized", "pay", "paid"),
        ("finalized", "void", "void"),
        ("paid", "finalize", None),
        ("paid", "pay", None),
        ("paid", "void", None),
        ("void", "finalize", None),
        ("void", "pay", None),
        ("void", "void", None),
    ],
)
def test_a_state_allows_an_act_or_refuses_it(state: str, act: str, following: str | None) -> None:
    """Seven of twelve are refusals, each naming the state."""
    if following is not None:
        assert state_after(InvoiceState(state), InvoiceAct(act)) == following
        return
    with pytest.raises(Conflict, match=f"that is {state} cannot be"):
        state_after(InvoiceState(state), InvoiceAct(act))


def test_finalizing_gives_a_number_and_a_day_to_pay_by() -> None:
    """And pays at once what has nothing due."""
    final = finalized(DRAFT, 42, now=END, terms_days=30)
    assert (final.state, final.number, final.paid_at) == (InvoiceState.FINALIZED, "INV-000042", None)
    assert (final.finalized_at, final.due_at) == (END, END + timedelta(days=30))
    nothing = msgspec.structs.replace(DRAFT, prepaid_minor=11_000, due_minor=0)
    assert finalized(nothing, 1, now=END, terms_days=30).state is InvoiceState.PAID
    with pytest.raises(Conflict):
        finalized(final, 43, now=END, terms_days=30)


def test_numbers_grow_beyond_six_digits() -> None:
    """A million invoices are no reason to begin anew."""
    assert [number_text(n) for n in (1, 999_999, 1_000_000)] == ["INV-000001", "INV-999999", "INV-1000000"]


def test_totals_are_sums_and_never_below_zero() -> None:
    """Not the total, and not what is due."""
    totals = totals_of([line(10_000, 9_700), line(1_000, kind=LineKind.FEE)])
    assert (totals.total_minor, totals.prepaid_minor, totals.due_minor) == (11_000, 9_700, 1_300)
    assert totals_of([]) == Totals(total_minor=0, prepaid_minor=0)
    for broken in ([line(-1)], [line(5, 6)]):
        with pytest.raises(InvariantBroken, match="never owes"):
            totals_of(broken)
