"""Words, amounts and instants as they come in: text with bounds, so that nothing boundless is ever stored.

A label is one line for people. A note may have several. An amount is decimal text of the currency's major unit,
because a JSON number has already been a float somewhere. An instant names its zone and lies where calendars,
Postgres and milliseconds in a double all agree.
"""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated

import msgspec

from billing_core.errors import InvalidInput
from billing_core.values.ids import CODE_PATTERN, IDEMPOTENCY_KEY_PATTERN
from billing_core.values.money import MAX_EXACT, is_unit, minor_exponent, nanos_of

LABEL_PATTERN = r"^[^\x00-\x1f\x7f]{0,200}\Z"
AMOUNT_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?\Z"

Label = Annotated[str, msgspec.Meta(pattern=LABEL_PATTERN)]
"""One line for people: up to 200 characters, none of them a control character."""

Note = Annotated[str, msgspec.Meta(max_length=1000)]
"""Text for people, up to 1,000 characters."""

Amount = Annotated[str, msgspec.Meta(pattern=AMOUNT_PATTERN)]
"""Decimal text of major units, such as `25.00`; no sign, no exponent, at most nine digits after the point."""

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""An instant with its zone; `check_instant` bounds it."""

FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
LAST_INSTANT = datetime(2200, 1, 1, tzinfo=UTC)

RULES = {
    CODE_PATTERN: "must be 1 to 64 letters, digits, '_', '.' or '-', and start with a letter or digit",
    IDEMPOTENCY_KEY_PATTERN: "must be 1 to 255 printable ASCII characters without spaces",
    LABEL_PATTERN: "must be one line of at most 200 characters",
    AMOUNT_PATTERN: "must be a decimal number without a sign, with at most 9 digits after the point",
}
"""What a pattern demands, in words."""


def check_instant(instant: datetime, *, field: str) -> None:
    """Raise InvalidInput unless the instant has a zone and lies from 1970 until 2200."""
    if instant.tzinfo is None or not FIRST_INSTANT <= instant < LAST_INSTANT:
        raise InvalidInput("must name its zone and lie from 1970 until 2200", field=field)


def grant_nanos(text: str, currency: str, *, field: str) -> int:
    """An amount of credit in nanos: above zero and below 2^53 nanos.

    `currency` may be a credit unit. Whether the tenant has such a unit is not looked at here.

    Raises: InvalidInput naming field and rule, also for a code that can be neither.
    """
    if not is_unit(currency):
        minor_exponent(currency)
    nanos = nanos_of(text, field=field)
    if nanos.denominator != 1 or nanos <= 0:
        raise InvalidInput("must be above zero, with at most 9 digits after the point", field=field)
    if nanos > MAX_EXACT:
        raise InvalidInput("must be below 2^53 nanos, which is 9007199.254740992", field=field)
    return nanos.numerator


def limit_nanos(text: str, currency: str, *, field: str) -> int:
    """A limit in nanos, which may be nothing. Raises: InvalidInput as an amount of credit does."""
    return 0 if nanos_of(text, field=field) == 0 else grant_nanos(text, currency, field=field)


def payment_minor(text: str, currency: str, *, field: str) -> int:
    """An amount of money in minor units: above zero, whole at the currency's exponent, below 2^53 nanos.

    Raises: InvalidInput naming field and rule, also for a currency that nobody knows.
    """
    exponent = minor_exponent(currency)
    minor = Fraction(grant_nanos(text, currency, field=field) * 10**exponent, 10**9)
    if minor.denominator != 1:
        raise InvalidInput(f"{currency} has {exponent} digits after the point", field=field)
    return minor.numerator
