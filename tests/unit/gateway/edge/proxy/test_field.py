"""What a client may not say to an upstream."""

from __future__ import annotations

import pytest

from gateway.edge.lane.head import Words
from gateway.edge.proxy.field import request_lines, trailing_lines


@pytest.mark.parametrize(
    "name", ["X-Tallygate-Customer", "X_Tallygate_Customer", "x-tallygate_plan", "X_TALLYGATE-Hold"]
)
def test_what_an_upstream_may_take_for_ours_is_taken_from_nobody_else(name: str) -> None:
    """Many upstreams make one variable of a name, whether it has hyphens or underscores."""
    words, row = Words(), f"{name}: evil".encode()
    words.on_header(name.encode(), b"evil")
    words.on_header(b"X_Own", b"1")
    assert request_lines(words, [row, b"X_Own: 1"], drop=()) == [b"X_Own: 1"]
    assert trailing_lines(row + b"\r\nX_Own: 1\r\n") == b"X_Own: 1\r\n"
