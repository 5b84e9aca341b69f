"""What a client sends is what the gateway reads, and what it reads is told in the house's failures."""

from __future__ import annotations

import msgspec
import pytest

from billing_core import errors
from billing_core.contract.problem import problem_of
from billing_core.errors import Failure, InvalidInput, Unavailable
from gateway.admission.order import Mode
from gateway.edge.wire import CheckRequest, ExtendRequest, SettleRequest
from gateway.sdk import ask
from gateway.sdk.ask import Asked, HoldAsked
from gateway.sdk.event import EventAsked, encode_event
from gateway.usage.event import ClientEvent, read_event

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Failure)]


def test_a_client_can_say_all_that_a_check_can_and_nothing_else() -> None:
    """The mode is the method's name."""
    assert {*HoldAsked.__annotations__, "mode"} == {field.name for field in msgspec.structs.fields(CheckRequest)}
    assert set(HoldAsked.__annotations__) - set(Asked.__annotations__) == {"ttl_ms", "on_expiry"}
    assert set(EventAsked.__annotations__) == {field.name for field in msgspec.structs.fields(ClientEvent)}


@pytest.mark.parametrize("mode", Mode)
def test_the_gateway_reads_every_check(mode: Mode) -> None:
    """And all that changes something has an idempotency key."""
    act = ask.check({"key": "tgk_1", "charges": {"a": 1, "b": 2}}, mode=mode)
    read = msgspec.json.decode(act.body, type=CheckRequest)
    assert (read.key, read.mode) == ("tgk_1", mode)
    assert [(one.feature, one.quantity) for one in read.charges or ()] == [("a", 1), ("b", 2)]
    assert (read.idempotency_key is None) == (mode is Mode.PEEK)


def test_two_acts_have_two_keys_and_one_that_is_told_is_kept() -> None:
    """A key names one act."""
    keys = {msgspec.json.decode(ask.check({"key": "k"}).body)["idempotency_key"] for _ in range(100)}
    assert len(keys) == 100
    told = ask.check({"key": "k", "idempotency_key": "mine"})
    assert msgspec.json.decode(told.body)["idempotency_key"] == "mine"


def test_the_gateway_reads_every_act_on_a_hold() -> None:
    """Ends, parts and extensions."""
    settled = msgspec.json.decode(ask.settle("hold_1", {"a": 1}).body, type=SettleRequest)
    part = msgspec.json.decode(ask.part("hold_1", {"a": 1}, ttl_ms=5).body, type=SettleRequest)
    extended = msgspec.json.decode(ask.extend("hold_1", {}, ttl_ms=5).body, type=ExtendRequest)
    assert (settled.final, part.final, part.ttl_ms, extended.ttl_ms) == (True, False, 5, 5)
    assert None not in (part.idempotency_key, extended.idempotency_key)
    for hold_id in ("../../x", "", "a/b", "a?b"):
        with pytest.raises(InvalidInput):
            ask.settle(hold_id, {})


def test_the_gateway_reads_every_event() -> None:
    """Its id is kept."""
    event_id, raw = encode_event({"event": "ping", "customer": "acme", "fields": {"n": 1, "t": "x"}})
    read = read_event(raw)
    assert (read.event_id, dict(read.fields)) == (event_id, {"n": 1, "t": "x"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_comes_back_as_itself_or_as_no_answer(kind: type[Failure]) -> None:
    """What may be tried again, and what is the server's own fault, is none."""
    problem = problem_of(kind("what", field="where"))
    with pytest.raises(Failure) as caught:
        ask.read(ask.release("hold_1"), problem.status, content=msgspec.json.encode(problem))
    wanted = Unavailable if kind.retry_is_safe or kind.status >= 500 else kind
    assert type(caught.value) is wanted
    assert caught.value.detail == "what"


@pytest.mark.parametrize(
    ("status", "kind"), [(302, Unavailable), (200, Unavailable), (404, Failure), (502, Unavailable)]
)
def test_what_is_no_answer_of_a_gateway_is_not_taken_for_one(status: int, kind: type[Failure]) -> None:
    """Pages of others."""
    with pytest.raises(Failure) as caught:
        ask.read(ask.release("hold_1"), status, content=b"<html>\xff")
    assert type(caught.value) is kind


def test_a_late_charge_says_what_the_check_said_and_is_never_refused() -> None:
    """Under a key made of the check's; what a record knows nothing of is left out."""
    asked = Asked(
        key="k", path="a/b", charges={"a": 2}, idempotency_key="mine", shadow=True, deadline_ms=5, receipt=True
    )
    late = ask.late_charge(ask.check(asked))
    assert late
    read = msgspec.json.decode(late, type=CheckRequest)
    assert (read.mode, read.key, read.path, read.shadow, read.receipt, read.deadline_ms) == (
        Mode.RECORD, "k", "a/b", False, False, None
    )  # fmt: skip
    assert [(one.feature, one.quantity) for one in read.charges or ()] == [("a", 2)]
    assert read.idempotency_key not in ("mine", None)
    assert late == ask.late_charge(ask.check(asked))
    assert ask.late_charge(ask.check(asked, mode=Mode.PEEK)) == b""
    assert ask.late_charge(ask.check({**asked, "ttl_ms": 5}, mode=Mode.HOLD)) is None
