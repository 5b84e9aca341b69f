"""Frames out of bytes, however they are cut: the preface, frame by frame, header blocks put together.

A header block may stand in several frames, between which nothing else may come; it is handed on as one HEADERS
frame, without padding and priority. A block has at most 32 KiB in at most eight frames.
"""

from __future__ import annotations

from typing import Final, Protocol

from gateway.edge.grpc.frame import (
    CONTINUATION,
    END_HEADERS,
    HEAD,
    HEAD_BYTES,
    HEADERS,
    MAX_FRAME_BYTES,
    PADDED,
    PREFACE,
    PRIORITIZED,
    STREAM_MASK,
    Breach,
    Code,
    unpadded,
    unprioritized,
)

_BLOCK_BYTES: Final = 32_768
_BLOCK_FRAMES: Final = 8
_OF_BLOCK: Final = frozenset({HEADERS, CONTINUATION})


class Take(Protocol):
    """Told each frame."""

    def __call__(self, kind: int, flags: int, *, stream_id: int, payload: bytes) -> None: ...


class FrameReader:
    """Keeps what is not a whole frame yet."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._rest = b""
        self._preface = PREFACE
        self._block: tuple[int, int, list[bytes]] | None = None

    def feed(self, data: bytes) -> None:
        """Hand on each frame that is whole now. Raises: Breach."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        if self._preface:
            at = min(end, len(self._preface))
            if data[:at] != self._preface[:at]:
                raise Breach(Code.PROTOCOL_ERROR, "this port speaks HTTP/2 with prior knowledge")
            self._preface = self._preface[at:]
        while end - at >= HEAD_BYTES:
            high, low, kind, flags, stream_id = HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > MAX_FRAME_BYTES:
                raise Breach(Code.FRAME_SIZE_ERROR, f"a frame above {MAX_FRAME_BYTES} bytes")
            start = at + HEAD_BYTES
            if start + size > end:
                break
            at = start + size
            if kind in _OF_BLOCK or self._block is not None:
                self._headers(kind, flags, stream_id=stream_id & STREAM_MASK, payload=data[start:at])
            else:
                self._take(kind, flags, stream_id=stream_id & STREAM_MASK, payload=data[start:at])
        self._rest = data[at:]

    def _headers(self, kind: int, flags: int, *, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            if kind == CONTINUATION:
                raise Breach(Code.PROTOCOL_ERROR, "a CONTINUATION of nothing")
            if not stream_id & 1:
                raise Breach(Code.PROTOCOL_ERROR, "a client's streams are odd")
            if flags & PADDED:
                payload = unpadded(payload)
            if flags & PRIORITIZED:
                payload = unprioritized(payload, stream_id)
            if flags & END_HEADERS:
                self._take(HEADERS, flags, stream_id=stream_id, payload=payload)
            else:
                self._block = stream_id, flags, [payload]
            return
        begun_id, begun_flags, parts = self._block
        if kind != CONTINUATION or stream_id != begun_id:
            raise Breach(Code.PROTOCOL_ERROR, "a header block must not be interrupted")
        parts.append(payload)
        if len(parts) > _BLOCK_FRAMES or sum(map(len, parts)) > _BLOCK_BYTES:
            raise Breach(Code.ENHANCE_YOUR_CALM, "a header block in too many pieces")
        if flags & END_HEADERS:
            self._block = None
            self._take(HEADERS, begun_flags, stream_id=begun_id, payload=b"".join(parts))
