"""Messages of a WebSocket, counted as their frames pass, and held back where nothing covers them.

Nothing is unmasked and nothing kept but what waits: half a header, or a frame that would end a message too many. A
message is counted with its last frame; control frames are none.

Worked example: `81 02 68 69` is one text message of two bytes; `01 02 .. ..` and `80 01 ..` are one together.

Source: RFC 6455, sections 5.2, 5.4 and 5.5.1.
"""

from __future__ import annotations

from typing import Final

from gateway.edge.proxy.rule import Messages

_FINAL, _CONTROL, _MASKED = 0x80, 0x08, 0x80
_LENGTH: Final = 0x7F
_EXTRA: Final = {126: 2, 127: 8}
_HEADER, _MASK = 2, 4


class MessageReader:
    """One direction. `is_blocked`: a message waits that would be one too many."""

    __slots__ = ("_left", "_waiting", "count", "is_blocked")

    def __init__(self) -> None:
        self._waiting: bytes = b""
        self._left = 0
        self.count = 0
        self.is_blocked = False

    @property
    def is_between_frames(self) -> bool:
        """Whether what has passed ends with a frame: a close may follow, even between fragments of a message."""
        return not self._left

    def take(self, data: bytes, most: int | None) -> bytes:
        """What may pass, of these bytes and of those that wait, with no more than so many messages in all."""
        data = self._waiting + data if self._waiting else data
        self.is_blocked = False
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            size, length = _header_at(data, at)
            if not size:
                break
            if data[at] & _FINAL and not data[at] & _CONTROL:
                if most is not None and self.count >= most:
                    self.is_blocked = True
                    break
                self.count += 1
            self._left = length
            at += size
        self._waiting = data[at:]
        return data[:at]


class Tunnel:
    """Both directions, and which of them is counted."""

    __slots__ = ("_counted", "down", "up")

    def __init__(self, counted: Messages | None) -> None:
        self._counted = counted
        self.down = MessageReader()
        self.up = MessageReader()

    @property
    def is_blocked(self) -> bool:
        """Whether more must be covered before anything else passes."""
        return self.down.is_blocked or self.up.is_blocked

    def pass_down(self, data: bytes, units: int | None) -> bytes:
        """What may go to the client, where so many messages are covered."""
        others = self.up.count if self._counted is Messages.BOTH else 0
        is_bound = self._counted in (Messages.DOWN, Messages.BOTH) and units is not None
        return self.down.take(data, units - others if is_bound and units is not None else None)

    def pass_up(self, data: bytes, units: int | None) -> bytes:
        """What may go to the upstream."""
        others = self.down.count if self._counted is Messages.BOTH else 0
        is_bound = self._counted in (Messages.UP, Messages.BOTH) and units is not None
        return self.up.take(data, units - others if is_bound and units is not None else None)


def close_frame(code: int, why: str) -> bytes:
    """What ends a WebSocket in good order, from the server's side."""
    payload = code.to_bytes(2, "big") + why.encode()[:100]
    return bytes((_FINAL | 0x08, len(payload))) + payload


def _header_at(data: bytes, at: int) -> tuple[int, int]:
    """Size of the header that begins there, and how long its frame is; no size where it is not whole."""
    if len(data) - at < _HEADER:
        return 0, 0
    length = data[at + 1] & _LENGTH
    extra = _EXTRA.get(length, 0)
    size = _HEADER + extra + (_MASK if data[at + 1] & _MASKED else 0)
    if len(data) - at < size:
        return 0, 0
    begin = at + _HEADER
    return size, int.from_bytes(data[begin : begin + extra], "big") if extra else length
