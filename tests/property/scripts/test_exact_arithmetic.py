"""Lua's doubles against Python's integers and fractions: no digit is lost up to 2^53, and nothing is guessed above.

Each library is driven alone, many cases in one call. A tariff is also driven through its twin in `pricing`, which
makes the invoices.
"""

from __future__ import annotations

import math

import msgspec
from desk import Desk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model.counting import LARGEST, cumulative, window_of

from billing_core.contract.snapshot import Tariff, Tier, Window, WindowKind
from billing_core.pricing.cumulative import cumulative_nanos, debit_nanos, hold_nanos
from lua.loader import assemble

NUMBER = "--!include lib/value/number.lua\n--!include lib/value/exact.lua\n"
DIVIDE = assemble(
    NUMBER
    + """
local replies = {}
for index = 1, #ARGV, 3 do
  local a, b, divisor = whole(ARGV[index]), whole(ARGV[index + 1]), whole(ARGV[index + 2])
  local quotient, rest = multiply_divide(a, b, divisor)
  replies[#replies + 1] = quotient and digits(quotient) or 'too large'
  replies[#replies + 1] = quotient and digits(rest) or ''
  replies[#replies + 1] = digits(multiply_modulo(a, b, divisor))
end
return replies
"""
)
PRICE = assemble(
    NUMBER
    + """--!include lib/money/tariff.lua
local replies, tariff = {}, cmsgpack.unpack(ARGV[1])
for index = 2, #ARGV, 2 do
  local used, quantity = whole(ARGV[index]), whole(ARGV[index + 1])
  local debit, reserve = debit_nanos(tariff, used, quantity), reserve_nanos(tariff, used, quantity)
  replies[#replies + 1] = debit and digits(debit) or 'too large'
  replies[#replies + 1] = reserve and digits(reserve) or 'too large'
end
return replies
"""
)
WINDOW = assemble(
    """--!include lib/value/number.lua
--!include lib/value/window.lua
local replies, window = {}, cmsgpack.unpack(ARGV[1])
for index = 2, #ARGV do
  local start, reset = window_at(window, whole(ARGV[index]))
  replies[#replies + 1] = start and digits(start) or 'none'
  replies[#replies + 1] = start and digits(reset) or 'none'
end
return replies
"""
)
NUMBERS = assemble(
    """--!include lib/value/number.lua
local replies = {}
for index, text in ipairs(ARGV) do
  local number = whole(text)
  replies[index] = number and digits(number) or 'refused'
end
return replies
"""
)

near_powers = st.integers(0, 53).flatmap(lambda bits: st.integers(max(0, 2**bits - 3), min(LARGEST, 2**bits + 3)))
numbers = st.one_of(near_powers, st.integers(0, LARGEST), st.integers(0, 1000), st.just(LARGEST))
positive = numbers.map(lambda number: max(1, number))
EXAMPLES = settings(max_examples=60, deadline=None)


def told(whole: int) -> str:
    return str(whole) if whole <= LARGEST else "too large"


def answers(desk: Desk, script: str, *args: object) -> list[str]:
    return [part.decode() for part in desk.client.eval(script, 0, *args)]


@EXAMPLES
@given(triples=st.lists(st.tuples(numbers, numbers, positive), min_size=1, max_size=40))
@example(triples=[(LARGEST, LARGEST, LARGEST), (LARGEST, LARGEST, LARGEST - 1), (LARGEST, LARGEST - 1, LARGEST)])
@example(triples=[(LARGEST, LARGEST, 1), (0, LARGEST, 7), (2**52, 2, 3), (LARGEST, 3, 2**52)])
def test_a_product_is_divided_to_the_last_digit(desk: Desk, triples: list[tuple[int, int, int]]) -> None:
    """a * b / c has the quotient and rest of whole numbers up to 2^106, and is refused above 2^53 - 1."""
    real = answers(desk, DIVIDE, *(number for triple in triples for number in triple))
    for at, (a, b, divisor) in enumerate(triples):
        quotient, rest = divmod(a * b, divisor)
        fits = quotient <= LARGEST
        assert real[3 * at : 3 * at + 3] == [told(quotient), str(rest) if fits else "", str(rest)]


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    """Any tariff that a snapshot may carry, from everyday ones to the edge of what a double carries."""
    size = draw(st.sampled_from([30, 10**6, LARGEST]))
    amounts = st.integers(0, draw(st.sampled_from([20, 10**10, LARGEST])))
    bounds = sorted(draw(st.sets(st.integers(1, size), max_size=4)))
    return Tariff(
        price_id="p",
        currency="USD",
        package_units=draw(st.one_of(st.just(1), st.integers(1, 50), positive)),
        batch=draw(st.one_of(st.just(1), st.integers(1, 30), st.just(10**6), positive)),
        tiers=tuple(
            Tier(upto=upto, nanos_per_batch=draw(amounts), flat_nanos=draw(st.one_of(st.just(0), amounts)))
            for upto in (*bounds, 0)
        ),
        window=Window(kind=WindowKind.LIFETIME),
    )


@EXAMPLES
@given(data=st.data(), tariff=tariffs())
def test_a_debit_is_the_difference_of_the_cumulative_price(desk: Desk, data: st.DataObject, tariff: Tariff) -> None:
    """floor(A(u + q)) - floor(A(u)), a hold ceil(A(u + q) - A(u)): in Lua, in the model and in pricing alike."""
    spans = data.draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=15))
    spans = [(used, min(quantity, LARGEST - used)) for used, quantity in spans]
    real = answers(desk, PRICE, msgspec.msgpack.encode(tariff), *(number for span in spans for number in span))
    for at, (used, units) in enumerate(spans):
        before, after = cumulative(tariff, used), cumulative(tariff, used + units)
        assert (before, after) == (cumulative_nanos(tariff, used), cumulative_nanos(tariff, used + units))
        debit, hold = math.floor(after) - math.floor(before), math.ceil(after - before)
        assert debit == debit_nanos(tariff, used_units=used, units=units)
        assert hold == hold_nanos(tariff, used_units=used, units=units)
        assert real[2 * at : 2 * at + 2] == [told(debit), told(hold)]


@EXAMPLES
@given(tariff=tariffs(), steps=st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_debits_add_up_to_the_whole_nanos_of_the_total(desk: Desk, tariff: Tariff, steps: list[int]) -> None:
    """However a total is split, the debits are floor(A(total)): the remainder is carried, nothing drifts."""
    starts = [sum(steps[:at]) for at in range(len(steps))]
    pairs = [number for pair in zip(starts, steps, strict=True) for number in pair]
    debits = answers(desk, PRICE, msgspec.msgpack.encode(tariff), *pairs)[::2]
    if "too large" not in debits:
        assert sum(map(int, debits)) == math.floor(cumulative(tariff, sum(steps)))


instants = st.integers(0, 4 * 10**12)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Steps of any length, lists of any edges."""
    if draw(st.booleans()):
        return Window(kind=WindowKind.STEPS, anchor_ms=draw(instants), every_ms=draw(st.integers(1, 10**11)))
    return Window(kind=WindowKind.EDGES, edges_ms=tuple(sorted(draw(st.sets(instants, max_size=40)))))


@EXAMPLES
@given(data=st.data(), window=windows())
def test_an_edge_belongs_to_the_window_that_it_starts(desk: Desk, data: st.DataObject, window: Window) -> None:
    """[start, end) at the exact millisecond, before the anchor too; nothing outside the listed edges."""
    edges = window.edges_ms or (window.anchor_ms, window.anchor_ms + window.every_ms)
    close = [max(0, edge + shift) for edge in edges[:20] for shift in (-1, 0, 1)]
    at = [*close, *data.draw(st.lists(instants, min_size=1, max_size=10))]
    real = answers(desk, WINDOW, msgspec.msgpack.encode(window), *at)
    spans = [window_of(window, instant) or ("none", "none") for instant in at]
    assert real == [str(part) for span in spans for part in span]


@EXAMPLES
@given(
    texts=st.lists(
        st.one_of(numbers.map(str), st.integers().map(str), st.floats().map(repr), st.text()), min_size=1
    )
)
@example(
    texts=[str(LARGEST), str(LARGEST + 1), str(LARGEST + 2), "0", "00", "-0", "-1", "+1", "1.0", "1e3", "0x10"]
)
@example(texts=["", " 1", "1 ", "1\n", "nan", "inf", "1" * 17, "9" * 16, "٣", "1\x00"])
def test_only_whole_numbers_below_two_to_the_53_are_numbers(desk: Desk, texts: list[str]) -> None:
    """Digits and nothing else: no sign, point, exponent, space or other script's numerals."""
    sound = [text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= LARGEST for text in texts]
    expected = [str(int(text)) if ok else "refused" for text, ok in zip(texts, sound, strict=True)]
    assert answers(desk, NUMBERS, *(text.encode("utf-8", "surrogatepass") for text in texts)) == expected
