"""A body on its way: what of the bytes that come is payload, and where it ends.

Nothing is kept but the part of a line that is not whole. A body in chunks loses its chunks here and gets new ones
from whoever sends it on, so extensions are dropped and nobody behind us sees how it was cut before. Grammar is read
strictly: a size is one to eight hexadecimal digits, every line ends in CR LF and has a bound.

Worked example: `4;x=1 CRLF abcd CRLF 0 CRLF Digest: d CRLF CRLF` is `abcd` with the trailer `Digest: d`.

Source: RFC 9112, sections 6.3, 7.1 and 7.1.2.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from gateway.edge.lane.head import Malformed

_LINE_END: Final = b"\r\n"
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[\t ]*;[\t\x20-\x7e]*)?")
_LONGEST_LINE: Final = 1_024
_MOST_TRAILER_BYTES: Final = 8_192
_AT_SIZE, _IN_CHUNK, _BEHIND_CHUNK, _AT_TRAILER = range(4)


class Flow(Protocol):
    """One body. `trailers` are the lines behind it, as they came."""

    is_done: bool
    trailers: bytes

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """The payload in these bytes, and what stands behind the body; more than nothing only where it is done.

        Raises: Malformed.
        """
        ...


class SizedFlow:
    """A body that said its length."""

    __slots__ = ("_left", "is_done", "trailers")

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_done = not length
        self.trailers = b""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """As `Flow`."""
        size = len(data)
        if size <= self._left:
            self._left -= size
            self.is_done = not self._left
            return data, b""
        payload, rest = data[: self._left], data[self._left :]
        self._left, self.is_done = 0, True
        return payload, rest


class EndlessFlow:
    """A body that lasts until the connection ends."""

    __slots__ = ("is_done", "trailers")

    def __init__(self) -> None:
        self.is_done = False
        self.trailers = b""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """As `Flow`."""
        return data, b""


class ChunkedFlow:
    """A body in chunks."""

    __slots__ = ("_buffer", "_left", "_state", "is_done", "trailers")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._state = _AT_SIZE
        self.is_done = False
        self.trailers = b""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """As `Flow`."""
        data = self._buffer + data if self._buffer else data
        payload: list[bytes] = []
        at = 0
        while not self.is_done:
            if self._state == _IN_CHUNK:
                piece = data[at : at + self._left]
                payload.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._state = _BEHIND_CHUNK
            then = self._line(data, at)
            if then == at:
                break
            at = then
        self._buffer = b"" if self.is_done else data[at:]
        return b"".join(payload), data[at:] if self.is_done else b""

    def _line(self, data: bytes, at: int) -> int:
        """Read what stands between chunks; where it ends, or where it began while it is not whole."""
        if self._state == _AT_TRAILER:
            return self._trailer(data, at)
        if self._state == _BEHIND_CHUNK:
            begun = data[at : at + len(_LINE_END)]
            if not _LINE_END.startswith(begun):
                raise Malformed("the chunks of the body cannot be read")
            if begun != _LINE_END:
                return at
            self._state = _AT_SIZE
            return at + len(_LINE_END)
        end = data.find(_LINE_END, at, at + _LONGEST_LINE)
        if end < 0:
            begun = data[at : at + _LONGEST_LINE]
            if len(begun) == _LONGEST_LINE or b"\n" in begun or b"\r" in begun[:-1]:
                raise Malformed("the chunks of the body cannot be read")
            return at
        found = _SIZE.fullmatch(data, at, end)
        if found is None:
            raise Malformed("the chunks of the body cannot be read")
        self._left = int(found[1], 16)
        self._state = _IN_CHUNK if self._left else _AT_TRAILER
        return end + len(_LINE_END)

    def _trailer(self, data: bytes, at: int) -> int:
        if data.startswith(_LINE_END, at):
            self.is_done = True
            return at + len(_LINE_END)
        end = data.find(_LINE_END * 2, at, at + _MOST_TRAILER_BYTES)
        begun = data[at : end if end >= 0 else at + _MOST_TRAILER_BYTES]
        if len(begun) == _MOST_TRAILER_BYTES or begun.count(b"\n") != begun.count(_LINE_END):
            raise Malformed("the trailer of the body cannot be read")
        if end < 0:
            return at
        self.trailers = data[at : end + len(_LINE_END)]
        self.is_done = True
        return end + 2 * len(_LINE_END)


def chunk_of(payload: bytes) -> bytes:
    """One chunk; nothing where there is no payload, because an empty chunk is the end."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def last_chunk(trailers: bytes) -> bytes:
    """The end of a body in chunks."""
    return b"0\r\n%b\r\n" % trailers
