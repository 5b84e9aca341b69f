"""HTTP/2 frames: the numbers of RFC 9113, and the few frames that a server of unary calls sends.

A frame is nine bytes of head (length 24 bits, type, flags, stream 31 bits) and its payload. What breaks a rule for
the whole connection is a `Breach`: the connection says GOAWAY with its code and closes. Nothing else ends one.

Source: RFC 9113, sections 4.1, 6 and 7.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD: Final = Struct(">HBBBI")
"""Length in two parts (16 and 8 bits), type, flags, stream."""
HEAD_BYTES: Final = 9
MAX_FRAME_BYTES: Final = 16_384
"""The smallest bound that a peer may have, ours too: nobody is told another."""
MAX_WINDOW: Final = 2**31 - 1
START_WINDOW: Final = 65_535
STREAM_MASK: Final = 2**31 - 1
PRIORITY_BYTES: Final = 5

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME_SIZE, MAX_HEADER_LIST = range(1, 7)

_PAIR: Final = Struct(">HI")
_WORD: Final = Struct(">I")


class Code(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Breach(Exception):  # noqa: N818 - a peer's fault, not ours
    """The peer broke a rule that holds for the whole connection."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def frame(kind: int, flags: int, *, stream_id: int, payload: bytes) -> bytes:
    """One frame."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def settings_frame(values: dict[int, int]) -> bytes:
    """What we want of the peer."""
    payload = b"".join(_PAIR.pack(name, value) for name, value in values.items())
    return frame(SETTINGS, 0, stream_id=0, payload=payload)


SETTINGS_ACK: Final = frame(SETTINGS, ACK, stream_id=0, payload=b"")


def settings_of(payload: bytes) -> dict[int, int]:
    """What the peer wants of us; of a setting that stands there twice the last.

    Raises: Breach where a value is outside of its range.
    """
    if len(payload) % _PAIR.size:
        raise Breach(Code.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    told = dict(_PAIR.iter_unpack(payload))
    if told.get(ENABLE_PUSH, 0) > 1:
        raise Breach(Code.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
    if told.get(INITIAL_WINDOW, 0) > MAX_WINDOW:
        raise Breach(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE above 2^31-1")
    if not MAX_FRAME_BYTES <= told.get(MAX_FRAME_SIZE, MAX_FRAME_BYTES) < 2**24:
        raise Breach(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE outside of its range")
    return told


def window_frame(stream_id: int, grown: int) -> bytes:
    """Room for so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream_id=stream_id, payload=_WORD.pack(grown))


def reset_frame(stream_id: int, code: Code) -> bytes:
    """The end of a stream that broke a rule, or is not wanted."""
    return frame(RST_STREAM, 0, stream_id=stream_id, payload=_WORD.pack(code))


def goaway_frame(last_id: int, code: Code, *, detail: str = "") -> bytes:
    """The end of a connection; streams above `last_id` were not begun."""
    payload = _WORD.pack(last_id) + _WORD.pack(code) + detail.encode()
    return frame(GOAWAY, 0, stream_id=0, payload=payload)


def check(kind: int, stream_id: int, *, payload: bytes) -> None:
    """What holds for frames that carry no call, whatever has come before. Raises: Breach."""
    if kind in (SETTINGS, PING, GOAWAY) and stream_id:
        raise Breach(Code.PROTOCOL_ERROR, "a connection's frame on a stream")
    if kind == PRIORITY:
        if not stream_id:
            raise Breach(Code.PROTOCOL_ERROR, "PRIORITY of no stream")
        if len(payload) != PRIORITY_BYTES:
            raise Breach(Code.FRAME_SIZE_ERROR, "a priority has 5 bytes")
    elif kind == PUSH_PROMISE:
        raise Breach(Code.PROTOCOL_ERROR, "a client pushes nothing")


def word_of(payload: bytes) -> int:
    """The 32 bits that are the whole payload of RST_STREAM and WINDOW_UPDATE. Raises: Breach."""
    if len(payload) != _WORD.size:
        raise Breach(Code.FRAME_SIZE_ERROR, "RST_STREAM and WINDOW_UPDATE have 4 bytes")
    return int.from_bytes(payload, "big")


def unpadded(payload: bytes) -> bytes:
    """A payload without its padding. Raises: Breach."""
    if not payload or payload[0] >= len(payload):
        raise Breach(Code.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def unprioritized(payload: bytes, stream_id: int) -> bytes:
    """A header block without the priority before it, which nobody follows any more. Raises: Breach."""
    if len(payload) < PRIORITY_BYTES:
        raise Breach(Code.FRAME_SIZE_ERROR, "a priority has 5 bytes")
    if int.from_bytes(payload[:4], "big") & STREAM_MASK == stream_id:
        raise Breach(Code.PROTOCOL_ERROR, "a stream that depends on itself")
    return payload[PRIORITY_BYTES:]
