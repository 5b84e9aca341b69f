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
from typing import Final

from gateway.admission.decision import Decision
from gateway.admission.reason import Reason

SOON_MS = 1_000
MOST: Final = 999_999_999_999_999
"""The greatest integer of a structured field."""

Headers = tuple[tuple[str, str], ...]


Limit = tuple[str, int, int, int | None]
"""The tightest limit of a feature: its name, units, what remains, and how many ms until its window starts anew.

None: it has no window.
"""


def rate_limit_headers(decision: Decision, *, with_legacy: bool = False) -> Headers:
    """What a decision says about limits, balance and retrying, as headers."""
    now_ms, limits = decision.decided_at_ms, list[Limit]()
    for charge in decision.charges:
        units, reset_at_ms = charge.limit_units, charge.reset_at_ms
        if units is not None:
            left_ms = None if reset_at_ms is None else reset_at_ms - now_ms
            limits.append((charge.feature, units, charge.remaining_units or 0, left_ms))
    balance = f"{decision.balance_nanos} {decision.currency}" if decision.currency else ""
    return headers_of(limits, balance=balance, wait_ms=retry_after_ms(decision), with_legacy=with_legacy)


def headers_of(limits: Sequence[Limit], *, balance: str, wait_ms: int | None, with_legacy: bool = False) -> Headers:
    """The same of what was found out elsewhere. `balance` with its currency; `wait_ms` None: nobody knows."""
    headers: list[tuple[str, str]] = []
    if limits:
        policies, states = _written(limits[0])
        for limit in limits[1:]:
            policy, state = _written(limit)
            policies, states = f"{policies}, {policy}", f"{states}, {state}"
        headers += (("RateLimit-Policy", policies), ("RateLimit", states))
        if with_legacy:
            headers += _legacy(min(limits, key=_remaining))
    if balance:
        headers.append(("X-Tallygate-Balance", balance))
    if wait_ms is not None:
        headers.append(("Retry-After", str(seconds(wait_ms))))
    return tuple(headers)


def retry_after_ms(decision: Decision) -> int | None:
    """How long until the same request may succeed, where a decision knows it."""
    if decision.retry_after_ms:
        return decision.retry_after_ms
    return SOON_MS if decision.reason in (Reason.UNAVAILABLE, Reason.CONCURRENCY_LIMITED) else None


def seconds(ms: int) -> int:
    """Whole seconds, rounded up: who comes back then is not too early."""
    return -(-ms // 1_000)


def _written(limit: Limit) -> tuple[str, str]:
    """A limit's policy, and its state."""
    feature, units, remaining_units, left_ms = limit
    units = units if 0 <= units <= MOST else _bounded(units)
    remaining_units = remaining_units if 0 <= remaining_units <= MOST else _bounded(remaining_units)
    state = f'"{feature}";r={remaining_units}'
    if left_ms is not None:
        state = f"{state};t={-(-left_ms // 1_000) if left_ms > 0 else 0}"
    return f'"{feature}";q={units}', state


def _legacy(limit: Limit) -> Headers:
    _, units, remaining_units, left_ms = limit
    told = (("X-RateLimit-Limit", str(units)), ("X-RateLimit-Remaining", str(_bounded(remaining_units))))
    return told if left_ms is None else (*told, ("X-RateLimit-Reset", str(seconds(max(0, left_ms)))))


def _remaining(limit: Limit) -> int:
    return limit[2]


def _bounded(units: int) -> int:
    return min(max(0, units), MOST)
