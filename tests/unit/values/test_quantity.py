"""Quantities: exact, never negative, never wider than their meter says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing_core.errors import InvalidInput
from billing_core.values.money import MAX_EXACT
from billing_core.values.quantity import quantity_of, units_of


@pytest.mark.parametrize(("value", "rule"), [
    (-1, "negative"), (MAX_EXACT + 1, "2\\^53"), (1.0, "whole"), (True, "whole"), ("1", "whole"), (None, "whole"),
    (Decimal(1), "whole"),
])  # fmt: skip
def test_units_are_whole_and_below_two_to_the_53(value: object, rule: str) -> None:
    """The field and the rule are named."""
    with pytest.raises(InvalidInput, match=rule) as caught:
        units_of(value, field="quantity")
    assert caught.value.field == "quantity"


@pytest.mark.parametrize("value", [0, 1, MAX_EXACT])
def test_the_bounds_themselves_are_units(value: int) -> None:
    """Zero and 2^53 - 1 belong to the range."""
    assert units_of(value, field="quantity") == value


@pytest.mark.parametrize(
    ("text", "scale"), [("1.5", 1), ("1.50", 1), ("2E3", 0), ("0", 0), ("0.000", 0), ("100", 0), ("1.250", 2)]
)
def test_a_quantity_within_its_scale_stays_as_it_is(text: str, scale: int) -> None:
    """Zeros behind the last digit do not count."""
    assert quantity_of(Decimal(text), scale=scale, field="q") == Decimal(text)


@pytest.mark.parametrize(("text", "scale", "rule"), [
    ("1.5", 0, "whole number"), ("1.001", 2, "at most 2 digits"), ("1." + "0" * 40 + "1", 12, "at most 12 digits"),
    ("-0.1", 1, "not negative"), ("NaN", 1, "not negative"), ("Infinity", 1, "not negative"),
    (str(MAX_EXACT + 1), 0, "2\\^53"),
])  # fmt: skip
def test_a_quantity_beyond_its_scale_is_refused_and_not_rounded(text: str, scale: int, rule: str) -> None:
    """However long its tail is."""
    with pytest.raises(InvalidInput, match=rule):
        quantity_of(Decimal(text), scale=scale, field="q")
