"""A connection without a socket, and the library `h2` on the other side of it.

house   makes connections that know three methods: `/echo` answers what it gets, `/later` keeps the call for the
        test to answer, `/fail` fails; and a sink, `/sink`, whose messages the test takes
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from gateway.edge.grpc.call import Call
from gateway.edge.grpc.connection import Bounds, Connection
from gateway.edge.grpc.status import Status
from gateway.edge.grpc.stream import Stream

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo"),
    (":authority", "tallygate"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


def prefixed(message: bytes, *, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


class Told:
    """What came back on one stream."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.trailers: dict[bytes, bytes] = {}
        self.data = b""
        self.is_ended = False
        self.reset: int | None = None

    @property
    def status(self) -> int:
        """grpc-status, wherever it stands."""
        return int((self.trailers or self.headers)[b"grpc-status"])

    @property
    def message(self) -> bytes:
        assert self.data[:1] == b"\0"
        assert int.from_bytes(self.data[1:5], "big") == len(self.data) - 5
        return self.data[5:]


class House:
    """One connection, its peer, and all that passed between them.

    `gives_back`: the peer makes room again as it reads.
    """

    headers = HEADERS
    prefixed = staticmethod(prefixed)

    def __init__(self, **bounds: int) -> None:
        self.now_s = 100.0
        self.kept: list[Call] = []
        self.taken: list[tuple[Stream, bytes]] = []
        self.wakes = 0
        self.gives_back = True
        methods = {"/echo": lambda call: call.answer(call.message), "/later": self.kept.append, "/fail": _fail}
        sinks = {"/sink": lambda stream, message: self.taken.append((stream, message))}
        self.server = Connection(
            methods, Bounds(**bounds), sinks=sinks, since_s=lambda: self.now_s, wake=self._wake
        )
        self.peer = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=False, validate_inbound_headers=True)
        )
        self.told: dict[int, Told] = {}
        self.events: list[Any] = []

    def _wake(self) -> None:
        self.wakes += 1

    def greet(self) -> None:
        self.peer.initiate_connection()
        self.exchange()

    def exchange(self) -> None:
        """Carry bytes to and fro until nobody has any more to say."""
        while True:
            sent = self.peer.data_to_send()
            if sent:
                self.server.feed(sent)
            back = self.server.take_unsent()
            if back:
                self._hear(self.peer.receive_data(back))
            if not sent and not back:
                return

    def begin(self, path: str = "/echo", **more: str) -> int:
        """A header block; the stream."""
        stream_id = self.peer.get_next_available_stream_id()
        fields = [(name, path if name == ":path" else value) for name, value in HEADERS]
        fields += [(name.replace("_", "-"), value) for name, value in more.items()]
        self.peer.send_headers(stream_id, fields)
        return stream_id

    def call(self, message: bytes = b"", path: str = "/echo", **more: str) -> Told:
        """A whole call."""
        stream_id = self.begin(path, **more)
        self.peer.send_data(stream_id, prefixed(message), end_stream=True)
        self.exchange()
        return self.told.setdefault(stream_id, Told())

    def raw(self, data: bytes) -> bytes:
        """Send bytes that `h2` would not; what comes back."""
        self.server.feed(data)
        return self.server.take_unsent()

    def _hear(self, events: list[Any]) -> None:
        self.events += events
        for event in events:
            told = self.told.setdefault(getattr(event, "stream_id", 0) or 0, Told())
            if isinstance(event, h2.events.ResponseReceived):
                told.headers = dict(event.headers)
            elif isinstance(event, h2.events.TrailersReceived):
                told.trailers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                told.data += event.data
                if event.flow_controlled_length and self.gives_back:
                    self.peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                told.is_ended = True
            elif isinstance(event, h2.events.StreamReset):
                told.reset = int(event.error_code)


def _fail(call: Call) -> None:
    call.fail(Status.UNAVAILABLE, "not now: 100 % busy\n")


@pytest.fixture
def house() -> Callable[..., House]:
    """Makes a connection that has been greeted."""

    def make(*, is_greeted: bool = True, **bounds: int) -> House:
        made = House(**bounds)
        if is_greeted:
            made.greet()
        return made

    return make
