"""A template makes what its writer makes, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from billing_core.values.money import MAX_EXACT
from gateway.admission.decision import Decision, decision_in, usual_of
from gateway.admission.order import Charge, Order
from gateway.admission.reason import Reason
from gateway.edge.authorize.answer import decided_for_nginx
from gateway.edge.lane.response import Scribe
from gateway.edge.message import Answer
from gateway.edge.ratelimit import MOST
from gateway.edge.refusal.answer import Notices
from gateway.edge.reply import check_answer, told
from gateway.edge.straight.template import template_of

AT_MS = 1_795_000_000_000
UNITS = st.integers(0, MAX_EXACT)
CODES = st.one_of(
    st.text("aZ09_.-%", min_size=1, max_size=12),
    st.sampled_from(["800719925474082", "8007199254740821", "d", "b"]),
)
MARKS = [str(800_719_925_474_081 + index) for index in range(4)]
ORDINARY = (Reason.ALLOWED.value, 0, 0, "", "")
NOTHING = (0, "", 0, "")


def head(at_ms: int, currency: str, cost: int, balance: int) -> tuple[Any, ...]:
    return (*ORDINARY, at_ms, currency, cost, balance, *NOTHING)


HEADS = st.builds(
    head, st.integers(AT_MS, AT_MS + 5_000), st.sampled_from(["", "USD", "EUR"]), UNITS, st.integers(-MAX_EXACT)
)
CHARGES = st.tuples(
    st.one_of(st.just(-1), UNITS),
    UNITS,
    st.one_of(st.just(0), st.integers(AT_MS - 3_000, AT_MS + 9_000)),
    UNITS,
    st.just(""),
    st.sampled_from(["", "USD"]),
    st.just(0),
    st.sampled_from(["", "pro", "800719925474082"]),
)


def check(decision: Decision, customer_id: str) -> Answer:
    return told(check_answer(decision, customer_id))


WRITERS = {
    "check": check,
    "nginx": partial(decided_for_nginx, notices=Notices()),
    "legacy": partial(decided_for_nginx, notices=Notices(with_legacy=True)),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@settings(deadline=None)
@given(
    first=HEADS,
    charge=CHARGES,
    later_ms=st.sampled_from([0, 1, 700]),
    figures=st.tuples(UNITS, st.integers(-MAX_EXACT, MAX_EXACT), UNITS, UNITS),
    names=st.tuples(CODES, CODES),
)
@example(
    first=head(AT_MS, "", 0, 800_719_925_474_082),
    charge=(-1, 0, 0, 0, "", "", 0, "pro"),
    later_ms=0,
    figures=(1, 2, 3, 4),
    names=("calls", "800719925474082"),
)
def test_an_answer_of_the_same_frame_is_filled_in_as_it_would_be_written(
    write: Any,
    first: tuple[Any, ...],
    charge: tuple[Any, ...],
    later_ms: int,
    figures: tuple[int, int, int, int],
    names: tuple[str, str],
) -> None:
    """Whatever the figures are, and whatever anybody is called: for some names there is no template."""
    (feature, customer), (cost, balance, remaining, charge_cost) = names, figures
    remaining = min(remaining, charge[0]) if charge[0] >= 0 else remaining  # what remains is of the limit
    order = Order(charges=(Charge(feature=feature, quantity=1),))
    before = (*first, *charge)
    after = (*head(first[5] + later_ms, first[6], cost, balance), charge[0], remaining, charge[2], charge_cost)
    after = (*after, *charge[4:])
    known, usual = usual_of(before), usual_of(after)
    assert known is not None
    assert usual is not None
    template = template_of(
        decision_in(before, order, decision_id="dec_first"), partial(write, customer_id=customer)
    )
    if known[0] != usual[0]:
        assert later_ms
        return
    if template is None:
        assert charge[0] > MOST or any(mark in f"{feature} {customer} {before}" for mark in MARKS)
        return
    scribe = Scribe(lambda: datetime(2026, 1, 1, tzinfo=UTC), lambda: 0.0)
    written = write(decision_in(after, order, decision_id="dec_next"), customer_id=customer)
    filled = template.fill(usual[1], "dec_next")
    assert scribe.write(filled, is_last=False) == scribe.write(written, is_last=False)


def test_a_name_that_looks_like_a_mark_has_no_template() -> None:
    """It would be taken for a figure."""
    order = Order(charges=(Charge(feature="calls", quantity=1),))
    decision = decision_in((*head(AT_MS, "", 0, 0), -1, 0, 0, 0, "", "", 0, ""), order, decision_id="dec_a")
    assert template_of(decision, partial(check, customer_id="800719925474082")) is None
    assert template_of(decision, partial(check, customer_id="acme")) is not None


ODD: list[tuple[int, object]] = [
    (0, Reason.LIMIT_REACHED.value), (1, 1), (2, 1), (3, "customer"), (4, "calls@day"), (9, AT_MS), (10, "hold_1"),
    (11, 5), (12, Reason.SUSPENDED.value), (14, -1), (17, "gold"), (19, 1),
]  # fmt: skip


@pytest.mark.parametrize(("place", "word"), ODD)
def test_what_says_anything_else_is_not_usual(place: int, word: object) -> None:
    """It is written in full."""
    words = [*head(AT_MS, "USD", 3, 4), 10, 9, 0, 3, "", "USD", 0, "pro"]
    assert usual_of(tuple(words)) is not None
    words[place] = word
    assert usual_of(tuple(words)) is None


def test_a_frame_lasts_as_long_as_the_seconds_that_it_tells() -> None:
    """Until a window's end, which headers tell in seconds, rounded up."""
    frames = [
        usual_of((*head(at_ms, "", 0, 0), 5, 4, 10_000, 0, "", "", 0, "")) for at_ms in (7_999, 8_000, 8_999, 9_000)
    ]
    told = [usual[0][3] for usual in frames if usual is not None]
    assert told == [3, 2, 2, 1]
    late = usual_of((*head(11_000, "", 0, 0), 5, 4, 10_000, 0, "", "", 0, ""))
    assert late is not None
    assert late[0][3] == 0
