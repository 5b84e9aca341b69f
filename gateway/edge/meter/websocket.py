"""Messages of a WebSocket, counted as their frames pass; nothing is unmasked and nothing kept but half a header.

A message is counted when its last frame begins; control frames are none.

Worked example: `81 02 68 69` is one text message of two bytes; `01 02 .. ..` and `80 01 ..` are one message
together.

Source: RFC 6455, section 5.2.
"""

from __future__ import annotations

from typing import Final

_FINAL, _CONTROL = 0x80, 0x08
_MASKED: Final = 0x80
_SHORT, _LONG = 126, 127
_HEADER: Final = 2


class MessageCounter:
    """Counts one direction."""

    __slots__ = ("_header", "_left", "count")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self.count = 0

    def take(self, data: bytes) -> int:
        """How many messages have come to their last frame in these bytes."""
        before, at = self.count, 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            self._header += data[at : at + 1]
            at += 1
            self._begin()
        return self.count - before

    def _begin(self) -> None:
        """Begin a frame, once its header is whole."""
        header = self._header
        if len(header) < _HEADER:
            return
        code = header[1] & 0x7F
        extra = {_SHORT: 2, _LONG: 8}.get(code, 0)
        mask = 4 if header[1] & _MASKED else 0
        if len(header) < _HEADER + extra + mask:
            return
        self._left = int.from_bytes(header[_HEADER : _HEADER + extra], "big") if extra else code
        if header[0] & _FINAL and not header[0] & _CONTROL:
            self.count += 1
        self._header = b""


def close_frame(code: int, why: str) -> bytes:
    """What ends a WebSocket in good order, from the server's side."""
    payload = code.to_bytes(2, "big") + why.encode()[:100]
    return bytes((_FINAL | 0x08, len(payload))) + payload
