"""Replies are read, or refused as a broken law; nothing is guessed."""

from __future__ import annotations

import msgspec
import pytest

from billing_core.errors import Conflict, IdempotencyConflict, InvariantBroken, NotFound
from gateway.admission.account import Bound, GrantKind, purse_of, usage_of
from gateway.admission.decision import ChargeOutcome, HoldOutcome, decision_of
from gateway.admission.order import Charge, Order
from gateway.admission.outcome import HoldEnd, outcome_of
from gateway.admission.reason import Reason
from gateway.state.resp import Reply
from lua.loader import SCRIPTS

ORDER = Order(charges=(Charge(feature="calls", quantity=1), Charge(feature="seat", quantity=1)))
HEAD: list[int | str] = ["allowed", 0, 0, "", "", 1_000, "USD", 2_500, 97_500, 0, "", 0, ""]
CHARGES: list[int | str] = [100, 60, 5_000, 2_500, "", "USD", 0, "pro", -1, -1, 0, 0, "gold", "", 0, "pro"]


def packed(*words: object) -> bytes:
    """A reply of these words."""
    return msgspec.msgpack.encode(words)


def test_the_reply_is_read_as_the_scripts_headers_list_it() -> None:
    """Thirteen words and eight for each charge."""
    for name in ("consume", "peek", "hold"):
        script = SCRIPTS[name]
        assert len(script.reply_names) - len(script.repeated_reply_names) == len(HEAD)
        assert len(script.repeated_reply_names) * 2 == len(CHARGES)


def test_a_decision_is_read_word_by_word() -> None:
    """-1 is no limit, 0 no reset."""
    decision = decision_of(packed(*HEAD, *CHARGES), ORDER, decision_id="dec_1")
    assert decision.allowed
    assert (decision.currency, decision.cost_nanos, decision.balance_nanos) == ("USD", 2_500, 97_500)
    assert (decision.hold, decision.plan) == (None, "pro")
    assert decision.charges == (
        ChargeOutcome(
            feature="calls",
            limit_units=100,
            remaining_units=60,
            reset_at_ms=5_000,
            cost_nanos=2_500,
            static_value="",
            currency="USD",
        ),
        ChargeOutcome(
            feature="seat",
            limit_units=None,
            remaining_units=None,
            reset_at_ms=None,
            cost_nanos=0,
            static_value="gold",
        ),
    )


def test_a_refusal_names_the_feature_that_was_refused() -> None:
    """By its place among the charges."""
    head: list[int | str] = ["limit_reached", 0, 2, *HEAD[3:]]
    decision = decision_of(packed(*head, *CHARGES), ORDER, decision_id="dec_1")
    assert (decision.reason, decision.refused_feature) == (Reason.LIMIT_REACHED, "seat")


def test_a_replayed_hold_is_the_hold_of_the_first_answer() -> None:
    """Its id comes from the reply, not from the request."""
    head: list[int | str] = ["allowed", 1, *HEAD[2:9], 99_000, "hold_abc", 0, ""]
    decision = decision_of(packed(*head, *CHARGES), ORDER, decision_id="dec_1")
    assert decision.replayed
    assert decision.hold == HoldOutcome(hold_id="hold_abc", deadline_ms=99_000)


def test_a_first_answer_that_the_version_before_has_kept_is_read() -> None:
    """It had seven words for each charge, and no plan. Nothing but a kept answer may look so."""
    told = [*CHARGES[:7], *CHARGES[8:15]]
    decision = decision_of(packed("allowed", 1, *HEAD[2:], *told), ORDER, decision_id="dec_1")
    now = decision_of(packed("allowed", 1, *HEAD[2:], *CHARGES), ORDER, decision_id="dec_1")
    assert decision == msgspec.structs.replace(now, plan="")
    with pytest.raises(InvariantBroken):
        decision_of(packed(*HEAD, *told), ORDER, decision_id="dec_1")


@pytest.mark.parametrize(
    "reply",
    [
        None,
        1,
        b"OK",
        b"",
        [],
        ["allowed", *HEAD[1:], *CHARGES],
        packed(),
        packed(*HEAD),
        packed(*HEAD, *CHARGES, 1),
        packed("perhaps", *HEAD[1:], *CHARGES),
        packed(*HEAD, *CHARGES[:-1], None),
        packed(*HEAD[:7], "x", *HEAD[8:], *CHARGES),
        packed("limit_reached", 0, 3, *HEAD[3:], *CHARGES),
    ],
)
def test_another_shape_is_a_broken_law(reply: Reply) -> None:
    """Never a decision."""
    with pytest.raises(InvariantBroken):
        decision_of(reply, ORDER, decision_id="dec_1")


def test_a_hold_that_ended_as_wanted_is_told() -> None:
    """With what was charged, given back and lost."""
    outcome = outcome_of([b"settled", 1, 5, b"USD", 10, 20, 30, 40], wanted=HoldEnd.SETTLED)
    assert (outcome.replayed, outcome.charged_nanos, outcome.uncollected_nanos) == (True, 10, 30)


@pytest.mark.parametrize(
    ("end", "failure"),
    [
        (b"released", Conflict),
        (b"expired", Conflict),
        (b"not_found", NotFound),
        (b"conflict", IdempotencyConflict),
        (b"lost", InvariantBroken),
    ],
)
def test_a_hold_that_ended_otherwise_is_a_failure(end: bytes, failure: type[Exception]) -> None:
    """One end only."""
    with pytest.raises(failure):
        outcome_of([end, 1, 5, b"USD", 10, 20, 30, 40], wanted=HoldEnd.SETTLED)


def test_usage_is_read_in_rows_sorted_by_feature() -> None:
    """Redis keeps hash fields in no order."""
    rows: list[Reply] = [b"feature", b"b", 2, 1, b"", b"", b"", -1, -1, 0, 0, -1, 0, 0]
    rows += [b"limit", b"b", 2, 1, b"", b"customer", b"b@day", 10, 10, 4, 3, 3, 0, 0]
    rows += [b"limit", b"b", 2, 1, b"", b"customer", b"b@month", 90, 90, 4, 3, 83, -1, 0]
    rows += [b"feature", b"a", 1, 1, b"gold", b"", b"", -1, -1, 0, 0, -1, -1, 0]
    usage = usage_of([1_000, b"active", *rows])
    assert [one.feature for one in usage.features] == ["a", "b"]
    assert (usage.features[1].remaining_units, usage.features[1].window_start_ms) == (3, 0)
    assert (usage.features[0].limit_units, usage.features[0].window_start_ms) == (None, None)
    assert [(one.level, one.counter) for one in usage.bounds] == [("customer", "b@day"), ("customer", "b@month")]


def test_a_level_below_the_customer_is_told_apart() -> None:
    """And counts for no feature of the customer itself."""
    rows: list[Reply] = [b"feature", b"b", 2, 1, b"", b"", b"", -1, -1, 0, 0, -1, 0, 0]
    rows += [b"spend_cap", b"", -1, 1, b"USD", b"team:ml", b"$USD@day", 90, -1, 4, 3, 83, 0, 9_000]
    rows += [b"limit", b"b", 2, 1, b"", b"team:ml", b"b@day", 10, 10, 4, 3, 3, 0, 0]
    usage = usage_of([1_000, b"active", *rows])
    assert usage.features[0].limit_units is None
    assert usage.bounds[0] == Bound(
        kind="spend_cap",
        level="team:ml",
        feature="",
        counter="$USD@day",
        currency="USD",
        limit_units=90,
        ceiling_units=None,
        used_units=4,
        held_units=3,
        remaining_units=83,
        window_start_ms=0,
        reset_at_ms=9_000,
    )


def test_wallets_are_read_in_rows() -> None:
    """Eleven words for each grant."""
    purse = purse_of([1_000, b"USD", b"g1", 1, b"700", 300, 5, 0, 50, 1, b"", 0])
    assert (purse.grants[0].remaining_nanos, purse.grants[0].expires_ms, purse.grants[0].kind) == (
        700,
        None,
        GrantKind.PAID,
    )


@pytest.mark.parametrize("reply", [None, [], [1, b"active", b"a"], [1, b"USD", b"g1", 1, None, 0, 0, 0, 0, 0]])
def test_rows_that_do_not_fit_are_a_broken_law(reply: Reply) -> None:
    """For both reads."""
    for read in (usage_of, purse_of):
        with pytest.raises(InvariantBroken):
            read(reply)
