"""What is allowed out of slices never exceeds them, is counted where it outlives the process, and ends in time."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.admission.caller import caller_of_customer
from gateway.admission.slice.sheet import Cell
from gateway.admission.slice.slice import Slice, Stand, Stands
from tests.unit.gateway.admission.slice.test_sheet import RECORD

ACME = caller_of_customer("t1", "acme")


def slice_of(units: int, *, number: int = 1, used: memoryview | None = None, now_s: float = 0.0) -> Slice:
    used = used if used is not None else memoryview(bytearray(1_024 * (number + 1))).cast("Q")
    record = msgspec.structs.replace(RECORD, hold_id=f"hold_{number}", decision_id=f"dec_{number}")
    return Slice(record, units=units, cell=Cell(number, used), since_s=now_s, until_s=now_s + 1.0)


def test_an_order_is_answered_by_the_event_that_will_tell_of_it() -> None:
    """And counted in the cell, before the answer is there."""
    piece = slice_of(10)
    decision = piece.take(3)
    assert (decision.allowed, decision.sliced, decision.decision_id) == (True, True, "dec_1")
    assert [charge.feature for charge in decision.charges] == ["calls"]
    assert (piece.left, piece.cell.used[piece.cell.place]) == (7, 3)


def test_the_next_slice_is_wanted_at_half_and_near_the_end_while_many_come() -> None:
    """Nothing is wanted where one is there or on its way."""
    stand = Stand(ACME, "calls")
    piece = slice_of(10)
    stand.add(piece)
    assert not stand.wants(now_s=0.0, busy_count=2)
    piece.take(5)
    assert stand.wants(now_s=0.0, busy_count=2)
    stand.is_asked = True
    assert not stand.wants(now_s=0.0, busy_count=2)
    stand.is_asked = False
    stand.add(slice_of(10, number=2))
    assert not stand.wants(now_s=0.0, busy_count=2)
    stand = Stand(ACME, "calls")
    stand.add(slice_of(10))
    assert not stand.wants(now_s=0.9, busy_count=1)
    assert stand.in_use is not None
    stand.in_use.take(1)
    assert not stand.wants(now_s=0.7, busy_count=1)
    assert stand.wants(now_s=0.8, busy_count=1)
    assert not stand.wants(now_s=0.8, busy_count=2)


@pytest.mark.parametrize(("units", "now_s", "closes"), [(3, 0.5, False), (3, 1.0, True), (20, 0.5, False)])
def test_a_slice_is_closed_when_its_time_is_over_and_not_before(units: int, now_s: float, closes: bool) -> None:
    """An order that it does not cover leaves it as it is, where no other covers it."""
    stand = Stand(ACME, "calls")
    piece = slice_of(10)
    stand.add(piece)
    assert stand.turn(units, now_s=now_s) is (piece if closes else None)
    assert stand.in_use is (None if closes else piece)


def test_a_customer_can_be_found_with_all_its_kinds() -> None:
    """And with no other's; what is taken down gives back all it had."""
    stands = Stands()
    for customer in ("acme", "globex"):
        for feature in ("a", "b"):
            stand = Stand(caller_of_customer("t1", customer), feature)
            stands.add((customer, "", "", feature), stand)
            stand.add(slice_of(10))
            stand.add(slice_of(5))
    assert stands.of_owner("t1:acme") == [("acme", "", "", "a"), ("acme", "", "", "b")]
    assert stands.left_units() == 60
    assert [piece.units for piece in stands.remove(("acme", "", "", "a"))] == [10, 5]
    assert stands.of_owner("t1:acme") == [("acme", "", "", "b")]
    stands.remove(("acme", "", "", "b"))
    assert (stands.of_owner("t1:acme"), stands.left_units()) == ([], 30)


class Served(RuleBasedStateMachine):
    """Orders of any size at any time, slices that come when they come, and whoever closes them."""

    @initialize()
    def begin(self) -> None:
        self.used = memoryview(bytearray(1_024 * 400)).cast("Q")
        self.stand = Stand(ACME, "calls")
        self.now_s = 0.0
        self.allowed = 0
        self.slices: list[Slice] = []
        self.settled: dict[str, int] = {}

    def close(self, closed: list[Slice]) -> None:
        for piece in closed:
            assert piece.record.hold_id not in self.settled
            self.settled[piece.record.hold_id] = piece.units - piece.left

    @rule(units=st.integers(1, 12))
    def come(self, units: int) -> None:
        if self.stand.following is None:
            number = len(self.slices) + 1
            self.slices.append(slice_of(units, number=number, used=self.used, now_s=self.now_s))
            self.stand.add(self.slices[-1])

    @rule(units=st.integers(1, 15))
    def order(self, units: int) -> None:
        piece = self.stand.in_use
        if piece is None or units > piece.left or self.now_s >= piece.until_s:
            closed = self.stand.turn(units, now_s=self.now_s)
            self.close([closed] if closed is not None else [])
            piece = self.stand.in_use
        if piece is None or units > piece.left or self.now_s >= piece.until_s:
            return
        assert piece.record.hold_id not in self.settled
        assert piece.since_s <= self.now_s < piece.since_s + 1.0
        piece.take(units)
        self.allowed += units

    @rule(seconds=st.floats(0.0, 0.7))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def yield_all(self) -> None:
        self.close(self.stand.close())

    @invariant()
    def nothing_is_allowed_that_was_not_set_aside(self) -> None:
        for piece in self.slices:
            assert 0 <= piece.left <= piece.units
            assert self.used[piece.cell.place] == piece.units - piece.left

    @invariant()
    def what_is_settled_and_what_is_open_is_what_was_allowed(self) -> None:
        still = [piece for piece in (self.stand.in_use, self.stand.following) if piece is not None]
        assert not {piece.record.hold_id for piece in still} & self.settled.keys()
        used = sum(piece.units - piece.left for piece in still)
        assert sum(self.settled.values()) + used == self.allowed
        assert len(self.settled) + len(still) == len(self.slices)


TestServed = Served.TestCase
TestServed.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
