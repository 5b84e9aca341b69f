"""Bytes in, whole requests out, however the bytes were cut.

Nothing is kept beyond its bound: a head that is not whole at `max_head_bytes` is refused, and so is a body by the
length that it announces, before it is read. Memory is bounded by the larger of the two and one read of the socket.

A connection carries the same head again and again. So the last one is remembered with what it means, and where the
next bytes begin with it word for word, they mean the same. Behind it stands the memory of the lane.
"""

from __future__ import annotations

from typing import Final

import msgspec

from billing_core.errors import TooLarge
from gateway.edge.lane.chunk import ChunkReader
from gateway.edge.lane.head import CHUNKED, Head, Malformed
from gateway.edge.lane.memory import HeadMemory

_END: Final = b"\r\n\r\n"
_EMPTY_LINE: Final = b"\r\n"
_LONGEST_KEPT: Final = 4_096


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much one request may be."""

    max_head_bytes: int
    max_body_bytes: int


class Reader:
    """Reads one connection: `feed`, then `take` until it has nothing."""

    __slots__ = ("_bounds", "_buffer", "_chunks", "_has_skipped", "_head", "_known", "_memory", "_seen")

    def __init__(self, memory: HeadMemory, bounds: Bounds) -> None:
        self._memory = memory
        self._bounds = bounds
        self._buffer = bytearray()
        self._seen = 0
        self._has_skipped = False
        self._known: Head | None = None
        self._head: Head | None = None
        self._chunks: ChunkReader | None = None

    @property
    def is_clean(self) -> bool:
        """Whether no part of a request has been read."""
        return self._head is None and not self._buffer

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._buffer += data

    def take_whole(self, data: bytes) -> tuple[Head, bytes] | None:
        """The one request that these bytes are, where nothing waits and its head is known; else nothing happens."""
        if self._buffer or self._head is not None:
            return None
        known = self._known
        if known is None or not data.startswith(known.raw):
            end = data.find(_END, 0, self._bounds.max_head_bytes)
            known = self._memory.known(data[: end + len(_END)]) if end >= 0 else None
            if known is None:
                return None
            self._known = known
        size = len(known.raw)
        return (known, data[size:]) if known.length != CHUNKED and len(data) == size + known.length else None

    def take(self) -> tuple[Head, bytes] | None:
        """The next request, body and all; None where it is not whole yet.

        One that is not the lane's comes as soon as its head is read, without its body, and is not taken off: what
        `rest` has begins with it.

        Raises: Malformed, TooLarge; after that the connection is good for nothing.
        """
        if self._head is None:
            self._head = self._next_head()
        head = self._head
        if head is None:
            return None
        if head.route is None:
            return head, b""
        body = self._next_body(head)
        if body is None:
            return None
        self._head = self._chunks = None
        return head, body

    def rest(self) -> bytes:
        """What was read and not taken."""
        head = self._head.raw if self._head is not None else b""
        return head + bytes(self._buffer)

    def _next_head(self) -> Head | None:
        buffer, known = self._buffer, self._known
        if len(buffer) < len(_EMPTY_LINE):
            return None
        if buffer.startswith(_EMPTY_LINE) and not self._has_skipped:
            del buffer[: len(_EMPTY_LINE)]  # one may stand before a request (RFC 9112, section 2.2)
            self._has_skipped = True
        if known is not None and buffer.startswith(known.raw):
            return self._taken(known)
        end = buffer.find(_END, max(0, self._seen - len(_END)), self._bounds.max_head_bytes)
        if end < 0:
            self._check_begun()
            return None
        raw = bytes(buffer[: end + len(_END)])
        head = self._memory.known(raw) or self._memory.read(raw)
        if head.route is not None and len(raw) <= _LONGEST_KEPT:
            self._known = head
        return self._taken(head)

    def _taken(self, head: Head) -> Head:
        del self._buffer[: len(head.raw)]
        self._seen, self._has_skipped = 0, False
        return head

    def _check_begun(self) -> None:
        """Raises: Malformed where no more bytes could make a head of what is there; the first fault counts."""
        buffer, most = self._buffer, self._bounds.max_head_bytes
        if buffer.count(b"\n", self._seen, most) != buffer.count(b"\r\n", max(0, self._seen - 1), most):
            raise Malformed("this is no HTTP/1.1 request")
        if len(buffer) >= most:
            raise Malformed(f"the head is larger than {most} bytes", status=431)
        self._seen = len(buffer)

    def _next_body(self, head: Head) -> bytes | None:
        most = self._bounds.max_body_bytes
        if head.length == CHUNKED:
            if self._chunks is None:
                self._chunks = ChunkReader(max_bytes=most)
            return self._chunks.take(self._buffer)
        if head.length > most:
            raise TooLarge(f"the body is larger than {most} bytes", field="body")
        if len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        return body
