"""Server-sent events: cut out of a stream whole and word for word, and what each says.

A line ends in CR LF, LF or CR, and one stream may mix them. A CR that came last waits for its LF, unless another CR
stands before it: where lines end in CR alone, none follows, and if one does it is an empty line that says nothing.
Remarks between events pass as they come, because they are what keeps a slow stream alive.

Worked example: `data: {"a":1} LF LF data: [DO` is one event, and a rest that waits for `NE] LF LF`.

Source: HTML, section 9.2 (server-sent events).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, cast

import msgspec

from gateway.edge.lane.head import Malformed
from gateway.edge.meter.usage import frame_in
from gateway.edge.proxy.pricing import text_bytes

_LINE: Final = re.compile(rb"\r\n|\n|\r")
_END: Final = re.compile(rb"(?:\r\n|\n)(?:\r\n|\n|\r(?=[^\n]))|\r(?:\r\n|\r(?!\n))")
_REMARKS: Final = re.compile(rb"(?::[^\r\n]*(?:\r\n|\n|\r(?=[^\n])))+")
_LONGEST_END: Final = 4
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SPOKEN: Final = ("content", "reasoning_content", "refusal", "tool_calls", "text", "partial_json", "thinking")


class EventReader:
    """Takes events off a stream; an event that is larger than the bound breaks it."""

    __slots__ = ("_buffer", "_most", "_seen")

    def __init__(self, *, max_bytes: int) -> None:
        self._buffer = b""
        self._seen = 0
        self._most = max_bytes

    def take(self, data: bytes) -> list[bytes]:
        """The events that are whole by now, empty line and all.

        Raises: Malformed.
        """
        data = self._buffer + data if self._buffer else data
        events: list[bytes] = []
        begin, look = 0, max(0, self._seen - _LONGEST_END)
        while (found := _END.search(data, look)) is not None:
            events.append(data[begin : found.end()])
            begin = look = found.end()
        remarks = _REMARKS.match(data, begin)
        if remarks is not None:
            events.append(remarks[0])
            begin = remarks.end()
        self._buffer = data[begin:]
        self._seen = len(self._buffer)
        if self._seen > self._most:
            raise Malformed("an event of the upstream is larger than can be read", status=502)
        return events

    def rest(self) -> bytes:
        """What came last and is no whole event."""
        rest, self._buffer = self._buffer, b""
        return rest


def data_of(event: bytes) -> bytes:
    """What an event carries."""
    lines = [line for line in _LINE.split(event.removeprefix(_BYTE_ORDER_MARK)) if line.startswith(b"data")]
    return b"\n".join([line[5:].removeprefix(b" ") for line in lines if line[4:5] in (b":", b"")])


def document_of(event: bytes) -> object:
    """What an event carries, where that is JSON; else None."""
    data = data_of(event).lstrip()
    if not data.startswith(b"{"):
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def spoken_bytes(document: object) -> int:
    """How much text an event adds to the answer, in any of the dialects."""
    if not isinstance(document, dict):
        return 0
    told = cast("dict[str, Any]", document)
    choices = told.get("choices")
    if isinstance(choices, list):
        return sum(_choice_bytes(choice) for choice in cast("list[object]", choices))
    delta = told.get("delta")
    if isinstance(delta, str):
        return text_bytes(delta)
    return _named_bytes(cast("dict[str, Any]", delta), _SPOKEN) if isinstance(delta, dict) else 0


def is_only_usage(document: object) -> bool:
    """Whether it is the chunk that says what was used and nothing else; it comes only to those who ask for it."""
    if not isinstance(document, dict):
        return False
    told = cast("dict[str, Any]", document)
    return told.get("choices") == [] and frame_in(told) is not None


def _choice_bytes(choice: object) -> int:
    if not isinstance(choice, dict):
        return 0
    told = cast("dict[str, Any]", choice)
    delta = told.get("delta")
    return _named_bytes(cast("dict[str, Any]", delta) if isinstance(delta, dict) else told, _SPOKEN)


def _named_bytes(told: dict[str, Any], names: Iterable[str]) -> int:
    return sum(_text_or_calls(told.get(name)) for name in names)


def _text_or_calls(value: object) -> int:
    if isinstance(value, list):  # calls of tools: only what they are called with is generated text
        calls = [
            cast("dict[str, Any]", call).get("function")
            for call in cast("list[object]", value)
            if isinstance(call, dict)
        ]
        return sum(text_bytes(call) for call in calls)
    return text_bytes(value)
