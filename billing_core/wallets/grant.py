"""Grants: the credit blocks that a wallet is made of, and the rules that one must keep to be born.

A grant is born in Postgres, spent in Redis, and every nano that leaves it comes back as a movement. All amounts
near Redis are integers that Lua's doubles carry exactly, and so must be every sum that a script makes of them: the
whole of a wallet in one currency stays below 2^53 nanos (a little over nine million US dollars).

Worked example: a wallet that can still spend 9_007_199_254_740_000 nanos of USD takes a grant of 991 nanos and
refuses one of 992.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from billing_core.errors import InvalidInput, Unprocessable
from billing_core.values.money import MAX_EXACT, minor_exponent

MAX_PRIORITY = 255


class GrantKind(StrEnum):
    """Whether money came in for it. Only paid grants are in the books."""

    PAID = "paid"
    PROMOTIONAL = "promotional"


class LapseReason(StrEnum):
    """Why what is left of a grant is taken out of the wallet."""

    EXPIRE = "expire"
    VOID = "void"


class GrantOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A grant that someone asks for. Smaller priorities burn first; no effective instant means at once."""

    tenant_id: str
    customer_id: str
    currency: str
    kind: GrantKind
    amount_nanos: int
    priority: int = 0
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    payment_id: str | None = None
    note: str = ""


def check_order(order: GrantOrder, *, now: datetime) -> None:
    """Refuse an order that breaks a rule which can be checked by looking at it alone.

    `now` is the tenant's instant.

    Raises: InvalidInput naming the field and the rule.
    """
    minor_exponent(order.currency)
    if not 1 <= order.amount_nanos <= MAX_EXACT:
        raise InvalidInput("must be more than nothing and below 2^53 nanos", field="amount")
    if not 0 <= order.priority <= MAX_PRIORITY:
        raise InvalidInput(f"must be from 0 to {MAX_PRIORITY}", field="priority")
    for field, instant in (("effective_at", order.effective_at), ("expires_at", order.expires_at)):
        if instant is not None and instant.tzinfo is None:
            raise InvalidInput("needs a time zone", field=field)
    if order.expires_at is None:
        return
    if order.expires_at <= now:
        raise InvalidInput("must lie in the future", field="expires_at")
    if order.effective_at is not None and order.expires_at <= order.effective_at:
        raise InvalidInput("must lie after effective_at", field="expires_at")


def check_room(order: GrantOrder, *, standing_nanos: int) -> None:
    """Refuse a grant that would take the wallet past what a script can add up.

    `standing_nanos` is what the wallet's grants of this currency have not spent yet.

    Raises: Unprocessable naming the bound.
    """
    if standing_nanos + order.amount_nanos > MAX_EXACT:
        raise Unprocessable(f"the {order.currency} wallet would hold more than {MAX_EXACT} nanos", field="amount")
