"""A body in two parts says what it says in one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.contract.usage_event import EventBody, encode_body, parted_body, rest_of_body

DECISIONS = st.text("0123456789abcdef", min_size=32, max_size=32).map(lambda digits: f"dec_{digits}")
BODIES = st.builds(
    EventBody,
    event_id=DECISIONS | st.text(max_size=300) | st.text(min_size=36, max_size=36),
    tenant_id=st.text(max_size=8),
    customer_id=st.text(max_size=8),
    features=st.lists(st.sampled_from(("input", "output")), max_size=3).map(tuple),
    properties=st.dictionaries(st.sampled_from(("event_id", "a")), st.text(max_size=4)),
    path=st.text(max_size=8),
)


@given(BODIES)
def test_id_and_rest_are_the_body(body: EventBody) -> None:
    """Whatever the id looks like; one that has the length of a decision's may have other bytes than letters."""
    event_id, rest = parted_body(encode_body(body))
    assert event_id.decode() == body.event_id
    assert rest_of_body(rest) == msgspec.structs.replace(body, event_id="")


@given(BODIES, DECISIONS, DECISIONS)
def test_requests_that_differ_in_their_id_alone_share_the_rest(body: EventBody, one: str, other: str) -> None:
    """So that it is decoded once."""
    rests = {parted_body(encode_body(msgspec.structs.replace(body, event_id=name)))[1] for name in (one, other)}
    assert len(rests) == 1


def test_a_body_that_begins_with_something_else_is_read_too() -> None:
    """Tomorrow's gateway may write it so, with more fields."""
    raw = msgspec.msgpack.encode({"tenant_id": "acme", "later": 1, "event_id": "e", "customer_id": "c"})
    event_id, rest = parted_body(raw)
    assert event_id == b"e"
    assert rest_of_body(rest) == EventBody(event_id="", tenant_id="acme", customer_id="c")


def test_two_ids_in_one_body_are_refused() -> None:
    """Neither can be told to be the right one."""
    raw = encode_body(EventBody(event_id="dec_" + "0" * 32, tenant_id="acme", customer_id="c"))
    twice = bytes([raw[0] + 1]) + raw[1:] + msgspec.msgpack.encode("event_id") + msgspec.msgpack.encode("other")
    _, rest = parted_body(twice)
    with pytest.raises(ValueError, match="one event id"):
        rest_of_body(rest)
