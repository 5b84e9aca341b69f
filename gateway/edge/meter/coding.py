"""Bodies that come compressed although they were asked for plain, read piece by piece, and never without a bound.

Source: RFC 9110, sections 8.4.1.2 and 8.4.1.3 (deflate and gzip); RFC 1952, section 2.2 (members).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from gateway.edge.lane.head import Malformed

INFLATED: Final = frozenset({"gzip", "x-gzip", "deflate"})
"""What can be read."""

_EITHER_HEADER: Final = zlib.MAX_WBITS | 32
_PIECE_BYTES: Final = 65_536


class Inflation:
    """Of one body; `most_bytes` may come of what is taken at once."""

    __slots__ = ("_is_begun", "_most", "_stream")

    def __init__(self, *, most_bytes: int) -> None:
        self._stream = zlib.decompressobj(_EITHER_HEADER)
        self._is_begun = False
        self._most = most_bytes

    def take(self, data: bytes) -> Iterator[bytes]:
        """What these bytes are. Raises: Malformed."""
        size = 0
        while data:
            if self._stream.eof:
                self._stream = zlib.decompressobj(_EITHER_HEADER)
            self._is_begun = True
            try:
                piece = self._stream.decompress(data, _PIECE_BYTES)
            except zlib.error:
                raise Malformed("the upstream's answer is not in the coding that it says", status=502) from None
            size += len(piece)
            if size > self._most:
                raise Malformed("the upstream's answer is larger than can be read", status=502)
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            yield piece

    def end(self) -> None:
        """Raises: Malformed where something is missing."""
        if self._is_begun and not self._stream.eof:
            raise Malformed("the upstream's answer ends too early", status=502)
