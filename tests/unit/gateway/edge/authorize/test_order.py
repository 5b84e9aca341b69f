"""What a proxy asks: the operator's words count, and a client's never."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import InvalidInput
from gateway.admission.order import Charge, Mode, OnExpiry, Order
from gateway.edge.authorize.order import (
    order_in_path,
    order_in_query,
    order_of,
    request_key,
    with_request,
    words_in_path,
)

CALLS = (Charge(feature="calls", quantity=2),)
HOLD = Order(charges=CALLS, mode=Mode.HOLD, ttl_ms=60_000, on_expiry=OnExpiry.CHARGE)


@pytest.mark.parametrize(
    ("query", "path", "order"),
    [
        ("feature=calls&quantity=2", "calls/2", Order(charges=CALLS)),
        ("mode=consume&feature=calls&quantity=2", "calls/2;mode=consume", Order(charges=CALLS)),
        ("shadow=1&feature=calls&quantity=2", "calls/2;shadow=1", Order(charges=CALLS, shadow=True)),
        ("shadow=0&feature=calls&quantity=2", "calls/2;shadow=0", Order(charges=CALLS)),
        ("mode=peek&shadow=1&feature=calls&quantity=2", "calls/2;mode=peek", Order(charges=CALLS, mode=Mode.PEEK)),
        (
            "mode=hold&ttl_ms=60000&on_expiry=charge&feature=calls&quantity=2",
            "calls/2;mode=hold;ttl_ms=60000;on_expiry=charge",
            HOLD,
        ),
        (
            "ttl_ms=60000&on_expiry=charge&&mode=hold&quantity=2&feature=calls",
            "calls/2;on_expiry=charge;mode=hold;ttl_ms=60000",
            HOLD,
        ),
    ],
)
def test_a_query_and_a_path_say_the_same(query: str, path: str, order: Order) -> None:
    """Options stand in front of the charge in one, and behind it in the other."""
    assert order_in_query(query) == order
    assert order_in_path(path) == order


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ("mode=record", "mode"),
        ("mode=", "mode"),
        ("mode=Hold", "mode"),
        ("mode=hold", "ttl_ms"),
        ("mode=hold;ttl_ms=0", "ttl_ms"),
        ("mode=hold;ttl_ms=604800001", "ttl_ms"),
        ("mode=hold;ttl_ms=1e3", "ttl_ms"),
        ("mode=hold;ttl_ms=" + "9" * 5_000, "ttl_ms"),
        ("mode=hold;ttl_ms=5;on_expiry=keep", "on_expiry"),
        ("ttl_ms=5", "ttl_ms"),
        ("mode=peek;on_expiry=charge", "ttl_ms"),
        ("shadow=yes", "shadow"),
        ("mode=hold;ttl_ms=5;mode=peek", "mode"),
        ("mod=hold", "mod"),
        ("%6dode=hold", "%6dode"),
        ("Mode=hold", "Mode"),
    ],
)
def test_options_that_are_wrong_are_refused_wherever_they_stand(words: str, field: str) -> None:
    """Also one that is none, or that is told twice."""
    for read, text in (
        (order_in_query, words.replace(";", "&") + "&feature=calls&quantity=2"),
        (order_in_path, f"calls/2;{words}"),
    ):
        with pytest.raises(InvalidInput) as caught:
            read(text)
        assert caught.value.field == field


@pytest.mark.parametrize("words", ["calls/2;", "calls/2;;shadow=1", "calls/2;=1", "/2", "calls", "calls/", "", "/"])
def test_a_path_that_says_too_little_or_too_much_is_refused(words: str) -> None:
    """There is no option without a name, and no charge without both of its words."""
    with pytest.raises(InvalidInput):
        order_in_path(words)


CLIENT = st.lists(
    st.one_of(
        st.sampled_from(
            ["feature=export", "quantity=0", "mode=peek", "mode=hold", "ttl_ms=1", "shadow=1", "free=2xx", "&", "="]
        ),
        st.text(st.characters(max_codepoint=0x2FF), max_size=12),
        st.sampled_from(
            ["%66eature=x", "feature%3Dexport", "quantity=%30", ";mode=peek", "\udcff=%ff%00", "x" * 70_000]
        ),
    ),
    max_size=8,
).map("&".join)


@given(client=CLIENT)
def test_what_a_client_appends_to_a_query_changes_nothing(client: str) -> None:
    """Whatever bytes it is made of, and however long."""
    assert order_in_query(f"shadow=1&feature=calls&quantity=2&{client}") == Order(charges=CALLS, shadow=True)


@given(client=st.one_of(CLIENT, st.text("./%2F;=&?#", max_size=40)))
def test_what_a_client_asks_for_behind_the_path_changes_nothing(client: str) -> None:
    """Its path begins with a slash, which ends the operator's words; dots, slashes and escapes are none of ours."""
    assert words_in_path(f"calls/2;shadow=1/{client}") == "calls/2;shadow=1"
    assert order_in_path("calls/2;shadow=1") == Order(charges=CALLS, shadow=True)


@given(text=st.one_of(CLIENT, st.text(max_size=60)))
def test_any_text_is_read_or_refused(text: str) -> None:
    """And nothing else happens."""
    for read in (order_in_query, lambda one: order_in_path(words_in_path(one))):
        try:
            order = read(text)
        except InvalidInput:
            continue
        assert len(order.charges) == 1
        assert 0 <= order.charges[0].quantity < 2**53


def test_what_stands_beside_a_route_may_stand_among_others() -> None:
    """The words of Envoy's extensions are the operator's, all of them."""
    assert order_of({"feature": "calls", "quantity": "2", "team": "ml", "shadow": ""}) == Order(charges=CALLS)


def test_a_request_has_a_key_of_its_own_for_each_way_to_ask() -> None:
    """A hold and a debit of one request are two things; a peek is kept for nobody."""
    plain, peek = Order(charges=CALLS), Order(charges=CALLS, mode=Mode.PEEK)
    keys = [with_request(order, "r1", shadow=False).idempotency_key for order in (plain, HOLD, peek)]
    assert keys == [request_key(CALLS, "r1"), request_key(CALLS, "r1", mode=Mode.HOLD), ""]
    assert len(set(keys)) == 3
    assert with_request(plain, "", shadow=False) is plain
    assert with_request(plain, "", shadow=True).shadow
    assert not with_request(peek, "", shadow=True).shadow
