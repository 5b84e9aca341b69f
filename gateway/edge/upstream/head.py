"""The head of a response, read strictly.

llhttp reads the words; what it lets pass and a client behind us could read otherwise than we do (a transfer coding
that is not `chunked` alone, one in HTTP/1.0) is refused here, and the client gets a 502 that says so.

Source: RFC 9112, sections 4 and 6.3; RFC 9110, section 15 (which responses have no body).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import httptools
import msgspec

from gateway.edge.lane.head import CHUNKED, MOST_FIELDS, Fields, Malformed, Words, tokens_of
from gateway.edge.upstream.flow import ChunkedFlow, EndlessFlow, Flow, SizedFlow

ENDLESS: Final = -2
"""The length of a body that lasts until the connection ends."""

SWITCHING: Final = 101
_FINAL: Final = 200
NO_BODY: Final = frozenset({204, 304})
"""Statuses of responses that end with their head."""


class ResponseHead(msgspec.Struct, frozen=True, kw_only=True):
    """A head that was read. `lines` are its fields word for word, beside their names in lower case.

    `length` of the body where the request was no HEAD; `is_last`: the server closes after this one.
    """

    raw: bytes
    status: int
    start: bytes
    fields: Mapping[str, str]
    lines: tuple[tuple[str, bytes], ...]
    length: int
    is_last: bool

    @property
    def is_interim(self) -> bool:
        """Whether another head follows."""
        return self.status < _FINAL and self.status != SWITCHING

    def flow(self, *, is_bodiless: bool) -> Flow:
        """How its body is taken off what comes; `is_bodiless`: the request was a HEAD."""
        if is_bodiless or self.status in NO_BODY:
            return SizedFlow(0)
        if self.length == CHUNKED:
            return ChunkedFlow()
        return EndlessFlow() if self.length == ENDLESS else SizedFlow(self.length)


def read_response(raw: bytes) -> ResponseHead:
    """A whole head, the empty line at its end included.

    Raises: Malformed.
    """
    words = Words()
    parser = httptools.HttpResponseParser(words)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise Malformed("the upstream's answer is no HTTP/1.1", status=502) from None
    start, *rows = raw[:-4].split(b"\r\n")
    version, status = parser.get_http_version(), parser.get_status_code()
    if version not in ("1.1", "1.0") or len(words.fields) > MOST_FIELDS or len(rows) != len(words.fields):
        raise Malformed("the upstream's answer is no HTTP/1.1", status=502)
    fields = Fields(words.fields)
    told = tokens_of(words.fields)
    return ResponseHead(
        raw=raw,
        status=status,
        start=b"HTTP/1.1" + start[len(b"HTTP/1.1") :],
        fields=fields,
        lines=tuple([(name, row) for (name, _), row in zip(words.fields, rows, strict=True)]),
        length=_length(words.fields, version=version),
        is_last="close" in told or (version == "1.0" and "keep-alive" not in told),
    )


def _length(pairs: Sequence[tuple[str, str]], *, version: str) -> int:
    codings = [value for name, value in pairs if name == "transfer-encoding"]
    lengths = [value for name, value in pairs if name == "content-length"]
    if codings:
        if len(codings) > 1 or codings[0].lower() != "chunked" or lengths or version == "1.0":
            raise Malformed("the upstream's answer has a length that can be read in two ways", status=502)
        return CHUNKED
    if len(lengths) > 1 or not all(value.isascii() and value.isdigit() for value in lengths):
        raise Malformed("the upstream's answer has a length that can be read in two ways", status=502)
    return int(lengths[0]) if lengths else ENDLESS
