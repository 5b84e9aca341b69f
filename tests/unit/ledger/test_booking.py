"""Every event of billing makes a balanced transfer, named by its cause."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billing_core.errors import InvariantBroken
from billing_core.ledger import booking
from billing_core.ledger.account import Account
from billing_core.ledger.booking import Cause
from billing_core.ledger.transfer import Entry, Transfer, TransferKind

AT = datetime(2026, 3, 1, tzinfo=UTC)
CAUSE = Cause(tenant_id="t", customer_id="c", currency="USD", source="s", booked_at=AT)


def sides(transfer: Transfer | None) -> dict[str, int]:
    assert transfer is not None
    return {entry.account.value: entry.nanos for entry in transfer.entries}


@pytest.mark.parametrize(
    ("book", "debit", "credit"),
    [
        (booking.top_up_paid, "cash", "contract_liability"),
        (booking.burn, "contract_liability", "revenue_usage"),
        (booking.breakage, "contract_liability", "revenue_breakage"),
        (booking.fee_billed, "accounts_receivable", "deferred_revenue"),
        (booking.fee_earned, "deferred_revenue", "revenue_fees"),
        (booking.usage_billed, "accounts_receivable", "revenue_usage"),
        (booking.usage_corrected, "accounts_receivable", "revenue_usage"),
        (booking.payment_received, "cash", "accounts_receivable"),
    ],
)
def test_each_event_moves_its_two_accounts(book: object, debit: str, credit: str) -> None:
    """A debit is positive; nothing moved books nothing."""
    assert callable(book)
    assert sides(book(CAUSE, 7)) == {debit: 7, credit: -7}
    assert book(CAUSE, 0) is None


def test_a_month_of_fee_and_prepaid_credit_ends_as_the_docstring_says() -> None:
    """Cash 35, liability -21, usage -4, fees -10, and nothing in all."""
    nano = 10**9
    transfers = [
        booking.top_up_paid(CAUSE, 25 * nano),
        booking.fee_billed(CAUSE, 10 * nano),
        booking.payment_received(CAUSE, 10 * nano),
        booking.burn(CAUSE, 4 * nano),
        booking.fee_earned(CAUSE, 10 * nano),
    ]
    standing: dict[str, int] = {}
    for transfer in transfers:
        for account, nanos in sides(transfer).items():
            standing[account] = standing.get(account, 0) + nanos // nano
    assert {account: nanos for account, nanos in standing.items() if nanos} == {
        "cash": 35,
        "contract_liability": -21,
        "revenue_usage": -4,
        "revenue_fees": -10,
    }


def test_a_void_turns_everything_that_was_booked() -> None:
    """A fee of 10 of which 3 were earned: nothing stays behind in any account."""
    billed, earned = booking.fee_billed(CAUSE, 10), booking.fee_earned(CAUSE, 3)
    assert billed is not None
    assert earned is not None
    void = booking.invoice_voided(CAUSE, [*billed.entries, *earned.entries])
    assert sides(void) == {"accounts_receivable": -10, "deferred_revenue": 7, "revenue_fees": 3}
    assert booking.invoice_voided(CAUSE, []) is None


def test_the_same_cause_has_the_same_id_and_another_has_another() -> None:
    """The id is a digest of tenant, kind and source, not of amounts or days."""
    first, again = booking.burn(CAUSE, 5), booking.burn(CAUSE, 6)
    other = booking.breakage(CAUSE, 5)
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.transfer_id == again.transfer_id != other.transfer_id


@pytest.mark.parametrize(
    ("entries", "law"),
    [
        ((), "has entries"),
        ((("cash", "USD", 5),), "sums to zero"),
        ((("cash", "USD", 5), ("contract_liability", "USD", -4)), "sums to zero"),
        ((("cash", "USD", 5), ("contract_liability", "EUR", -5)), "sums to zero"),
        ((("cash", "USD", 0), ("contract_liability", "USD", 0)), "moves something"),
    ],
)
def test_what_is_not_a_transfer_cannot_be_made(entries: tuple[tuple[str, str, int], ...], law: str) -> None:
    """Zero per currency, and no entry that moves nothing."""
    with pytest.raises(InvariantBroken, match=law):
        Transfer(
            tenant_id="t",
            kind=TransferKind.BURN,
            source="s",
            booked_at=AT,
            entries=tuple(
                Entry(account=Account(account), customer_id="c", currency=currency, nanos=nanos)
                for account, currency, nanos in entries
            ),
        )
