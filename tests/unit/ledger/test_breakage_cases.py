"""The oracle's cases of breakage, told with the house's own bookings and burn order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billing_core.ledger import booking
from billing_core.ledger.booking import Cause
from billing_core.ledger.transfer import Transfer
from billing_core.wallets.burn import Block, debit

CAUSE = Cause(
    tenant_id="t", customer_id="c", currency="USD", source="s", booked_at=datetime(2026, 3, 1, tzinfo=UTC)
)


def standing(*transfers: Transfer | None) -> dict[str, int]:
    sums: dict[str, int] = {}
    for transfer in transfers:
        for entry in transfer.entries if transfer else ():
            sums[entry.account.value] = sums.get(entry.account.value, 0) + entry.nanos
    return {account: nanos for account, nanos in sums.items() if nanos}


def block(name: str, nanos: int, expires_ms: int) -> Block:
    return Block(
        grant_id=name,
        remaining_nanos=nanos,
        priority=0,
        effective_ms=0,
        expires_ms=expires_ms,
        is_paid=True,
        created_ms=0,
    )


def test_bk_01_what_expires_first_is_used_first() -> None:
    """BK-01: 10 until T10 and 15 until T15; 5 at T2 and 10 at T3 leave 0 and 10 to break."""
    left = {"ten": 10, "fifteen": 15}
    for instant_ms, nanos in ((2, 5), (3, 10)):
        blocks = [block("ten", left["ten"], 10), block("fifteen", left["fifteen"], 15)]
        for part in debit(blocks, nanos, instant_ms=instant_ms) or []:
            left[part.grant_id] -= part.nanos
    assert left == {"ten": 0, "fifteen": 10}


@pytest.mark.parametrize(("case", "used", "given_back", "broken"), [("BK-03", 5, 2, 7), ("BK-05", 4, 2, 8)])
def test_what_is_neither_used_nor_given_back_to_use_breaks(
    case: str, used: int, given_back: int, broken: int
) -> None:
    """Of 10 paid: what lapses is the liability that stands, and afterwards none does."""
    moves = [
        booking.top_up_paid(CAUSE, 10),
        booking.burn(CAUSE, used),
        booking.burn(CAUSE, -given_back),
    ]
    assert standing(*moves)["contract_liability"] == -broken, case
    after = standing(*moves, booking.breakage(CAUSE, broken))
    assert after.get("contract_liability") is None
    assert after["revenue_breakage"] == -broken


def test_bk_07_and_bk_09_what_is_accrued_is_earned_and_part_of_it_reversed() -> None:
    """BK-07: accrued 50, recognized: earned 50, accrued 0. BK-09: 20 reversed: earned 30, accrued 20."""
    billed, earned = booking.fee_billed(CAUSE, 50), booking.fee_earned(CAUSE, 50)
    assert standing(billed, earned) == {"accounts_receivable": 50, "revenue_fees": -50}
    after = standing(billed, earned, booking.fee_earned(CAUSE, -20))
    assert after == {"accounts_receivable": 50, "deferred_revenue": -20, "revenue_fees": -30}
