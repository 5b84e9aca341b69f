"""RateLimit headers as the draft writes them."""

from __future__ import annotations

from gateway.admission.decision import ChargeOutcome, Decision
from gateway.admission.reason import Reason
from gateway.edge.ratelimit import rate_limit_headers


def charge(feature: str, *, limit: int | None, remaining: int | None, reset_at_ms: int | None) -> ChargeOutcome:
    return ChargeOutcome(
        feature=feature,
        limit_units=limit,
        remaining_units=remaining,
        reset_at_ms=reset_at_ms,
        cost_nanos=0,
        static_value="",
    )


def test_each_limit_is_a_policy_and_a_state() -> None:
    """Seconds are rounded up; what has no limit is not named."""
    decision = Decision(
        reason=Reason.ALLOWED,
        decision_id="d",
        decided_at_ms=1_000,
        charges=(
            charge("calls", limit=100, remaining=40, reset_at_ms=3_001),
            charge("free", limit=None, remaining=None, reset_at_ms=None),
            charge("seats", limit=5, remaining=0, reset_at_ms=None),
        ),
    )
    assert rate_limit_headers(decision) == (
        ("RateLimit-Policy", '"calls";q=100, "seats";q=5'),
        ("RateLimit", '"calls";r=40;t=3, "seats";r=0'),
    )


def test_retry_after_is_what_the_refusal_says_in_whole_seconds() -> None:
    """Rounded up: who comes back then is not too early."""
    decision = Decision(
        reason=Reason.LIMIT_REACHED,
        decision_id="d",
        refused_feature="b",
        decided_at_ms=1_000,
        retry_after_ms=60_500,
        charges=(
            charge("a", limit=9, remaining=1, reset_at_ms=2_000),
            charge("b", limit=9, remaining=0, reset_at_ms=61_500),
        ),
    )
    assert dict(rate_limit_headers(decision))["Retry-After"] == "61"


def test_money_has_no_window_and_stands_in_a_header_of_its_own() -> None:
    """Nor does a balance say when to come back."""
    decision = Decision(
        reason=Reason.INSUFFICIENT_BALANCE, decision_id="d", currency="USD", balance_nanos=7, cost_nanos=9
    )
    assert rate_limit_headers(decision) == (("X-Tallygate-Balance", "7 USD"),)
