"""RateLimit headers, written in one place.

The tightest limit of a feature, over all levels of the caller's path, is a policy named by the feature: `q` its
units, `r` what remains, `t` seconds until its window starts anew. The length of the window is not in a decision,
so `w` is left out, as the draft allows. A wallet has no window at all: money stands in a header of our own.
`Retry-After` is never earlier than `t`.

Worked example: limit 100, 40 left, 2.1 s to go ->
`RateLimit-Policy: "api.calls";q=100` and `RateLimit: "api.calls";r=40;t=3`.

Source: draft-ietf-httpapi-ratelimit-headers-10; RFC 9110, section 10.2.3 (Retry-After).
"""

from __future__ import annotations

from gateway.admission.decision import ChargeOutcome, Decision
from gateway.admission.reason import Reason

SOON_MS = 1_000

Headers = tuple[tuple[str, str], ...]


def rate_limit_headers(decision: Decision) -> Headers:
    """What a decision says about limits, balance and retrying, as headers."""
    headers: list[tuple[str, str]] = []
    limited = [charge for charge in decision.charges if charge.limit_units is not None]
    if limited:
        policies = ", ".join([f'"{charge.feature}";q={charge.limit_units}' for charge in limited])
        states = ", ".join([_state(charge, decision.decided_at_ms) for charge in limited])
        headers += [("RateLimit-Policy", policies), ("RateLimit", states)]
    if decision.currency:
        headers.append(("X-Tallygate-Balance", f"{decision.balance_nanos} {decision.currency}"))
    wait_ms = retry_after_ms(decision)
    if wait_ms is not None:
        headers.append(("Retry-After", str(_seconds(wait_ms))))
    return tuple(headers)


def retry_after_ms(decision: Decision) -> int | None:
    """How long until the same request may succeed, where a decision knows it."""
    if decision.retry_after_ms:
        return decision.retry_after_ms
    return SOON_MS if decision.reason in (Reason.UNAVAILABLE, Reason.CONCURRENCY_LIMITED) else None


def _state(charge: ChargeOutcome, decided_at_ms: int) -> str:
    state = f'"{charge.feature}";r={max(0, charge.remaining_units or 0)}'
    if charge.reset_at_ms is None:
        return state
    return f"{state};t={_seconds(max(0, charge.reset_at_ms - decided_at_ms))}"


def _seconds(ms: int) -> int:
    return -(-ms // 1_000)
