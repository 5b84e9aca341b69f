"""Answers as bytes.

A status line and its usual fields are put together once a second, because of the date in them, and not for each
answer.

Source: RFC 9110, section 6.6.1 (Date); RFC 9112, section 9.6 (`Connection: close`).
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import format_datetime
from http import HTTPStatus
from typing import Final

from billing_core.errors import InvariantBroken
from billing_core.values.clock import Clock
from gateway.edge.message import Answer, Prepared

_NO_CONTENT: Final = 204
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class Scribe:
    """Writes answers; `fresh_for_s` is how long a date is good for."""

    def __init__(self, clock: Clock, now_s: Callable[[], float], *, fresh_for_s: float = 1.0) -> None:
        self._clock = clock
        self._now_s = now_s
        self._fresh_for_s = fresh_for_s
        self._fresh_until_s = 0.0
        self._starts: dict[tuple[int, str, bool], bytes] = {}

    def write(self, answer: Answer | Prepared, *, is_last: bool) -> bytes:
        """The answer as it goes over the wire. Raises: InvariantBroken where a field would be two."""
        if self._now_s() >= self._fresh_until_s:
            self._starts.clear()
            self._fresh_until_s = self._now_s() + self._fresh_for_s
        body = answer.body
        kind = (answer.status, answer.media_type if body else "", is_last)
        start = self._starts.get(kind) or self._start(kind)
        lines = answer.lines if isinstance(answer, Prepared) else lines_of(answer.headers)
        if answer.status == _NO_CONTENT:
            return b"%b%b\r\n" % (start, lines)  # it has no body, and says no length (RFC 9110, section 8.6)
        return b"%b%d\r\n%b\r\n%b" % (start, len(body), lines, body)

    def _start(self, kind: tuple[int, str, bool]) -> bytes:
        status, media_type, is_last = kind
        lines = [
            f"HTTP/1.1 {status} {_PHRASES.get(status, '')}",
            f"Date: {format_datetime(self._clock(), usegmt=True)}",
        ]
        lines += [f"Content-Type: {media_type}"] if media_type else []
        lines += ["Connection: close"] if is_last else []
        lines += [""] if status == _NO_CONTENT else ["Content-Length: "]
        start = self._starts[kind] = "\r\n".join(lines).encode()
        return start


def lines_of(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Header fields as they go over the wire. Raises: InvariantBroken where one would be two."""
    if not headers:
        return b""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise InvariantBroken("a header field has a line end in it")
    return text.encode("utf-8", "surrogateescape")
