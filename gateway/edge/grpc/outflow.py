"""The outbound side of a connection: answers as frames, and the room that the peer gives for them.

An answer is three frames: a header block, the message, a block with the good end. Only the message counts against
the peer's windows; where it does not fit it waits, in the order in which answers came, and goes out in pieces as
the windows grow. All three leave in one piece of bytes where it fits, which is nearly always.

Source: RFC 9113, sections 5.2 and 6.9.
"""

from __future__ import annotations

from typing import Final

from gateway.edge.grpc.call import PREFIX_BYTES, Call
from gateway.edge.grpc.frame import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    START_WINDOW,
    Breach,
    Code,
    frame,
    reset_frame,
)
from gateway.edge.grpc.header import ANSWER, EMPTY_TABLE, TRAILERS

_END_BOTH: Final = END_STREAM | END_HEADERS
_ANSWER_HEAD: Final = HEAD.pack(0, len(ANSWER), HEADERS, END_HEADERS, 0)[:5]
_TRAILERS_HEAD: Final = HEAD.pack(0, len(TRAILERS), HEADERS, _END_BOTH, 0)[:5]
_DATA_TAIL: Final = bytes((DATA, 0))
_PLAIN: Final = b"\0"


class Outflow:
    """What is to be sent, in `unsent`, and what has to wait."""

    def __init__(self, first: list[bytes]) -> None:
        self.unsent = first
        self._room = START_WINDOW
        self.window = START_WINDOW
        self._waiting: dict[int, tuple[Call, bytes]] = {}
        self._is_table_told = False

    def answer(self, call: Call, message: bytes) -> bool:
        """Send an answer; whether all of it could go."""
        size = len(message) + PREFIX_BYTES
        if size > self._room or size > call.room or size > MAX_FRAME_BYTES or not self._is_table_told:
            self.block(call.stream_id, ANSWER, is_end=False)
            prefixed = _PLAIN + len(message).to_bytes(4, "big") + message
            self._waiting[call.stream_id] = call, prefixed
            return call.stream_id in self.proceed([call.stream_id])
        self._room -= size
        stream = call.stream_id.to_bytes(4, "big")
        self.unsent.append(
            b"".join(
                (
                    _ANSWER_HEAD,
                    stream,
                    ANSWER,
                    size.to_bytes(3, "big"),
                    _DATA_TAIL,
                    stream,
                    _PLAIN,
                    (size - PREFIX_BYTES).to_bytes(4, "big"),
                    message,
                    _TRAILERS_HEAD,
                    stream,
                    TRAILERS,
                )
            )
        )
        return True

    def block(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        """Send a header block."""
        if not self._is_table_told:
            self._is_table_told = True
            block = EMPTY_TABLE + block
        self.unsent.append(frame(HEADERS, _END_BOTH if is_end else END_HEADERS, stream_id=stream_id, payload=block))

    def proceed(self, stream_ids: list[int] | None = None) -> list[int]:
        """Send what there is room for now; the streams whose answer is out."""
        done: list[int] = []
        for stream_id in list(self._waiting) if stream_ids is None else stream_ids:
            if self._room <= 0:
                break
            call, left = self._waiting[stream_id]
            while left and self._room > 0 and call.room > 0:
                piece = left[: min(self._room, call.room, MAX_FRAME_BYTES)]
                left = left[len(piece) :]
                self._room -= len(piece)
                call.room -= len(piece)
                self.unsent.append(frame(DATA, 0, stream_id=stream_id, payload=piece))
            if left:
                self._waiting[stream_id] = call, left
            else:
                del self._waiting[stream_id]
                self.block(stream_id, TRAILERS, is_end=True)
                done.append(stream_id)
        return done

    def keeps(self, call: Call) -> bool:
        """Whether an answer to it waits for room."""
        return call.stream_id in self._waiting

    def forget(self, stream_id: int) -> bool:
        """The peer wants no more of it; whether something waited."""
        return self._waiting.pop(stream_id, None) is not None

    def grow(self, grown: int) -> None:
        """The peer has room for more on the connection. Raises: Breach."""
        if not grown:
            raise Breach(Code.PROTOCOL_ERROR, "a window that grows by nothing")
        self._room += grown
        if self._room > MAX_WINDOW:
            raise Breach(Code.FLOW_CONTROL_ERROR, "a window above 2^31-1")

    def grow_stream(self, call: Call, grown: int) -> bool:
        """The same for one stream; False where it was reset, because the peer broke a rule."""
        call.room += grown
        if grown and call.room <= MAX_WINDOW:
            return True
        self.unsent.append(reset_frame(call.stream_id, Code.FLOW_CONTROL_ERROR if grown else Code.PROTOCOL_ERROR))
        return False

    def resize(self, window: int, calls: list[Call]) -> None:
        """Streams begin with another window, and those that are open have it changed by as much. Raises: Breach."""
        change = window - self.window
        self.window = window
        for call in calls:
            call.room += change
            if call.room > MAX_WINDOW:
                raise Breach(Code.FLOW_CONTROL_ERROR, "a window above 2^31-1")
