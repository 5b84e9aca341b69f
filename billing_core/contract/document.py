"""JSON documents from outside, read strictly.

A document in which one object names a field twice means two things at once: one reader takes the first, another
the last, and a request that one of them let pass is another request for the other. So such a document is refused.
The decoder itself does not see it (it takes the last), hence a second look: a scan for names that is right in
nearly all cases, and a full parse where a name comes more than once or is written with escapes.

Source: RFC 8259, section 4 ("names within an object SHOULD be unique"); RFC 7493 (I-JSON), section 2.3.
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec

from billing_core.contract.problem import decode_json
from billing_core.errors import InvalidInput

Body = TypeVar("Body")

_NAME = re.compile(rb'"([^"\\]*)"\s*:')


def decode_strictly(raw: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """A typed body in which no object names a field twice.

    Raises: InvalidInput naming field and rule; UnknownField for a field that nothing reads.
    """
    body = decode_json(raw, decoder)
    names = _NAME.findall(raw)
    if b"\\" in raw or len(set(names)) != len(names):
        _refuse_twins(raw)
    return body


def _refuse_twins(raw: bytes) -> None:
    try:
        json.loads(raw, object_pairs_hook=_unique, parse_int=_unread, parse_float=_unread)
    except RecursionError as error:
        raise InvalidInput(f"not a JSON document: {error}", field="body") from None


def _unique(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidInput("comes twice in one object", field=name)
        seen.add(name)


def _unread(_: str) -> None:
    """Numbers are of no interest here."""
