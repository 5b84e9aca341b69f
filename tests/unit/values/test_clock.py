"""Instants in whole milliseconds, down and up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from billing_core.values.clock import from_ms, next_ms, to_ms

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(("microseconds", "down", "up"), [(0, 0, 0), (1, 0, 1), (999, 0, 1), (1000, 1, 1)])
def test_an_instant_is_rounded_down_to_be_told_and_up_to_begin(microseconds: int, down: int, up: int) -> None:
    """What is decided within a millisecond is told as its start."""
    instant = AT + timedelta(microseconds=microseconds)
    assert to_ms(instant) == to_ms(AT) + down
    assert next_ms(instant) == from_ms(to_ms(AT) + up)
