"""Codes, ids, quantities, instants and laws: the small values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing_core.errors import InvalidInput, InvariantBroken
from billing_core.values.clock import EPOCH, from_ms, system_now, to_ms
from billing_core.values.ids import is_code, new_id, new_secret
from billing_core.values.invariant import invariant
from billing_core.values.money import MAX_EXACT
from billing_core.values.quantity import quantity_of, units_of

NOW = datetime(2026, 3, 17, 14, 30, tzinfo=UTC)


@pytest.mark.parametrize("code", ["a", "A-1", "gpt-4.1_mini", "9", "x" * 64])
def test_codes_that_people_choose(code: str) -> None:
    """Letters, digits, dots, dashes and underscores, from one to 64."""
    assert is_code(code)


@pytest.mark.parametrize("code", ["", "a:b", "-a", ".a", "_a", "a b", "ä", "x" * 65, "a\n", "a/b", "{a}"])
def test_codes_that_would_break_a_key_are_none(code: str) -> None:
    """No colon, no brace, no white space, not even a line's end."""
    assert not is_code(code)


def test_made_ids_sort_by_birth() -> None:
    """Their first ten digits are the time; the rest cannot be guessed."""
    ids = [new_id("inv", now=NOW + timedelta(milliseconds=n)) for n in range(50)]
    assert ids == sorted(ids)
    assert all(one.startswith("inv_") and len(one) == 30 and is_code(one) for one in ids)
    assert new_id("inv", now=NOW)[:14] == new_id("inv", now=NOW)[:14]
    assert new_id("inv", now=NOW) != new_id("inv", now=NOW)


def test_secrets_differ() -> None:
    """32 characters of chance behind the prefix."""
    secrets = {new_secret("tgk") for _ in range(50)}
    assert len(secrets) == 50
    assert all(len(one) == 36 for one in secrets)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (-1, "must not be negative"),
        (1.5, "must be a whole number"),
        (2.0, "must be a whole number"),
        ("3", "must be a whole number"),
        (True, "must be a whole number"),
        (None, "must be a whole number"),
        (2**53, "must be below 2^53"),
    ],
)
def test_units_that_break_a_rule_are_refused(value: object, rule: str) -> None:
    """Negative, fractional, text, truth, nothing, 2^53."""
    with pytest.raises(InvalidInput, match=rule.replace("^", r"\^")) as caught:
        units_of(value, field="quantity")
    assert caught.value.field == "quantity"


def test_whole_units_are_taken() -> None:
    """From zero to 2^53 - 1."""
    assert [units_of(value, field="q") for value in (0, 1, MAX_EXACT)] == [0, 1, MAX_EXACT]


@pytest.mark.parametrize(
    ("value", "scale", "rule"),
    [
        ("-0.1", 2, "not negative"),
        ("NaN", 2, "not negative"),
        ("Infinity", 2, "not negative"),
        ("0.001", 2, "at most 2 digits"),
        ("0.5", 0, "whole number"),
        ("9007199254740992", 0, "below 2"),
    ],
)
def test_decimals_that_break_a_rule_are_refused(value: str, scale: int, rule: str) -> None:
    """More digits than the scale are refused instead of rounded."""
    with pytest.raises(InvalidInput, match=rule):
        quantity_of(Decimal(value), scale=scale, field="q")


@pytest.mark.parametrize(("value", "scale"), [("1.50", 1), ("1e2", 0), ("0", 0), ("0.000", 0), ("12.345", 3)])
def test_decimals_within_their_scale_are_taken(value: str, scale: int) -> None:
    """Zeroes at the end are no digits."""
    assert quantity_of(Decimal(value), scale=scale, field="q") == Decimal(value)


def test_instants_cross_to_milliseconds_and_back() -> None:
    """Truncated towards the past, also before 1970."""
    assert from_ms(to_ms(NOW)) == NOW
    assert to_ms(EPOCH + timedelta(microseconds=1999)) == 1
    assert to_ms(EPOCH - timedelta(microseconds=1)) == -1
    assert system_now().tzinfo is UTC
    with pytest.raises(ValueError, match="time zone"):
        to_ms(NOW.replace(tzinfo=None))


def test_a_law_that_does_not_hold_is_named() -> None:
    """And one that holds says nothing."""
    invariant(True, "never told")
    with pytest.raises(InvariantBroken, match="books balance"):
        invariant(False, "books balance")
