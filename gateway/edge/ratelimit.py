"""RateLimit headers, written in one place.

The tightest limit of a feature, over all levels of the caller's path, is a policy named by the feature: `q` its
units, `r` what remains, `t` seconds until its window starts anew. Left out, as the draft allows: `w`, because a
decision does not say how long the window is; `qu`, because what a feature counts is none of the units that are
registered; `pk`, because a credential's limits are no other one's. A wallet has no window at all: money stands in a
header of our own. `Retry-After` is never earlier than `t`.

Names of features are of characters that stand in a structured field as they are. Its integers have 15 digits at
most, so a limit that is greater is told as the greatest of them.

Worked example: limit 100, 40 left, 2.1 s to go ->
`RateLimit-Policy: "api.calls";q=100` and `RateLimit: "api.calls";r=40;t=3`.

Older clients read three headers that tell one limit, which is then the one with the least left:
`X-RateLimit-Limit: 100`, `X-RateLimit-Remaining: 40` and `X-RateLimit-Reset: 3`, in seconds from now.

Source: draft-ietf-httpapi-ratelimit-headers-10; RFC 9651, section 3.3.1 (Integers) and 3.3.3 (Strings); RFC 9110,
section 10.2.3 (Retry-After); draft-ietf-httpapi-ratelimit-headers-03 for the older headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.admission.decision import Decision
from gateway.admission.reason import Reason

SOON_MS = 1_000
MOST: Final = 999_999_999_999_999
"""The greatest integer of a structured field."""

Headers = tuple[tuple[str, str], ...]


class Limit(NamedTuple):
    """The tightest limit of a feature. `left_ms` until its window starts anew; None: it has none."""

    feature: str
    units: int
    remaining_units: int
    left_ms: int | None


class Told(NamedTuple):
    """What is told beside a decision. `balance` with its currency; empty: none. `wait_ms` None: nobody knows."""

    limits: Sequence[Limit]
    balance: str
    wait_ms: int | None


def rate_limit_headers(decision: Decision, *, with_legacy: bool = False) -> Headers:
    """What a decision says about limits, balance and retrying, as headers."""
    now_ms = decision.decided_at_ms
    limits = [
        Limit(
            charge.feature,
            charge.limit_units,
            charge.remaining_units or 0,
            None if charge.reset_at_ms is None else charge.reset_at_ms - now_ms,
        )
        for charge in decision.charges
        if charge.limit_units is not None
    ]
    balance = f"{decision.balance_nanos} {decision.currency}" if decision.currency else ""
    return headers_of(Told(limits, balance, retry_after_ms(decision)), with_legacy=with_legacy)


def headers_of(told: Told, *, with_legacy: bool = False) -> Headers:
    """The same of what has been found out elsewhere."""
    headers: list[tuple[str, str]] = []
    limits = told.limits
    if limits:
        policies = ", ".join([f'"{limit.feature}";q={min(limit.units, MOST)}' for limit in limits])
        headers += [("RateLimit-Policy", policies), ("RateLimit", ", ".join([_state(limit) for limit in limits]))]
        if with_legacy:
            headers += _legacy(min(limits, key=_remaining))
    if told.balance:
        headers.append(("X-Tallygate-Balance", told.balance))
    if told.wait_ms is not None:
        headers.append(("Retry-After", str(seconds(told.wait_ms))))
    return tuple(headers)


def retry_after_ms(decision: Decision) -> int | None:
    """How long until the same request may succeed, where a decision knows it."""
    if decision.retry_after_ms:
        return decision.retry_after_ms
    return SOON_MS if decision.reason in (Reason.UNAVAILABLE, Reason.CONCURRENCY_LIMITED) else None


def seconds(ms: int) -> int:
    """Whole seconds, rounded up: who comes back then is not too early."""
    return -(-ms // 1_000)


def _state(limit: Limit) -> str:
    state = f'"{limit.feature}";r={_remaining(limit)}'
    return state if limit.left_ms is None else f"{state};t={seconds(max(0, limit.left_ms))}"


def _legacy(limit: Limit) -> Headers:
    told = (("X-RateLimit-Limit", str(limit.units)), ("X-RateLimit-Remaining", str(_remaining(limit))))
    return told if limit.left_ms is None else (*told, ("X-RateLimit-Reset", str(seconds(max(0, limit.left_ms)))))


def _remaining(limit: Limit) -> int:
    return min(max(0, limit.remaining_units), MOST)
