"""JSON in which no object names a field twice."""

from __future__ import annotations

import msgspec
import pytest

from billing_core.contract.document import decode_strictly
from billing_core.errors import InvalidInput


class Inner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    a: int = 0


class Outer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    a: int = 0
    text: str = ""
    inner: tuple[Inner, ...] = ()


DECODER = msgspec.json.Decoder(Outer)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1}',
        b'{"inner": [{"a": 1}, {"a": 2}], "a": 3}',
        b'{"text": "\\"a\\":1", "a": 1}',
        b'{"text": "a:\\u003a", "a": 1}',
        b'{"text": ":a", "a": 1}',
    ],
)
def test_the_same_name_in_different_objects_or_texts_is_no_twin(raw: bytes) -> None:
    """Only one object's own names count."""
    decode_strictly(raw, DECODER)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "text": "", "a" : 2}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"inner": [{"a": 1, "a": 2}]}',
        b'{"inner": [], "inner": [{"a": 1}]}',
    ],
)
def test_a_name_that_comes_twice_is_refused_however_it_is_written(raw: bytes) -> None:
    """Or two readers would read two requests."""
    with pytest.raises(InvalidInput, match="twice"):
        decode_strictly(raw, DECODER)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"a": "1"}', b"\xff", b'{"b": 1}', b'{"a":' + b"[" * 9_999])
def test_what_does_not_decode_is_an_invalid_input(raw: bytes) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(InvalidInput):
        decode_strictly(raw, DECODER)
