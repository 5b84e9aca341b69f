"""Why a caller is refused: one word each, in order of precedence, with its HTTP answer and when to try again.

A decision has one reason: whoever checks stops at the first rule that is broken. The table is the only place that
knows the HTTP status of a refusal.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec


class Reason(StrEnum):
    """`allowed`, or the one named reason of a refusal."""

    ALLOWED = "allowed"
    UNKNOWN_KEY = "unknown_key"
    NOT_ENTITLED = "not_entitled"
    SUSPENDED = "suspended"
    RATE_LIMITED = "rate_limited"
    CONCURRENCY_LIMITED = "concurrency_limited"
    LIMIT_REACHED = "limit_reached"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    UNAVAILABLE = "unavailable"


class Retry(StrEnum):
    """When the same request may succeed."""

    NEVER = "never"
    AFTER_PLAN_CHANGE = "after_plan_change"
    AFTER_PAYMENT = "after_payment"
    AT_RATE = "at_rate"
    SOON = "soon"
    AT_RESET = "at_reset"
    AFTER_TOP_UP = "after_top_up"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """How a reason is told."""

    status: int
    retry: Retry
    title: str


RULES: Final = MappingProxyType(
    {
        Reason.ALLOWED: Rule(status=200, retry=Retry.SOON, title="allowed"),
        Reason.UNKNOWN_KEY: Rule(status=401, retry=Retry.NEVER, title="the key is not known"),
        Reason.NOT_ENTITLED: Rule(
            status=403, retry=Retry.AFTER_PLAN_CHANGE, title="the plan does not include this feature"
        ),
        Reason.SUSPENDED: Rule(status=402, retry=Retry.AFTER_PAYMENT, title="the customer is suspended"),
        Reason.RATE_LIMITED: Rule(status=429, retry=Retry.AT_RATE, title="too many requests at once"),
        Reason.CONCURRENCY_LIMITED: Rule(status=429, retry=Retry.SOON, title="too many requests at the same time"),
        Reason.LIMIT_REACHED: Rule(status=429, retry=Retry.AT_RESET, title="the limit of this window is reached"),
        Reason.INSUFFICIENT_BALANCE: Rule(
            status=402, retry=Retry.AFTER_TOP_UP, title="the balance does not cover the cost"
        ),
        Reason.UNAVAILABLE: Rule(
            status=503, retry=Retry.SOON, title="no decision can be made now; nothing was charged"
        ),
    }
)
