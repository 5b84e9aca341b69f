"""RateLimit headers as the draft writes them: lists of structured fields, read back by their own grammar."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.values.money import MAX_EXACT
from gateway.admission.decision import ChargeOutcome, Decision
from gateway.admission.reason import Reason
from gateway.edge.ratelimit import MOST, rate_limit_headers

ITEM = re.compile(
    r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"((?:;[a-z*][a-z0-9_.*-]*=-?[0-9]{1,15}(?![0-9.]))*)'
)
"""RFC 9651: an sf-string with parameters that are sf-integers."""


def parsed(text: str) -> list[tuple[str, dict[str, int]]]:
    """A list of items, by the grammar of RFC 9651, section 4.2; anything else fails."""
    items: list[tuple[str, dict[str, int]]] = []
    at = 0
    while True:
        found = ITEM.match(text, at)
        assert found is not None, text[at:]
        name = re.sub(r"\\(.)", r"\1", found[1])
        items.append((name, {key: int(value) for key, value in re.findall(r";([^=]+)=(-?\d+)", found[2])}))
        at = found.end()
        if at == len(text):
            return items
        comma = re.compile(r"[ \t]*,[ \t]*").match(text, at)
        assert comma is not None, text[at:]
        at = comma.end()


def charge(feature: str, *, limit: int | None, remaining: int | None, reset_at_ms: int | None) -> ChargeOutcome:
    return ChargeOutcome(
        feature=feature,
        limit_units=limit,
        remaining_units=remaining,
        reset_at_ms=reset_at_ms,
        cost_nanos=0,
        static_value="",
    )


def decision(*charges: ChargeOutcome, reason: Reason = Reason.ALLOWED, **more: Any) -> Decision:
    return Decision(reason=reason, decision_id="d", decided_at_ms=1_000, charges=charges, **more)


TWO = decision(
    charge("calls", limit=100, remaining=40, reset_at_ms=3_001),
    charge("free", limit=None, remaining=None, reset_at_ms=None),
    charge("seats", limit=5, remaining=0, reset_at_ms=None),
)


def test_each_limit_is_a_policy_and_a_state() -> None:
    """Seconds are rounded up; what has no limit is not named."""
    assert rate_limit_headers(TWO) == (
        ("RateLimit-Policy", '"calls";q=100, "seats";q=5'),
        ("RateLimit", '"calls";r=40;t=3, "seats";r=0'),
    )


@given(
    features=st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}", fullmatch=True), min_size=1, max_size=4),
    figures=st.lists(
        st.tuples(
            st.integers(0, MAX_EXACT), st.integers(-5, MAX_EXACT), st.one_of(st.none(), st.integers(0, 10**13))
        ),
        min_size=4,
        max_size=4,
    ),
)
def test_whatever_is_told_is_a_list_of_structured_fields(
    features: list[str], figures: list[tuple[int, int, int | None]]
) -> None:
    """Names as they are, integers of 15 digits at most and none below zero, the same policies in both."""
    charges = [
        charge(feature, limit=limit, remaining=remaining, reset_at_ms=reset)
        for feature, (limit, remaining, reset) in zip(features, figures, strict=False)
    ]
    told = dict(rate_limit_headers(decision(*charges)))
    policies, states = parsed(told["RateLimit-Policy"]), parsed(told["RateLimit"])
    assert [name for name, _ in policies] == [name for name, _ in states] == features
    for (limit, remaining, reset), (_, policy), (_, state) in zip(figures, policies, states, strict=False):
        assert policy == {"q": min(limit, MOST)}
        expected = {"r": max(0, min(remaining, MOST))}
        assert state == expected | ({} if reset is None else {"t": max(0, -(-(reset - 1_000) // 1_000))})


@pytest.mark.parametrize(
    "broken", ["", "calls;q=1", '"a";q=1.5', '"a";q=1234567890123456', '"a" "b"', '"a";q=1,', '"ü"']
)
def test_the_grammar_refuses_what_is_none(broken: str) -> None:
    """Else it would prove nothing."""
    with pytest.raises(AssertionError):
        parsed(broken)


def test_older_headers_tell_the_limit_with_the_least_left() -> None:
    """Beside the others, and only where that is wanted; a limit without a window has no reset."""
    assert rate_limit_headers(TWO, with_legacy=True)[2:] == (
        ("X-RateLimit-Limit", "5"),
        ("X-RateLimit-Remaining", "0"),
    )
    first = decision(TWO.charges[0])
    assert rate_limit_headers(first, with_legacy=True)[2:] == (
        ("X-RateLimit-Limit", "100"),
        ("X-RateLimit-Remaining", "40"),
        ("X-RateLimit-Reset", "3"),
    )
    assert rate_limit_headers(decision(), with_legacy=True) == ()


def test_retry_after_is_what_the_refusal_says_in_whole_seconds() -> None:
    """Rounded up: who comes back then is not too early."""
    refused = decision(
        charge("a", limit=9, remaining=1, reset_at_ms=2_000),
        charge("b", limit=9, remaining=0, reset_at_ms=61_500),
        reason=Reason.LIMIT_REACHED,
        refused_feature="b",
        retry_after_ms=60_500,
    )
    assert dict(rate_limit_headers(refused))["Retry-After"] == "61"


def test_money_has_no_window_and_stands_in_a_header_of_its_own() -> None:
    """Nor does a balance say when to come back."""
    refused = decision(reason=Reason.INSUFFICIENT_BALANCE, currency="USD", balance_nanos=7, cost_nanos=9)
    assert rate_limit_headers(refused) == (("X-Tallygate-Balance", "7 USD"),)
