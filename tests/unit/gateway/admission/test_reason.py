"""The table of refusals is the design's."""

from __future__ import annotations

from gateway.admission.reason import RULES, Reason


def test_every_reason_has_its_status_in_the_order_of_precedence() -> None:
    """As section 5 of the design lists them."""
    assert [(reason.value, RULES[reason].status) for reason in Reason] == [
        ("allowed", 200),
        ("unknown_key", 401),
        ("not_entitled", 403),
        ("suspended", 402),
        ("rate_limited", 429),
        ("concurrency_limited", 429),
        ("limit_reached", 429),
        ("insufficient_balance", 402),
        ("unavailable", 503),
    ]
