"""Bodies that are the same but for their idempotency key mean the same but for it."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from billing_core.contract.document import decode_strictly
from billing_core.errors import Failure
from gateway.edge.route.check import split_key
from gateway.edge.wire import CheckRequest

DECODER = msgspec.json.Decoder(CheckRequest)
FIELDS = (
    '"idempotency_key":"{}"', '"idempotency_key": "{}"', '"idempotency_key" :"{}"', '"idempotency_key":{}',
    '"feature":"calls"', '"feature":"idempotency_key"', '"key":"{}"', '"key":"\\"idempotency_key\\":\\"{}\\""',
    '"quantity":1', '"customer":"acme"', '"charges":[{"feature":"a","idempotency_key":"{}"}]', '"idempotency_key"',
    '"idempotency\\u005fkey":"{}"', '"deadline_ms":5', '"x":"idempotency_key":"{}"',
)  # fmt: skip
KEYS = st.one_of(
    st.text("aZ09_.:-", max_size=4), st.sampled_from(["", "a b", 'a","quantity":9,"x":"', "\\u0061", "a" * 256])
)


def meaning(body: bytes) -> Any:
    """What is asked, but for the key, and that key; None where it is refused."""
    try:
        asked = decode_strictly(body, DECODER)
    except Failure:
        return None
    return msgspec.structs.replace(asked, idempotency_key=None), asked.idempotency_key or ""


@settings(deadline=None, max_examples=500)
@given(
    fields=st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4),
    keys=st.tuples(KEYS, KEYS),
    is_bare=st.booleans(),
)
@example(fields=['"key":"a"', '"idempotency_key":"{}"'], keys=("k1", "k2"), is_bare=False)
@example(fields=['"key":"{}"', '"idempotency_key":"{}"'], keys=("k1", "k1"), is_bare=False)
def test_the_same_words_around_another_key_mean_the_same(
    fields: list[str], keys: tuple[str, str], is_bare: bool
) -> None:
    """And the key that was split off is the one that is read."""
    text = ",".join(fields) if is_bare else "{" + ",".join(fields) + "}"
    one, other = (text.replace("{}", key).encode() for key in keys)
    (words, key), (other_words, other_key) = split_key(one), split_key(other)
    if words != other_words or meaning(one) is None:
        return
    if isinstance(words, tuple):
        assert meaning(one)[1] == key
    assert meaning(other) == (meaning(one)[0], other_key if isinstance(words, tuple) else meaning(one)[1])


def test_a_key_is_split_off_where_it_is_plain() -> None:
    """Else the words are the whole body."""
    body = b'{"key":"a","idempotency_key":"%b"}'
    assert split_key(body % b"k-1") == ((b'{"key":"a","idempotency_key":"', b'"}'), "k-1")
    for odd in (body % b"a b", body % b"", body % b"\\u0061", b'{"key":"a"}', body.replace(b"a", b"\\n") % b"k"):
        assert split_key(odd) == (odd, "")
