"""Names of things: codes that people choose, and ids that the house makes.

A made id is `prefix_` and 26 characters of Crockford base 32: 48 bits of time, then 80 random bits, so that ids
sort by birth and cannot be guessed. Chosen codes are narrow on purpose: no colon, so that codes can be joined
with colons into Redis keys without a doubt about where one ends.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Annotated

import msgspec

from billing_core.values.clock import to_ms

CODE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}\Z"
_CODE = re.compile(CODE_PATTERN)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

Code = Annotated[str, msgspec.Meta(pattern=CODE_PATTERN)]
"""A chosen name: 1 to 64 of letters, digits, `_`, `.`, `-`, starting with a letter or digit."""

IDEMPOTENCY_KEY_LENGTH = 255
IDEMPOTENCY_KEY_PATTERN = r"^[\x21-\x7e]{1,255}\Z"
IdempotencyKey = Annotated[str, msgspec.Meta(pattern=IDEMPOTENCY_KEY_PATTERN)]
"""A retry's name: 1 to 255 printable ASCII characters without spaces."""


def is_code(text: str) -> bool:
    """Whether the text may name a tenant, customer, feature, meter, plan or price."""
    return _CODE.match(text) is not None


def new_id(prefix: str, *, now: datetime) -> str:
    """A fresh id that sorts by `now`, such as `inv_01k...`."""
    number = (to_ms(now) << 80) | secrets.randbits(80)
    digits = [_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(digits)}"


def new_secret(prefix: str) -> str:
    """A credential of 192 random bits, such as `tgk_...`; shown once, kept only as a digest."""
    return f"{prefix}_{secrets.token_urlsafe(24)}"
