"""A call: one message in, one message or one failure out.

The connection makes it, a method answers it, once, now or later; whoever answers a call that was taken back by the
peer meanwhile is not heard, and its place is free again only then, so that a peer that asks and takes back again
and again has no more work under way than its streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from gateway.edge.grpc.header import CallHead
from gateway.edge.grpc.status import Status

PREFIX_BYTES: Final = 5
"""Before a message: a flag that says whether it is compressed, and its length."""


class Speaker(Protocol):
    """What a call needs of its connection."""

    def answer(self, call: Call, message: bytes) -> None:
        """Send the message and the good end."""
        ...

    def fail(self, call: Call, status: Status, *, text: str) -> None:
        """Send the bad end."""
        ...


class Call:
    """One stream, from its header block to its answer.

    `wanted` is how long the body will be, -1 until that is known. `is_running`: the message is whole and a method
    works on it. `is_dropped`: the peer does not wait any more.
    """

    __slots__ = ("_speaker", "body", "head", "is_dropped", "is_running", "room", "since_s", "stream_id", "wanted")

    def __init__(self, speaker: Speaker, head: CallHead, *, stream_id: int, room: int, since_s: float) -> None:
        """`room` is how many bytes the peer lets us send on this stream; `since_s` when it came."""
        self._speaker = speaker
        self.head = head
        self.stream_id = stream_id
        self.room = room
        self.since_s = since_s
        self.body: bytes | bytearray = b""
        self.wanted = -1
        self.is_running = False
        self.is_dropped = False

    @property
    def message(self) -> bytes:
        """The request's message, without its prefix."""
        return bytes(self.body[PREFIX_BYTES:])

    def add(self, piece: bytes) -> None:
        """More of the body."""
        if not self.body:
            self.body = piece
        elif isinstance(self.body, bytearray):
            self.body += piece
        else:
            self.body = bytearray(self.body) + piece
        if self.wanted < 0 and len(self.body) >= PREFIX_BYTES:
            self.wanted = PREFIX_BYTES + int.from_bytes(self.body[1:PREFIX_BYTES], "big")

    def drop(self) -> None:
        """The peer does not wait any more."""
        self.is_dropped = True

    def answer(self, message: bytes) -> None:
        """The answer."""
        self._speaker.answer(self, message)

    def fail(self, status: Status, text: str) -> None:
        """No answer, and why."""
        self._speaker.fail(self, status, text=text)


Method = Callable[[Call], None]
"""Answers a call, now or later."""

Methods = Mapping[str, Method]
"""By path, such as `/grpc.health.v1.Health/Check`."""
