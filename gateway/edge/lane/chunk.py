"""A body in chunks, read strictly.

A size is one to eight hexadecimal digits and nothing else, every line ends in CR LF, and the last chunk is the end.
Extensions and trailers mean nothing to anybody here, and half of all smuggling is made of them: they are refused.

Worked example: `4 CRLF abcd CRLF 2 CRLF ef CRLF 0 CRLF CRLF` is `abcdef`.

Source: RFC 9112, section 7.1.
"""

from __future__ import annotations

import re
from typing import Final

from billing_core.errors import TooLarge
from gateway.edge.lane.head import Malformed

_LINE_END: Final = b"\r\n"
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_BEGUN_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{0,8}\r?")
_LONGEST_SIZE: Final = 10


class ChunkReader:
    """Takes the chunks of one body off the front of a buffer; what is not whole yet stays there."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._body = bytearray()
        self._left: int | None = None
        self._is_last = False

    def take(self, buffer: bytearray) -> bytes | None:
        """The body, once all of it was there; None before.

        Raises: Malformed; TooLarge as soon as a chunk is announced that would pass the bound.
        """
        while True:
            if self._left is None:
                self._left = self._size(buffer)
            if self._left is None or not self._is_taken(buffer, self._left):
                return None
            if self._is_last:
                return bytes(self._body)
            self._left = None

    def _size(self, buffer: bytearray) -> int | None:
        """Of the next chunk; None where its line is not whole."""
        found = _SIZE.match(buffer)
        if found is None:
            if _BEGUN_SIZE.fullmatch(buffer[:_LONGEST_SIZE]) is None:
                raise Malformed("the chunks of the body cannot be read")
            return None
        size = int(found[1], 16)
        if len(self._body) + size > self._max_bytes:
            raise TooLarge(f"the body is larger than {self._max_bytes} bytes", field="body")
        del buffer[: found.end()]
        self._is_last = size == 0
        return size

    def _is_taken(self, buffer: bytearray, size: int) -> bool:
        """Whether so many bytes and their line end are there; as many as there are go into the body."""
        piece = buffer[:size]
        del buffer[:size]
        self._body += piece
        self._left = size - len(piece)
        if self._left:
            return False
        end = bytes(buffer[: len(_LINE_END)])
        if not _LINE_END.startswith(end):
            raise Malformed("the chunks of the body cannot be read")
        if end != _LINE_END:
            return False
        del buffer[: len(_LINE_END)]
        return True
