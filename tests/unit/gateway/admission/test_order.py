"""An order becomes a script call whose keys and arguments are those of the script's header."""

from __future__ import annotations

import msgspec
import pytest

from billing_core.contract.usage_event import EventBody
from gateway.admission.caller import caller_of_customer
from gateway.admission.order import Act, Charge, Mode, OnExpiry, Order, Terms, digest_of_charges, plan
from lua.loader import SCRIPTS

CALLER = caller_of_customer("t1", "acme")
CHARGES = (Charge(feature="calls", quantity=1), Charge(feature="tokens", quantity=20))


def planned(**more: object) -> Act:
    return plan(Order(charges=CHARGES, **more), CALLER, terms=Terms(window_ms=1_000))  # type: ignore[arg-type]


def named(act: Act) -> dict[str, object]:
    """The arguments by the names of the script's header, without those that repeat."""
    script = SCRIPTS[act.script]
    single = [name for name in script.arg_names if name not in script.repeated_arg_names]
    assert len(act.keys) == len(script.key_names)
    assert len(act.args) == len(single) + len(script.repeated_arg_names) * len(CHARGES)
    return dict(zip(single, act.args, strict=False))


@pytest.mark.parametrize("mode", Mode)
def test_an_act_has_the_keys_and_arguments_of_its_script(mode: Mode) -> None:
    """In the header's order, charges at the end."""
    act = planned(mode=mode, ttl_ms=5_000)
    assert act.script == mode.value
    assert named(act)["count"] == 2
    assert act.args[-4:] == ("calls", 1, "tokens", 20)
    names = SCRIPTS[act.script].key_names
    keys = dict(zip(names, act.keys, strict=True))
    assert keys["snapshot_key"] == CALLER.keys.snapshot
    assert keys["stream_key"] == CALLER.keys.stream
    assert keys["customer_holds_key"] == CALLER.keys.holds


def test_all_keys_of_an_act_are_in_one_slot() -> None:
    """Or a cluster would refuse the call."""
    act = planned(mode=Mode.HOLD, ttl_ms=1, idempotency_key="}{odd}")
    assert {str(key).partition("}")[0] for key in act.keys} == {f"{{s{CALLER.keys.shard:04d}"}


def test_without_an_idempotency_key_nothing_is_remembered_and_ids_are_random() -> None:
    """The window is zero."""
    act, other = planned(), planned()
    assert named(act)["idem_window_ms"] == 0
    assert act.decision_id != other.decision_id


@pytest.mark.parametrize("mode", [Mode.CONSUME, Mode.HOLD])
def test_a_refusal_is_kept_for_whoever_gave_a_key(mode: Mode) -> None:
    """Nobody else can ask again; and a record is never refused."""
    terms = Terms(window_ms=1_000, refusal_ms=500, keyed=True)
    with_key = plan(Order(charges=CHARGES, mode=mode, ttl_ms=1, idempotency_key="k"), CALLER, terms=terms)
    without = plan(Order(charges=CHARGES, mode=mode, ttl_ms=1), CALLER, terms=terms)
    assert (named(with_key)["idem_window_ms"], named(with_key)["refusal_ms"]) == (1_000, 500)
    assert (named(without)["idem_window_ms"], named(without)["refusal_ms"]) == (1_000, 0)


def test_with_one_the_decision_id_is_the_same_in_every_process() -> None:
    """And another customer's is another."""
    act, again = planned(idempotency_key="k"), planned(idempotency_key="k")
    assert named(act)["idem_window_ms"] == 1_000
    assert act.decision_id == again.decision_id
    stranger = plan(
        Order(charges=CHARGES, idempotency_key="k"), caller_of_customer("t2", "acme"), terms=Terms(window_ms=1)
    )
    assert stranger.decision_id != act.decision_id


def test_the_digest_tells_a_retry_from_another_request() -> None:
    """Quantity, feature, order of charges, mode, hold terms: any of them makes another request."""
    more = (Charge(feature="calls", quantity=2), CHARGES[1])
    orders = [
        Order(charges=CHARGES, idempotency_key="k"),
        Order(charges=more, idempotency_key="k"),
        Order(charges=CHARGES[::-1], idempotency_key="k"),
        Order(charges=CHARGES[:1], idempotency_key="k"),
        Order(charges=(Charge(feature="calls", quantity=1, is_level=True), CHARGES[1]), idempotency_key="k"),
        Order(charges=CHARGES, idempotency_key="k", shadow=True),
        Order(charges=CHARGES, idempotency_key="k", mode=Mode.RECORD),
        Order(charges=CHARGES, idempotency_key="k", mode=Mode.HOLD, ttl_ms=1),
        Order(charges=CHARGES, idempotency_key="k", mode=Mode.HOLD, ttl_ms=2),
        Order(charges=CHARGES, idempotency_key="k", mode=Mode.HOLD, ttl_ms=2, on_expiry=OnExpiry.CHARGE),
    ]
    digests = {plan(order, CALLER, terms=Terms(window_ms=1)).args[0] for order in orders}
    assert len(digests) == len(orders)
    assert plan(orders[0], CALLER, terms=Terms(window_ms=9)).args[0] in digests
    elsewhere = caller_of_customer("t1", "acme", path="team:ml")
    assert plan(orders[0], elsewhere, terms=Terms(window_ms=1)).args[0] not in digests


def test_the_body_of_the_event_is_known_before_the_decision() -> None:
    """Who and what; when and how much the script adds."""
    act = planned()
    body = msgspec.msgpack.decode(bytes(named(act)["body"]), type=EventBody)  # type: ignore[call-overload]
    assert body == EventBody(
        event_id=act.decision_id, tenant_id="t1", customer_id="acme", features=("calls", "tokens")
    )


def test_a_gauge_is_changed_or_set() -> None:
    """`=5` is a level, -5 a change."""
    charges = (Charge(feature="seats", quantity=5, is_level=True), Charge(feature="disk", quantity=-5))
    assert plan(Order(charges=charges), CALLER, terms=Terms(window_ms=1)).args[-4:] == ("seats", "=5", "disk", -5)


@pytest.mark.parametrize("mode", Mode)
def test_path_lateness_and_shadow_travel_where_the_script_takes_them(mode: Mode) -> None:
    """A peek and a record are never late and have no shadow."""
    caller = caller_of_customer("t1", "acme", path="team:ml/key:k1")
    order = Order(charges=CHARGES, mode=mode, ttl_ms=5, shadow=True)
    told = named(plan(order, caller, terms=Terms(window_ms=1, not_after_ms=77)))
    assert told["path"] == "team:ml/key:k1"
    if mode in (Mode.CONSUME, Mode.HOLD):
        assert (told["not_after_ms"], told["shadow"]) == (77, 1)


def test_an_act_may_be_keyed_without_a_key_of_the_caller() -> None:
    """By its decision id, so that whoever acts under it excludes this act."""
    act = plan(Order(charges=CHARGES), CALLER, terms=Terms(window_ms=1_000, keyed=True))
    assert named(act)["idem_window_ms"] == 1_000
    assert act.answer_key.endswith(act.decision_id)
    assert act.digest == named(act)["request_digest"]


def test_a_settlement_is_recognized_whatever_the_order_of_its_charges() -> None:
    """Its answer does not list them."""
    assert digest_of_charges(CHARGES) == digest_of_charges(CHARGES[::-1])
    assert digest_of_charges(CHARGES) != digest_of_charges(CHARGES[:1])


def test_one_key_of_two_customers_names_two_decisions() -> None:
    """A key is the customer's own; so is it the tenant's."""
    order = Order(charges=(Charge(feature="calls", quantity=1),), idempotency_key="k")
    callers = [caller_of_customer(*names) for names in (("t1", "acme"), ("t1", "other"), ("t2", "acme"))]
    acts = [plan(order, caller, terms=Terms(window_ms=1)) for caller in callers]
    assert len({act.decision_id for act in acts}) == 3
    assert len({act.answer_key for act in acts}) == 3
