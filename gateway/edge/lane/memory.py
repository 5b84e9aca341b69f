"""Heads that were read before, known again by their words.

Callers send the same head again and again, and a proxy asks for many callers over few connections; reading is a
pure function of the bytes and need not be repeated. What differs each time behind a proxy is the request's id. So a
head is remembered by the words around that id, and known again where the id is of letters, digits and hyphens: for
such a value every reader says the same of everything else in the head.

Worked example: `GET /v1/authorize/nginx?... CR LF X-Request-Id: 4bf92f35 CR LF Host: a CR LF CR LF` is known again
with `00f067aa` instead.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.edge.lane.head import Head, RouteTable, read_head

_ID: Final = "x-request-id"
_ID_LINE: Final = b"\r\nX-Request-Id: "
_PLAIN: Final = re.compile(rb"[0-9A-Za-z-]{1,64}(?=\r\n)")
_CAPACITY: Final = 4_096
_LONGEST: Final = 2_048

_Words = bytes | tuple[bytes, bytes]
"""A whole head, or what stands before and behind its id."""


class HeadMemory:
    """The heads of one lane; the oldest give way."""

    def __init__(self, table: RouteTable, *, capacity: int = _CAPACITY) -> None:
        self._table = table
        self._capacity = capacity
        self._heads: dict[_Words, Head] = {}

    def known(self, raw: bytes) -> Head | None:
        """What a whole head means, where its like was read before."""
        found = _id_in(raw)
        if found is None:
            return self._heads.get(raw)
        start, end = found
        head = self._heads.get((raw[:start], raw[end:]))
        if head is None:
            return None
        return Head(
            raw=raw,
            route=head.route,
            subject=head.subject,
            query=head.query,
            fields=head.fields.beside(_ID, raw[start:end].decode()),
            length=head.length,
            is_last=head.is_last,
        )

    def read(self, raw: bytes) -> Head:
        """What a whole head means. Raises: Malformed."""
        head = read_head(raw, self._table)
        if head.route is not None and len(raw) <= _LONGEST:
            self._keep(head)
        return head

    def _keep(self, head: Head) -> None:
        raw, found = head.raw, _id_in(head.raw)
        words: _Words = raw
        if found is not None:
            if raw.lower().count(_ID_LINE.lower().rstrip()) > 1:
                return  # of two the first counts, and it may be written otherwise
            start, end = found
            words = raw[:start], raw[end:]
        if len(self._heads) >= self._capacity:
            del self._heads[next(iter(self._heads))]
        self._heads[words] = head


def _id_in(raw: bytes) -> tuple[int, int] | None:
    """Where a plain id stands."""
    start = raw.find(_ID_LINE)
    if start < 0:
        return None
    found = _PLAIN.match(raw, start + len(_ID_LINE))
    return found.span() if found is not None else None
