"""A call of many messages, as they come, and one answer at its end.

Each message goes to a sink as soon as it is whole. The sink says when it is done with one (`taken`), and only then
the peer has the room for it again: who sends faster than the sink takes stands still, alone, while calls on the
same connection go on. What a sink has been given it keeps, whatever becomes of the stream.

    open     messages come
    told     the stream was answered first, because the process leaves: what the peer had sent is read all the same
    ended    the peer has said all, or went; the stream keeps its place until the last message is taken

Worked example: a peer has room for 1,049,605 bytes. It sends three messages of 400,000, and stands still in the
third until the first is taken. A connection has eight streams at most.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from gateway.edge.grpc.call import PREFIX_BYTES, Call, Speaker
from gateway.edge.grpc.frame import END_STREAM, PADDED, Code, unpadded, window_frame
from gateway.edge.grpc.header import CallHead, failed_block
from gateway.edge.grpc.outflow import Outflow
from gateway.edge.grpc.patience import Patience
from gateway.edge.grpc.status import Status

Fault = tuple[Status, str]

_MOST_STREAMS: Final = 8
_MOST_HELD: Final = 4_096
"""Messages that were not taken; their bytes are bounded by the peer's room."""
_SMALL_BYTES: Final = 1_024


class Stream(Call):
    """From its header block to its answer. `is_ended`: nothing more comes."""

    __slots__ = ("_held_bytes", "_held_count", "_intake", "_sink", "_unread", "is_ended")

    def __init__(self, intake: Intake, head: CallHead, *, stream_id: int, sink: Sink) -> None:
        super().__init__(intake.speaker, head, stream_id=stream_id, room=intake.out.window, since_s=0.0)
        self._intake = intake
        self._sink = sink
        self._held_bytes = self._held_count = 0
        self._unread = bytearray()
        self.is_running = True
        self.is_ended = False

    def read(self, piece: bytes) -> tuple[int, Fault | None]:
        """Hand on each message that is whole now: how many, and why no more is read, if it is not.

        Raises: OverflowError where the peer had no room for it.
        """
        unread, at, count = self._unread, 0, 0
        unread += piece
        if self._held_bytes + len(unread) > self._intake.window:
            raise OverflowError
        fault: Fault | None = None
        while len(unread) - at >= PREFIX_BYTES:
            size = int.from_bytes(unread[at + 1 : at + PREFIX_BYTES], "big")
            fault = self._fault(size, is_packed=bool(unread[at]))
            if fault is not None or len(unread) - at < PREFIX_BYTES + size:
                break
            at += PREFIX_BYTES + size
            self._held_bytes += PREFIX_BYTES + size
            self._held_count += 1
            count += 1
            self._sink(self, bytes(unread[at - size : at]))
        del unread[:at]
        return count, fault

    def _fault(self, size: int, *, is_packed: bool) -> Fault | None:
        most = self._intake.window - PREFIX_BYTES
        if is_packed:
            return Status.UNIMPLEMENTED, "messages are not compressed here"
        if size > most:
            return Status.RESOURCE_EXHAUSTED, f"a message above {most} bytes"
        if self._held_count >= _MOST_HELD:
            return Status.RESOURCE_EXHAUSTED, "too many messages are under way"
        return None

    def taken(self, message: bytes) -> None:
        """Called by the sink, once for each message, now or later: it is done with it."""
        size = PREFIX_BYTES + len(message)
        self._held_bytes -= size
        self._held_count -= 1
        if not self.is_ended:
            self._intake.give_back(self, size)
        elif not self._held_count:
            self._finish()

    def end(self) -> None:
        """Nothing more comes."""
        if self.is_ended:
            return
        self.is_ended = True
        self.wanted = len(self._unread)
        self._unread.clear()
        if not self._held_count:
            self._finish()

    def drop(self) -> None:
        """The peer does not wait any more."""
        super().drop()
        self.end()

    def _finish(self) -> None:
        """All is taken."""
        if self.wanted and not self.is_dropped:
            self.fail(Status.INVALID_ARGUMENT, "the last message is cut short")
        else:
            self.answer(b"")


class Intake:
    """The streams of one connection, and what they have in common.

    `window`: how much the peer may send on a stream before it is given room again, and so the longest message.
    """

    def __init__(
        self, speaker: Speaker, sinks: Sinks, *, out: Outflow, patience: Patience, window: int, wake: Wake
    ) -> None:
        self.speaker, self.out, self.window = speaker, out, window
        self._sinks = sinks
        self._patience, self._wake = patience, wake

    def begin(self, head: CallHead, stream_id: int, *, beside: Collection[Call]) -> Stream | Fault:
        """A stream beside these calls; why not, where nobody takes it or there are too many."""
        sink = self._sinks.get(head.path)
        if sink is None:
            return Status.UNIMPLEMENTED, f"no such method: {head.path[:200]}"
        self._patience.idle()
        if sum(isinstance(call, Stream) for call in beside) >= _MOST_STREAMS:
            return Status.RESOURCE_EXHAUSTED, "too many such calls"
        return Stream(self, head, stream_id=stream_id, sink=sink)

    def read(self, stream: Stream, flags: int, *, payload: bytes) -> Fault | Code | None:
        """A DATA frame; what is wrong with it: the peer is told the reason, or the rule that it broke.

        Raises: Breach.
        """
        size, is_end = len(payload), bool(flags & END_STREAM)
        if flags & PADDED:
            payload = unpadded(payload)
            self.give_back(stream, size - len(payload))
        try:
            count, fault = stream.read(payload)
        except OverflowError:
            return Code.FLOW_CONTROL_ERROR
        for _ in range(count):
            self._patience.called()
        if not count and len(payload) < _SMALL_BYTES and not is_end:
            self._patience.idle()
        if is_end and fault is None:
            stream.end()
        return fault

    def give_back(self, stream: Stream, size: int) -> None:
        """Let the peer send so much more."""
        self.out.unsent.append(window_frame(stream.stream_id, size))
        self._wake()

    def leave(self, calls: Collection[Call]) -> None:
        """Have the peer open its streams elsewhere; what it has sent until then is read."""
        for call in calls:
            if isinstance(call, Stream) and not call.is_dropped:
                call.is_dropped = True
                self.out.block(call.stream_id, failed_block(Status.UNAVAILABLE, "the process ends"), is_end=True)


Wake = Callable[[], None]

Sink = Callable[[Stream, bytes], None]
"""Takes a message, and says `taken` when it is done with it."""

Sinks = Mapping[str, Sink]
"""By path, such as `/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs`."""
