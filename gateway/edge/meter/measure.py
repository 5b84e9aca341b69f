"""Measures: what is seen of a response's body while it passes, and what is passed on of it.

    plain    nothing but its size
    body     a JSON body, kept as far as its bound and read when it is whole
    stream   server-sent events: each with the tokens that it adds, so that none passes that nothing covers

Which one, the route and the response's own type say.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from gateway.edge.meter.event import EventReader, document_of, is_only_usage, spoken_bytes
from gateway.edge.meter.usage import Usage, frame_in, updated
from gateway.edge.proxy.pricing import found_at, tokens_in
from gateway.edge.proxy.rule import RouteRule
from gateway.edge.upstream.head import ResponseHead

EVENT_STREAM: Final = "text/event-stream"


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that pass as a whole, or not at all; the tokens that the response has with them, if they count."""

    data: bytes
    tokens: int | None


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

    def __init__(self, rule: RouteRule) -> None:
        self._paths = [one.settle.json for one in rule.charges if one.settle is not None and one.settle.json]
        self._most = rule.max_read_bytes
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
        return [Piece(data=data, tokens=None)]

    def end(self) -> list[Piece]:
        """As `Measure`."""
        if self._kept is None:
            return []
        try:
            document = msgspec.json.decode(b"".join(self._kept))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return []
        frame = frame_in(document)
        self.usage = updated(None, frame) if frame is not None else None
        self._found = {path: found_at(document, path) for path in self._paths}
        return []

    def found(self) -> dict[str, object]:
        """As `Measure`."""
        return self._found


class StreamMeasure:
    """Events; `strips_usage`: the chunk that only says what was used is ours, and not the caller's."""

    def __init__(self, rule: RouteRule, *, strips_usage: bool) -> None:
        self._paths = [one.settle.json for one in rule.charges if one.settle is not None and one.settle.json]
        self._reader = EventReader(max_bytes=rule.max_read_bytes)
        self._strips_usage = strips_usage
        self._spoken_bytes = 0
        self._found: dict[str, object] = {}
        self.usage: Usage | None = None

    def take(self, data: bytes) -> list[Piece]:
        """As `Measure`. Raises: Malformed."""
        return [piece for event in self._reader.take(data) if (piece := self._piece(event)) is not None]

    def end(self) -> list[Piece]:
        """As `Measure`."""
        rest = self._reader.rest()
        piece = self._piece(rest) if rest else None
        return [piece] if piece is not None else []

    def found(self) -> dict[str, object]:
        """As `Measure`."""
        return self._found

    def _piece(self, event: bytes) -> Piece | None:
        document = document_of(event)
        if document is not None:
            frame = frame_in(document)
            if frame is not None:
                self.usage = updated(self.usage, frame)
            for path in self._paths:
                value = found_at(document, path)
                if value is not None:
                    self._found[path] = value
            self._spoken_bytes += spoken_bytes(document)
        if self._strips_usage and is_only_usage(document):
            return None
        return Piece(data=event, tokens=tokens_in(self._spoken_bytes))


def measure_of(rule: RouteRule, head: ResponseHead, *, strips_usage: bool) -> Measure | None:
    """The measure of a response; None where its size is all that matters."""
    settled = [charge.settle for charge in rule.charges if charge.settle is not None]
    if not strips_usage and not any(one.json is not None or one.usage is not None for one in settled):
        return None
    if head.fields.get("content-encoding", "identity").lower() != "identity":
        return None
    media_type = head.fields.get("content-type", "").partition(";")[0].strip().lower()
    return StreamMeasure(rule, strips_usage=strips_usage) if media_type == EVENT_STREAM else BodyMeasure(rule)
