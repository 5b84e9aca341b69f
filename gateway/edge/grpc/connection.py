"""One HTTP/2 connection, server side, for gRPC calls: bytes in, calls and messages out, answers back, no socket.

By the book as far as such a server needs it: preface, SETTINGS and their acknowledgement, flow control in both
directions, PING, GOAWAY, RST_STREAM, CONTINUATION, padding; priority and unknown frames are passed over. Bounds:

    header list    16 KiB
    streams        `max_streams` under way, those that the peer has taken back and that still run included
    message        `max_message_bytes`; of all calls together eight times that, but for those of `stream`
    idle frames    see `patience`

Each stream may send a whole message without waiting for us, and the connection's room is given back as it is used,
so that a sender never stands still; what holds memory down is the bound on all streams together.

Source: RFC 9113.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.edge.grpc import frame as h2
from gateway.edge.grpc.call import PREFIX_BYTES, Call, Methods
from gateway.edge.grpc.frame import Breach, Code
from gateway.edge.grpc.header import MAX_LIST_BYTES, CallHead, HeadReader, failed_block, http_block
from gateway.edge.grpc.outflow import Outflow
from gateway.edge.grpc.patience import Patience
from gateway.edge.grpc.reader import FrameReader
from gateway.edge.grpc.status import Status
from gateway.edge.grpc.stream import Intake, Sinks, Stream, Wake

_ROOM: Final = 2**20
"""What the peer may send on the whole connection before we say that there is room again."""
_SLACK_BYTES: Final = 1_024
_RESETS_REMEMBERED: Final = 256
_MESSAGES_HELD: Final = 8
_LEAVING: Final = b"leaving!"


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much one connection may ask for."""

    max_message_bytes: int = 2**20
    max_streams: int = 1_024


class Connection:
    """Reads what a peer sends, has `methods` answer and `sinks` take, and keeps in `unsent` what is to be sent.

    `since_s` tells when what is being read came, on the process' monotonic clock; `wake` is called when a call was
    answered. `is_over`: send what is unsent and close the socket.
    """

    def __init__(
        self, methods: Methods, bounds: Bounds, *, sinks: Sinks, since_s: Callable[[], float], wake: Wake
    ) -> None:
        self._methods = methods
        self._bounds = bounds
        self._since_s = since_s
        self._wake = wake
        self._heads = HeadReader()
        self._frames = FrameReader(self._take)
        self._calls: dict[int, Call] = {}
        self._last_id = 0
        self._takes_until = h2.MAX_WINDOW
        self._reset_ids: deque[int] = deque(maxlen=_RESETS_REMEMBERED)
        self._room = _ROOM
        self._held_bytes = 0
        self._patience = Patience(since_s)
        self.is_greeted = self.is_leaving = self.is_over = False
        window = bounds.max_message_bytes + PREFIX_BYTES + _SLACK_BYTES
        wanted = {
            h2.MAX_STREAMS: bounds.max_streams,
            h2.INITIAL_WINDOW: window,
            h2.MAX_HEADER_LIST: MAX_LIST_BYTES,
        }
        self._out = Outflow([h2.settings_frame(wanted), h2.window_frame(0, _ROOM - h2.START_WINDOW)])
        self._intake = Intake(self, sinks, out=self._out, patience=self._patience, window=window, wake=wake)

    @property
    def call_count(self) -> int:
        """Calls that are not answered yet."""
        return len(self._calls)

    def oldest_s(self) -> float | None:
        """Since when the call waits that waits longest for its peer: to send all, or to make room."""
        waiting = (call.since_s for call in self._calls.values() if not call.is_running or self._out.keeps(call))
        return min(waiting, default=None)

    def take_unsent(self) -> bytes:
        """What is to be sent; it is not told again."""
        pieces = b"".join(self._out.unsent)
        self._out.unsent.clear()
        return pieces

    def feed(self, data: bytes) -> None:
        """Read; nothing that a peer sends raises."""
        if self.is_over:
            return
        try:
            self._frames.feed(data)
        except Breach as breach:
            self.end(breach.code, breach.detail)

    def leave(self) -> None:
        """Take what the peer opens until it hears of this, and no more; be over when all is answered.

        A peer that has not greeted yet hears it when it does.
        """
        if self.is_leaving or self.is_over:
            return
        self.is_leaving = True
        if self.is_greeted:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        self._out.unsent.append(h2.goaway_frame(h2.MAX_WINDOW, Code.NO_ERROR))
        self._out.unsent.append(h2.frame(h2.PING, 0, stream_id=0, payload=_LEAVING))
        self._intake.leave(self._calls.values())

    def end(self, code: Code, detail: str) -> None:
        """Say GOAWAY and be over; whoever answers a call now is not heard."""
        self._out.unsent.append(h2.goaway_frame(self._last_id, code, detail=detail))
        self.lose()

    def lose(self) -> None:
        """Be over without a word."""
        self.is_over = True
        self._held_bytes = 0
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.drop()

    # What calls say.

    def answer(self, call: Call, message: bytes) -> None:
        """Send an answer; of a call that nobody waits for, nothing."""
        if call.is_dropped or self._out.answer(call, message):
            self._free(call)
        else:
            call.since_s = self._since_s()  # from here on it waits for room
        self._wake()

    def fail(self, call: Call, status: Status, *, text: str) -> None:
        """Send a failure; of a call that nobody waits for, nothing."""
        if not call.is_dropped:
            self._out.block(call.stream_id, failed_block(status, text), is_end=True)
        self._free(call)
        self._wake()

    def _free(self, call: Call) -> None:
        self._calls.pop(call.stream_id, None)
        if self._takes_until < h2.MAX_WINDOW and not self._calls:
            self.is_over = True

    # What comes in.

    def _take(self, kind: int, flags: int, *, stream_id: int, payload: bytes) -> None:
        """One frame."""
        if self.is_over:
            return
        if kind == h2.DATA and self.is_greeted:
            self._data(flags, stream_id, payload=payload)
        elif kind == h2.HEADERS and self.is_greeted:
            self._begin(stream_id, payload, is_end=bool(flags & h2.END_STREAM))
        else:
            self._control(kind, flags, stream_id=stream_id, payload=payload)

    def _begin(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        """A header block; whatever becomes of the stream, it is decoded, because the next one builds on it."""
        head = self._heads.read(block)
        if stream_id <= self._last_id:
            self._trailers(stream_id, is_end=is_end)
            return
        self._last_id = stream_id
        if stream_id > self._takes_until:
            return
        if head.malformed:
            self._discard(stream_id, Code.PROTOCOL_ERROR)
        elif len(self._calls) >= self._bounds.max_streams:
            self._discard(stream_id, Code.REFUSED_STREAM)
        elif head.http_status:
            self._refuse(stream_id, http_block(head.http_status), is_end=is_end)
        elif head.path not in self._methods:
            self._begin_stream(stream_id, head, is_end=is_end)
        elif is_end:
            self._refuse(stream_id, failed_block(Status.INVALID_ARGUMENT, "a call has one message"), is_end=True)
        else:
            self._calls[stream_id] = Call(
                self, head, stream_id=stream_id, room=self._out.window, since_s=self._since_s()
            )

    def _begin_stream(self, stream_id: int, head: CallHead, *, is_end: bool) -> None:
        """A call that has many messages, or one that nobody knows."""
        stream = self._intake.begin(head, stream_id, beside=self._calls.values())
        if isinstance(stream, Stream):
            self._calls[stream_id] = stream
            if self.is_leaving:
                self._intake.leave((stream,))
            if is_end:
                stream.end()
        else:
            self._refuse(stream_id, failed_block(*stream), is_end=is_end)

    def _trailers(self, stream_id: int, *, is_end: bool) -> None:
        """A second block on a stream: a client may end its side so."""
        self._patience.idle()
        call = self._calls.get(stream_id)
        if call is None:
            if stream_id not in self._reset_ids:
                raise Breach(Code.STREAM_CLOSED, "HEADERS on a closed stream")
        elif isinstance(call, Stream) and is_end and not call.is_ended:
            call.end()
        elif call.is_dropped:
            return
        elif call.is_running or not is_end:
            self._give_up(call, Code.STREAM_CLOSED if call.is_running else Code.PROTOCOL_ERROR)
        else:
            self._ended(call)

    def _data(self, flags: int, stream_id: int, *, payload: bytes) -> None:
        size = len(payload)
        self._room -= size
        if self._room < _ROOM // 2:
            if self._room < 0:
                raise Breach(Code.FLOW_CONTROL_ERROR, "more than the connection has room for")
            self._out.unsent.append(h2.window_frame(0, _ROOM - self._room))
            self._room = _ROOM
        call = self._calls.get(stream_id)
        if call is None or call.is_running:
            if isinstance(call, Stream) and not call.is_ended:
                self._read(call, flags, payload=payload)
            else:
                self._stray(stream_id, call)
            return
        if flags & h2.PADDED:
            payload = h2.unpadded(payload)
            if not flags & h2.END_STREAM:
                self._out.unsent.append(h2.window_frame(stream_id, size - len(payload)))
        if not payload and not flags & h2.END_STREAM:
            self._patience.idle()
        self._held_bytes += len(payload)
        call.add(payload)
        excess = self._excess(call)
        if excess:
            self._drop(call)
            self._refuse(stream_id, failed_block(*excess), is_end=bool(flags & h2.END_STREAM))
        elif flags & h2.END_STREAM:
            self._ended(call)

    def _read(self, stream: Stream, flags: int, *, payload: bytes) -> None:
        """More of the messages of a stream."""
        was_told, excess = stream.is_dropped, self._intake.read(stream, flags, payload=payload)
        if isinstance(excess, Code):
            self._give_up(stream, excess)
        elif excess is not None:
            self._drop(stream)
            if not was_told:
                self._refuse(stream.stream_id, failed_block(*excess), is_end=bool(flags & h2.END_STREAM))

    def _excess(self, call: Call) -> tuple[Status, str] | None:
        """Why no more of this message is read; None where it may go on."""
        most = self._bounds.max_message_bytes
        if call.wanted > most + PREFIX_BYTES:
            return Status.RESOURCE_EXHAUSTED, f"a message above {most} bytes"
        if call.wanted >= 0 and len(call.body) > call.wanted:
            return Status.INVALID_ARGUMENT, "a call has one message"
        if self._held_bytes > _MESSAGES_HELD * most:
            return Status.RESOURCE_EXHAUSTED, "too many messages are under way"
        return None

    def _ended(self, call: Call) -> None:
        """The peer has said all: the call runs."""
        head, body = call.head, call.body
        if head.length is not None and head.length != len(body):
            self._give_up(call, Code.PROTOCOL_ERROR)
            return
        self._held_bytes -= len(body)
        call.is_running = True
        self._patience.called()
        if len(body) != call.wanted:
            call.fail(Status.INVALID_ARGUMENT, "the message is cut short")
        elif body[0]:
            is_named = head.encoding not in ("", "identity")
            call.fail(Status.UNIMPLEMENTED if is_named else Status.INTERNAL, "messages are not compressed here")
        elif head.timeout_ms is not None and head.timeout_ms < 0:
            call.fail(Status.INVALID_ARGUMENT, "grpc-timeout cannot be read")
        else:
            self._methods[head.path](call)

    def _stray(self, stream_id: int, call: Call | None) -> None:
        """DATA where none is due."""
        self._patience.idle()
        if stream_id > self._last_id or not stream_id & 1:
            raise Breach(Code.PROTOCOL_ERROR, "DATA on a stream that was never opened")
        if call is None:
            if stream_id not in self._reset_ids and stream_id <= self._takes_until:
                raise Breach(Code.STREAM_CLOSED, "DATA on a closed stream")
        elif not call.is_dropped:
            self._give_up(call, Code.STREAM_CLOSED)

    def _control(self, kind: int, flags: int, *, stream_id: int, payload: bytes) -> None:
        """Frames that carry no call."""
        self._patience.idle()
        if not self.is_greeted and (kind != h2.SETTINGS or flags & h2.ACK):
            raise Breach(Code.PROTOCOL_ERROR, "SETTINGS come first")
        h2.check(kind, stream_id, payload=payload)
        if kind == h2.WINDOW_UPDATE:
            self._grow(stream_id, h2.word_of(payload) & h2.STREAM_MASK)
        elif kind == h2.RST_STREAM:
            h2.word_of(payload)
            self._taken_back(stream_id)
        elif kind == h2.SETTINGS:
            self._settings(flags, payload)
        elif kind == h2.PING:
            self._ping(flags, payload)

    def _settings(self, flags: int, payload: bytes) -> None:
        is_first, self.is_greeted = not self.is_greeted, True
        if flags & h2.ACK:
            if payload:
                raise Breach(Code.FRAME_SIZE_ERROR, "an acknowledgement says nothing")
            return
        told = h2.settings_of(payload)
        self._out.resize(told.get(h2.INITIAL_WINDOW, self._out.window), list(self._calls.values()))
        self._out.unsent.append(h2.SETTINGS_ACK)
        if is_first and self.is_leaving:
            self._say_goodbye()
        self._proceed()

    def _ping(self, flags: int, payload: bytes) -> None:
        if len(payload) != len(_LEAVING):
            raise Breach(Code.FRAME_SIZE_ERROR, "PING has 8 bytes")
        if not flags & h2.ACK:
            self._out.unsent.append(h2.frame(h2.PING, h2.ACK, stream_id=0, payload=payload))
        elif self.is_leaving and payload == _LEAVING:
            self._takes_until = self._last_id
            self._out.unsent.append(h2.goaway_frame(self._last_id, Code.NO_ERROR))
            self.is_over = not self._calls

    def _grow(self, stream_id: int, grown: int) -> None:
        call = self._calls.get(stream_id)
        if not stream_id:
            self._out.grow(grown)
        elif call is None:
            self._known(stream_id)
        elif not self._out.grow_stream(call, grown):
            self._drop(call)
            self._reset_ids.append(stream_id)
        self._proceed()

    def _taken_back(self, stream_id: int) -> None:
        """The peer does not wait any more. What runs is let run, in its place."""
        self._known(stream_id)
        call = self._calls.get(stream_id)
        self._reset_ids.append(stream_id)
        if call is not None:
            self._drop(call)

    # How streams end before their time.

    def _known(self, stream_id: int) -> None:
        if stream_id > self._last_id or not stream_id & 1:
            raise Breach(Code.PROTOCOL_ERROR, "a frame of a stream that was never opened")

    def _drop(self, call: Call) -> None:
        """Nobody waits for it; while a method works on it, it keeps its place."""
        was_waiting = self._out.forget(call.stream_id)
        call.drop()
        if not call.is_running:
            self._held_bytes -= len(call.body)
        if was_waiting or not call.is_running:
            self._free(call)

    def _give_up(self, call: Call, code: Code) -> None:
        """The peer broke a rule on this stream."""
        self._drop(call)
        self._discard(call.stream_id, code)

    def _discard(self, stream_id: int, code: Code) -> None:
        self._patience.idle()
        self._reset_ids.append(stream_id)
        self._out.unsent.append(h2.reset_frame(stream_id, code))

    def _refuse(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        """Answer with nothing but an end; whoever is still sending need not go on."""
        self._out.block(stream_id, block, is_end=True)
        if not is_end:
            self._reset_ids.append(stream_id)
            self._out.unsent.append(h2.reset_frame(stream_id, Code.NO_ERROR))

    def _proceed(self) -> None:
        for stream_id in self._out.proceed():
            self._free(self._calls[stream_id])
