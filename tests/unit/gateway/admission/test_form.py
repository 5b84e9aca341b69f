"""What a form makes is what the plan makes, byte for byte."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.contract.keys import customer_keys
from billing_core.values.money import MAX_EXACT
from gateway.admission.act.form import Forms, filled
from gateway.admission.caller import Caller
from gateway.admission.order import Charge, Mode, Order, Terms, plan
from gateway.state.resp import Word, encode
from lua.loader import SCRIPTS

TERMS = Terms(window_ms=86_400_000, refusal_ms=60_000)
NOW_MS = 1_795_000_000_000
CODES = st.one_of(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}", fullmatch=True),
    st.sampled_from(["8007199254740991", "4102444800123", "13", "dec_"]),
)
KEYS = st.one_of(st.just(""), st.from_regex(r"[\x21-\x7e]{1,40}", fullmatch=True), st.just("~form~"))
ORDERS = st.builds(
    lambda feature, quantity, key, shadow: Order(
        charges=(Charge(feature=feature, quantity=quantity),), idempotency_key=key, shadow=shadow
    ),
    CODES,
    st.integers(-MAX_EXACT, MAX_EXACT),
    KEYS,
    st.booleans(),
)
CALLERS = st.builds(
    lambda tenant, customer, hint, path: Caller(
        tenant_id=tenant,
        customer_id=customer,
        keys=customer_keys(tenant, customer),
        key_hint=hint,
        path=path,
    ),
    CODES,
    CODES,
    st.text(max_size=8),
    st.sampled_from(["", "team:ml", "team:ml/key:4102444800123", "user:a"]),
)


def pack(name: str, keys: object, *, args: object) -> bytes:
    words: tuple[Word, ...] = SCRIPTS[name].call(keys, args)  # type: ignore[arg-type]
    return encode(words)


def planned(order: Order, caller: Caller, decision_id: str, *, not_after_ms: int) -> bytes:
    terms = Terms(window_ms=TERMS.window_ms, refusal_ms=TERMS.refusal_ms, not_after_ms=not_after_ms)
    act = plan(order, caller, terms=terms)
    return pack(act.script, act.keys, args=act.args).replace(act.decision_id.encode(), decision_id.encode())


@settings(deadline=None)
@given(caller=CALLERS, orders=st.lists(ORDERS, min_size=1, max_size=4), late_ms=st.integers(0, 10_000))
def test_a_form_makes_what_the_plan_makes(caller: Caller, orders: list[Order], late_ms: int) -> None:
    """Whatever the names are, and however often it is used."""
    forms = Forms(pack, terms=TERMS)
    for order in orders:
        forms.command(caller, order, not_after_ms=NOW_MS)
    for order in [*orders, *orders]:
        command = forms.command(caller, order, not_after_ms=NOW_MS + late_ms)
        if command is None:
            assert {order.charges[0].feature, "~form~"} & {
                "8007199254740991",
                "4102444800123",
                order.idempotency_key,
            }
            continue
        wanted = planned(order, caller, command.decision_id, not_after_ms=NOW_MS + late_ms)
        assert command.packed == wanted


@settings(deadline=None)
@given(caller=CALLERS, order=ORDERS, keys=st.lists(KEYS, min_size=1, max_size=3), late_ms=st.integers(0, 10_000))
def test_an_exact_form_makes_what_the_plan_makes(
    caller: Caller, order: Order, keys: list[str], late_ms: int
) -> None:
    """For every key that the order may come with."""
    forms = Forms(pack, terms=TERMS)
    for key in keys:
        keyed = msgspec.structs.replace(order, idempotency_key=key)
        form = forms.exact(caller, msgspec.structs.replace(order, idempotency_key=""), is_keyed=bool(key))
        if not form:
            assert str(order.charges[0].quantity) == "4102444800123" or order.charges[0].feature == "4102444800123"
            continue
        command = filled(form, caller, key=key, not_after_ms=NOW_MS + late_ms)
        assert command is not None
        wanted = planned(keyed, caller, command.decision_id, not_after_ms=NOW_MS + late_ms)
        assert command.packed == wanted


def test_a_retry_has_the_decision_of_the_first_attempt() -> None:
    """Its id is made of its key; without one it is made of chance."""
    forms, caller = Forms(pack, terms=TERMS), Caller(tenant_id="t", customer_id="c", keys=customer_keys("t", "c"))
    plain = Order(charges=(Charge(feature="calls", quantity=1),))
    keyed = Order(charges=plain.charges, idempotency_key="k")
    commands = [forms.command(caller, order, not_after_ms=NOW_MS) for order in (plain, keyed) * 3]
    ids = [command.decision_id for command in commands if command is not None]
    assert [command is None for command in commands] == [True, True, False, False, False, False]
    assert (len(set(ids[::2])), len(set(ids[1::2]))) == (2, 1)


@pytest.mark.parametrize(
    ("order", "not_after_ms"),
    [
        (Order(charges=(Charge(feature="a", quantity=1), Charge(feature="b", quantity=1))), NOW_MS),
        (Order(charges=(Charge(feature="a", quantity=1, is_level=True),)), NOW_MS),
        *(
            (Order(charges=(Charge(feature="a", quantity=1),), mode=mode), NOW_MS)
            for mode in Mode
            if mode != "consume"
        ),
        (Order(charges=(Charge(feature="a", quantity=1),)), 0),
    ],
)
def test_what_is_out_of_the_ordinary_has_no_form(order: Order, not_after_ms: int) -> None:
    """It is planned."""
    caller = Caller(tenant_id="t", customer_id="c", keys=customer_keys("t", "c"))
    forms = Forms(pack, terms=TERMS)
    assert [forms.command(caller, order, not_after_ms=not_after_ms) for _ in range(3)] == [None] * 3
    form = forms.exact(caller, order, is_keyed=False)
    assert not form or filled(form, caller, key="", not_after_ms=not_after_ms) is None


def test_the_oldest_form_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """And comes back when it is asked for again."""
    monkeypatch.setattr("gateway.admission.act.form._CAPACITY", 2)
    forms, caller = Forms(pack, terms=TERMS), Caller(tenant_id="t", customer_id="c", keys=customer_keys("t", "c"))

    def has_form(feature: str) -> bool:
        order = Order(charges=(Charge(feature=feature, quantity=1),))
        return forms.command(caller, order, not_after_ms=NOW_MS) is not None

    assert [has_form(feature) for feature in "aaabbb"] == [False, True, True, False, True, True]
    assert [has_form(feature) for feature in "cba"] == [False, True, False]
    assert [has_form(feature) for feature in "a"] == [True]
