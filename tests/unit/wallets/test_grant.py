"""The rules that a grant must keep to be born, each refusal by its field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from billing_core.errors import InvalidInput, Unprocessable
from billing_core.values.money import MAX_EXACT
from billing_core.wallets.grant import GrantKind, GrantOrder, check_order, check_room

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GOOD = GrantOrder(
    tenant_id="t", customer_id="c", currency="USD", kind=GrantKind.PROMOTIONAL, amount_nanos=1_000, priority=5
)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"currency": "xxq"}, "currency"),
        ({"amount_nanos": 0}, "amount"),
        ({"amount_nanos": -1}, "amount"),
        ({"amount_nanos": MAX_EXACT + 1}, "amount"),
        ({"priority": -1}, "priority"),
        ({"priority": 256}, "priority"),
        ({"effective_at": datetime(2026, 3, 1)}, "effective_at"),  # noqa: DTZ001 - the fault
        ({"expires_at": datetime(2027, 3, 1)}, "expires_at"),  # noqa: DTZ001 - the fault
        ({"expires_at": NOW}, "expires_at"),
        ({"expires_at": NOW - timedelta(microseconds=1)}, "expires_at"),
        ({"effective_at": NOW + timedelta(days=2), "expires_at": NOW + timedelta(days=2)}, "expires_at"),
        ({"effective_at": NOW + timedelta(days=2), "expires_at": NOW + timedelta(days=1)}, "expires_at"),
    ],
)
def test_an_order_that_breaks_a_rule_is_refused_by_its_field(change: dict[str, Any], field: str) -> None:
    """One rule each."""
    with pytest.raises(InvalidInput) as refusal:
        check_order(msgspec.structs.replace(GOOD, **change), now=NOW)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"amount_nanos": 1},
        {"amount_nanos": MAX_EXACT},
        {"priority": 0},
        {"priority": 255},
        {"expires_at": NOW + timedelta(microseconds=1)},
        {"effective_at": NOW - timedelta(days=9)},
        {"effective_at": NOW + timedelta(days=1), "expires_at": NOW + timedelta(days=2)},
    ],
)
def test_an_order_at_the_edge_of_its_rules_is_good(change: dict[str, Any]) -> None:
    """Bounds belong to what is allowed; a grant may take effect in the past."""
    check_order(msgspec.structs.replace(GOOD, **change), now=NOW)


def test_a_wallet_never_holds_more_than_a_script_can_add_up() -> None:
    """The worked example of the module."""
    standing = 9_007_199_254_740_000
    check_room(msgspec.structs.replace(GOOD, amount_nanos=991), standing_nanos=standing)
    with pytest.raises(Unprocessable, match="USD wallet"):
        check_room(msgspec.structs.replace(GOOD, amount_nanos=992), standing_nanos=standing)
