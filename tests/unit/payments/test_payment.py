"""The life of a payment as a table: most news changes nothing, some is refused, little moves it on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from billing_core.errors import Conflict, InvalidInput
from billing_core.payments.payment import (
    Method,
    Payment,
    PaymentState,
    Purpose,
    Receipt,
    check_receipt,
    payment_after,
    received,
    retry_at,
)
from billing_core.payments.processor import ChargeResult, Outcome

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PAYMENT = Payment(
    tenant_id="t",
    payment_id="pay_1",
    customer_id="c",
    invoice_id="inv_1",
    purpose=Purpose.INVOICE,
    method=Method.STRIPE,
    currency="USD",
    amount_minor=1300,
    state=PaymentState.PROCESSING,
    attempt=1,
    processor_id="",
    reference="",
    request_key=None,
    failure_code="",
    top_up=None,
    next_try_at=NOW,
    attempted_at=NOW,
    received_at=None,
    created_at=NOW,
    settled_at=None,
)


def after(state: str, outcome: str, *, attempt: int = 1, news_of: int = 1) -> Payment:
    payment = msgspec.structs.replace(PAYMENT, state=PaymentState(state), attempt=attempt, processor_id="pi_1")
    result = ChargeResult(outcome=Outcome(outcome), processor_id="pi_1", failure_code="")
    return payment_after(payment, result, attempt=news_of, attempts=4, now=NOW)


@pytest.mark.parametrize(
    ("state", "outcome", "following"),
    [
        ("pending", "processing", "processing"),
        ("pending", "succeeded", "succeeded"),
        ("pending", "declined", "pending"),
        ("pending", "canceled", "canceled"),
        ("processing", "processing", "processing"),
        ("processing", "succeeded", "succeeded"),
        ("processing", "declined", "pending"),
        ("processing", "canceled", "canceled"),
        ("succeeded", "processing", "succeeded"),
        ("succeeded", "succeeded", "succeeded"),
        ("succeeded", "declined", "succeeded"),
        ("succeeded", "canceled", "succeeded"),
        ("failed", "processing", "failed"),
        ("failed", "succeeded", None),
        ("failed", "declined", "failed"),
        ("failed", "canceled", "failed"),
        ("canceled", "processing", "canceled"),
        ("canceled", "succeeded", None),
        ("canceled", "declined", "canceled"),
        ("canceled", "canceled", "canceled"),
    ],
)
def test_news_moves_a_payment_as_the_table_says(state: str, outcome: str, following: str | None) -> None:
    """Old news changes nothing; money for a payment that was given up is refused aloud."""
    if following is None:
        with pytest.raises(Conflict, match="money arrived"):
            after(state, outcome)
        return
    assert after(state, outcome).state == following


@pytest.mark.parametrize("outcome", ["processing", "declined", "canceled"])
def test_news_of_an_attempt_that_is_over_changes_nothing(outcome: str) -> None:
    """A late webhook of attempt 1 does not fail attempt 2."""
    assert after("processing", outcome, attempt=2, news_of=1).state == "processing"


def test_money_counts_whichever_attempt_it_came_from() -> None:
    """A success is a success."""
    assert after("pending", "succeeded", attempt=2, news_of=1).state == "succeeded"


def test_a_decline_waits_longer_each_time_and_ends_after_the_last_attempt() -> None:
    """1, 3 and 5 days; the fourth decline is the end."""
    payment, now, waits = PAYMENT, NOW, list[int]()
    for _ in range(3):
        declined = ChargeResult(outcome=Outcome.DECLINED, processor_id="pi", failure_code="card_declined")
        payment = payment_after(payment, declined, attempt=payment.attempt, attempts=4, now=now)
        assert (payment.state, payment.processor_id, payment.settled_at) == (PaymentState.PENDING, "", None)
        assert payment.next_try_at is not None
        waits.append((payment.next_try_at - now).days)
        now = payment.next_try_at
        payment = msgspec.structs.replace(payment, state=PaymentState.PROCESSING, attempted_at=now)
    declined = ChargeResult(outcome=Outcome.DECLINED, failure_code="expired_card")
    payment = payment_after(payment, declined, attempt=4, attempts=4, now=now)
    assert waits == [1, 3, 5]
    assert (payment.state, payment.attempt, payment.failure_code) == (PaymentState.FAILED, 4, "expired_card")
    assert (payment.next_try_at, payment.settled_at) == (None, now)
    assert retry_at(9, now=NOW) == NOW + timedelta(days=7)


def test_money_that_arrives_twice_is_refused_aloud() -> None:
    """Two charges at the processor for one payment: somebody must look."""
    paid = msgspec.structs.replace(PAYMENT, state=PaymentState.SUCCEEDED, processor_id="pi_1", settled_at=NOW)
    with pytest.raises(Conflict, match="arrived twice: pi_1 and pi_2"):
        payment_after(
            paid,
            ChargeResult(outcome=Outcome.SUCCEEDED, processor_id="pi_2"),
            attempt=1,
            attempts=4,
            now=NOW,
        )


WIRE = Receipt(method=Method.WIRE, reference="FT-1")


def test_a_receipt_settles_a_pending_payment_and_the_same_again_changes_nothing() -> None:
    """Idempotent by method and reference."""
    pending = msgspec.structs.replace(PAYMENT, state=PaymentState.PENDING, method=Method.ACH)
    paid = received(pending, WIRE, now=NOW)
    assert (paid.state, paid.method, paid.reference) == (PaymentState.SUCCEEDED, Method.WIRE, "FT-1")
    assert (paid.received_at, paid.settled_at) == (NOW, NOW)
    assert received(paid, WIRE, now=NOW + timedelta(days=1)) == paid


@pytest.mark.parametrize(
    ("state", "receipt", "rule"),
    [
        ("succeeded", Receipt(method=Method.WIRE, reference="FT-2"), "already paid by wire 'FT-1'"),
        ("succeeded", Receipt(method=Method.ACH, reference="FT-1"), "already paid by wire 'FT-1'"),
        ("processing", WIRE, "is processing cannot be received"),
        ("failed", WIRE, "is failed cannot be received"),
        ("canceled", WIRE, "is canceled cannot be received"),
    ],
)
def test_other_money_or_another_state_is_refused(state: str, receipt: Receipt, rule: str) -> None:
    """Whoever marks a payment twice with something else is told what was there."""
    payment = msgspec.structs.replace(
        PAYMENT, state=PaymentState(state), method=Method.WIRE, reference="FT-1" if state == "succeeded" else ""
    )
    with pytest.raises(Conflict, match=rule):
        received(payment, receipt, now=NOW)


@pytest.mark.parametrize(
    ("receipt", "field"),
    [
        (Receipt(method=Method.STRIPE, reference="FT-1"), "method"),
        (Receipt(method=Method.WIRE, reference=""), "reference"),
        (Receipt(method=Method.WIRE, reference="  "), "reference"),
        (Receipt(method=Method.WIRE, reference="x", received_at=NOW + timedelta(seconds=1)), "received_at"),
    ],
)
def test_a_receipt_that_breaks_a_rule_is_refused_by_its_field(receipt: Receipt, field: str) -> None:
    """By hand means ach or wire, with the bank's reference, not in the future."""
    with pytest.raises(InvalidInput) as caught:
        check_receipt(receipt, now=NOW)
    assert caught.value.field == field
