"""Grants: the credit blocks that a wallet is made of, and the rules that one must keep to be born.

A grant is born in Postgres, spent in Redis, and every nano that leaves it comes back as a movement. All amounts
near Redis are integers that Lua's doubles carry exactly, and so must be every sum that a script makes of them: the
whole of a wallet in one currency stays below 2^53 nanos (a little over nine million US dollars, or credits).

    kind         born of        burns                 in the books
    paid         a payment      in its place          a liability, revenue as it burns
    promotional  an operator    in its place          nothing: nobody paid
    overdraft    an operator    after all others      a receivable as it is drawn

An overdraft is a limit. What is drawn on it is owed, and the next paid grant of the wallet repays it first; one
that is for some features only, or counts from later on, repays nothing. An overdraft that has ended or was
lowered lends no more than it may, and is repaid all the same. A grant in a credit unit has a price, the money
that all of it costs; what part of it costs is its share of that, rounded down on the running total, so that the
shares of a whole grant add up to its price.

Worked example: a wallet that can still spend 9_007_199_254_740_000 nanos of USD takes a grant of 991 nanos and
refuses one of 992. Of 3 credits for 10.00 USD the first costs 3.333333333, the second 3.333333333 and the third
3.333333334.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from billing_core.errors import InvalidInput, Unprocessable
from billing_core.values.ids import is_code
from billing_core.values.money import MAX_EXACT, is_currency, is_unit, minor_exponent

MAX_PRIORITY = 255
MAX_FEATURES = 32


class GrantKind(StrEnum):
    """Whether money came in for it, will come, or will not."""

    PAID = "paid"
    PROMOTIONAL = "promotional"
    OVERDRAFT = "overdraft"


class LapseReason(StrEnum):
    """Why what is left of a grant is taken out of the wallet."""

    EXPIRE = "expire"
    VOID = "void"
    LOWER = "lower"


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What the whole of a grant costs, in money. Units: nanos."""

    currency: str
    nanos: int


class GrantOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A grant that someone asks for. Smaller priorities burn first; no effective instant means at once.

    `features` are those whose charges it may pay; none means all. `price` is left out where the wallet is in money:
    that costs what it is.
    """

    tenant_id: str
    customer_id: str
    currency: str
    kind: GrantKind
    amount_nanos: int
    priority: int = 0
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    features: tuple[str, ...] = ()
    price: Price | None = None
    payment_id: str | None = None
    note: str = ""

    @property
    def cost(self) -> Price | None:
        """What the grant costs; None where nobody pays for it."""
        if self.kind is GrantKind.PROMOTIONAL or self.price is not None:
            return self.price
        return Price(currency=self.currency, nanos=self.amount_nanos)


def share_nanos(moved_nanos: int, *, amount_nanos: int, price_nanos: int) -> int:
    """What the first `moved_nanos` of a grant cost, rounded down."""
    return price_nanos * moved_nanos // amount_nanos


def check_order(order: GrantOrder, *, now: datetime) -> None:
    """Refuse an order that breaks a rule which can be checked by looking at it alone.

    `now` is the tenant's instant.

    Raises: InvalidInput naming the field and the rule.
    """
    if not is_unit(order.currency):
        minor_exponent(order.currency)
    _check_price(order)
    _check_features(order.features)
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


def check_lower(kind: GrantKind, *, limit_nanos: int, before_nanos: int) -> None:
    """Refuse a new limit that is none. Raises: Unprocessable; InvalidInput naming field and rule."""
    if kind is not GrantKind.OVERDRAFT:
        raise Unprocessable("only an overdraft has a limit to be lowered", field="grant_id")
    if not 0 <= limit_nanos <= before_nanos:
        raise InvalidInput(f"must not be above the limit of today, {before_nanos} nanos", field="amount")


def _check_price(order: GrantOrder) -> None:
    cost = order.cost
    if order.kind is GrantKind.PROMOTIONAL:
        if cost is not None:
            raise InvalidInput("nobody pays for promotional credit", field="price")
        return
    if order.price is None and is_unit(order.currency):
        raise InvalidInput(f"{order.currency} is no money: say what the credits cost", field="price")
    if cost is None or not is_currency(cost.currency):
        raise InvalidInput("must be in an ISO 4217 currency", field="price.currency")
    if not 1 <= cost.nanos <= MAX_EXACT:
        raise InvalidInput("must be more than nothing and below 2^53 nanos", field="price.amount")
    if not is_unit(order.currency) and cost != Price(currency=order.currency, nanos=order.amount_nanos):
        raise InvalidInput("money costs what it is; only credits have a price", field="price")


def _check_features(features: tuple[str, ...]) -> None:
    if len(features) > MAX_FEATURES:
        raise InvalidInput(f"must be at most {MAX_FEATURES}", field="features")
    for index, feature in enumerate(features):
        if not is_code(feature):
            raise InvalidInput(f"{feature!r} cannot be the code of a feature", field=f"features[{index}]")
        if feature in features[:index]:
            raise InvalidInput(f"{feature!r} is named twice", field=f"features[{index}]")
