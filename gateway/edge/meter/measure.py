"""Measures: what is seen of a response's body while it passes, and what is passed on of it.

    plain    nothing but its size
    body     a JSON body, kept as far as its bound and read when it is whole
    stream   server-sent events: each with the tokens that it adds, so that none passes that nothing covers

Which one, the route and the response's own type say.

Tokens are estimated by their text until the model says how many they were: from a usage frame on its number counts,
and what comes behind it is estimated anew. One that comes before any text (`message_start`) is no count of it.

Worked example: `four`, `four`, a frame that says 5, `four` are 1, 2, 5 and 6 tokens.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from gateway.edge.lane.head import Malformed
from gateway.edge.meter.coding import INFLATED, Inflation
from gateway.edge.meter.event import EventReader, document_of, is_only_usage, spoken_bytes
from gateway.edge.meter.usage import Usage, frame_in, updated
from gateway.edge.proxy.pricing import found_at, tokens_in
from gateway.edge.proxy.rule import RouteRule
from gateway.edge.upstream.head import ResponseHead

EVENT_STREAM: Final = "text/event-stream"
_MOST_INFLATED_BYTES: Final = 16_777_216


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that pass as a whole, or not at all; the tokens that the response has with them, if they count.

    `adds`: some of these tokens are its own, so that it must be covered.
    """

    data: bytes
    tokens: int | None = None
    adds: bool = False


class Measure(Protocol):
    """Of one response."""

    usage: Usage | None

    def take(self, data: bytes) -> list[Piece]:
        """What may be passed on now.

        Raises: Malformed.
        """
        ...

    def end(self) -> list[Piece]:
        """The same, once all has come."""
        ...

    def found(self) -> dict[str, object]:
        """What stands at the places that the route names."""
        ...


class BodyMeasure:
    """A body that is read when it is whole; one above the bound passes unread."""

    def __init__(self, rule: RouteRule, *, coding: str) -> None:
        self._paths = [one.settle.json for one in rule.charges if one.settle is not None and one.settle.json]
        self._most = rule.max_read_bytes
        self._coding = coding
        self._kept: list[bytes] | None = []
        self._size = 0
        self._found: dict[str, object] = {}
        self.usage: Usage | None = None

    def take(self, data: bytes) -> list[Piece]:
        """As `Measure`."""
        self._size += len(data)
        if self._size > self._most:
            self._kept = None
        elif self._kept is not None:
            self._kept.append(data)
        return [Piece(data=data)]

    def end(self) -> list[Piece]:
        """As `Measure`."""
        if self._kept is None:
            return []
        try:
            document = msgspec.json.decode(self._read(b"".join(self._kept)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Malformed):
            return []
        frame = frame_in(document)
        self.usage = updated(None, frame) if frame is not None else None
        self._found = {path: found_at(document, path) for path in self._paths}
        return []

    def found(self) -> dict[str, object]:
        """As `Measure`."""
        return self._found

    def _read(self, body: bytes) -> bytes:
        """Raises: Malformed."""
        return b"".join(Inflation(most_bytes=self._most).take(body)) if self._coding else body


class StreamMeasure:
    """Events, which pass without the coding that they came in.

    `strips_usage`: the chunk that only says what was used is ours, and not the caller's.
    """

    def __init__(self, rule: RouteRule, *, strips_usage: bool, coding: str = "") -> None:
        self._paths = [one.settle.json for one in rule.charges if one.settle is not None and one.settle.json]
        self._reader = EventReader(max_bytes=rule.max_read_bytes)
        self._inflation = Inflation(most_bytes=_MOST_INFLATED_BYTES) if coding else None
        self._strips_usage = strips_usage
        self._spoken_bytes = self._known_bytes = self._known_tokens = 0
        self._found: dict[str, object] = {}
        self.usage: Usage | None = None

    def take(self, data: bytes) -> list[Piece]:
        """As `Measure`. Raises: Malformed."""
        parts = (data,) if self._inflation is None else self._inflation.take(data)
        return [self._piece(event) for part in parts for event in self._reader.take(part)]

    def end(self) -> list[Piece]:
        """As `Measure`. Raises: Malformed."""
        if self._inflation is not None:
            self._inflation.end()
        rest = self._reader.rest()
        return [self._piece(rest)] if rest else []

    def found(self) -> dict[str, object]:
        """As `Measure`."""
        return self._found

    def _piece(self, event: bytes) -> Piece:
        document = document_of(event)
        spoken, strips = 0, False
        if document is not None:
            spoken = spoken_bytes(document)
            self._spoken_bytes += spoken
            frame = frame_in(document)
            if frame is not None:
                self._know(updated(self.usage, frame))
            for path in self._paths:
                value = found_at(document, path)
                if value is not None:
                    self._found[path] = value
            strips = self._strips_usage and is_only_usage(document)
        tokens = self._known_tokens + tokens_in(self._spoken_bytes - self._known_bytes)
        return Piece(data=b"" if strips else event, tokens=tokens, adds=spoken > 0)

    def _know(self, usage: Usage) -> None:
        """What the model says that it was."""
        self.usage = usage
        if usage.output and self._spoken_bytes:
            self._known_tokens, self._known_bytes = usage.output, self._spoken_bytes


def coding_of(head: ResponseHead) -> str:
    """The coding of a body; nothing where it has none."""
    told = head.fields.get("content-encoding", "").strip().lower()
    return "" if told == "identity" else told


def measure_of(rule: RouteRule, head: ResponseHead, *, strips_usage: bool) -> Measure | None:
    """The measure of a response that is read; None where it is in a coding that nobody can read."""
    coding = coding_of(head)
    if coding and coding not in INFLATED:
        return None
    media_type = head.fields.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == EVENT_STREAM:
        return StreamMeasure(rule, strips_usage=strips_usage, coding=coding)
    return BodyMeasure(rule, coding=coding)
