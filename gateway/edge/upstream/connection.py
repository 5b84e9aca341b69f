"""One connection to an upstream: a request at a time goes out, and its response comes back piece by piece.

What comes is handed on at once and kept nowhere; whoever takes it and cannot pass it on stops the reading. A head
that was just read is remembered, because servers say the same again within a second.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, cast

from gateway.edge.lane.head import Malformed
from gateway.edge.upstream.flow import EndlessFlow, Flow
from gateway.edge.upstream.head import SWITCHING, ResponseHead, read_response

_END: Final = b"\r\n\r\n"
_VERSION: Final = b"HTTP/1."
_MOST_HEAD_BYTES: Final = 32_768
_MOST_UNSENT_BYTES: Final = 65_536
_MOST_INTERIM: Final = 16


class Taker(Protocol):
    """Whoever asked. After `take_end` or `take_loss` nothing more comes; after a read's last piece it may flush."""

    def take_interim(self, head: ResponseHead) -> None: ...

    def take_head(self, head: ResponseHead) -> None: ...

    def take_piece(self, piece: bytes) -> None: ...

    def take_end(self, trailers: bytes) -> None: ...

    def take_loss(self, why: str) -> None: ...

    def flush(self) -> None: ...

    def hold_request(self) -> None: ...

    def resume_request(self) -> None: ...


class Home(Protocol):
    """Where connections wait between requests."""

    def welcome(self, connection: UpstreamConnection) -> None: ...

    def mourn(self, connection: UpstreamConnection) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """Made by a pool. `is_used`: it has answered before, and may have been closed from afar meanwhile."""

    __slots__ = (
        "_buffer", "_flow", "_home", "_interim_count", "_is_bodiless", "_is_last", "_is_sent", "_known", "_taker",
        "_transport", "idle_since_s", "is_used",
    )  # fmt: skip

    def __init__(self, home: Home) -> None:
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._taker: Taker | None = None
        self._flow: Flow | None = None
        self._buffer = b""
        self._known: ResponseHead | None = None
        self._interim_count = 0
        self._is_bodiless = self._is_last = self._is_sent = False
        self.is_used = False
        self.idle_since_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_sent(self) -> bool:
        """Whether all of the request is written."""
        return self._is_sent

    @property
    def has_request(self) -> bool:
        """Whether all of the request has left for the upstream."""
        return self._is_sent and self._transport is not None and not self._transport.get_write_buffer_size()

    def begin(self, taker: Taker, data: bytes, *, is_bodiless: bool) -> None:
        """Send a request, or its beginning; `is_bodiless`: its response has no body, whatever it says."""
        self._taker, self._is_bodiless = taker, is_bodiless
        self._flow, self._interim_count, self._is_sent = None, 0, False
        self.write(data)

    def write(self, data: bytes) -> None:
        """Send more of it."""
        if self._transport is not None:
            self._transport.write(data)

    def finish(self) -> None:
        """The request is out; only then may the connection serve another."""
        self._is_sent = True

    def pause(self) -> None:
        """Read no more for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def leave(self) -> None:
        """Give the response up: nobody takes it any more, and the connection is of no use to anybody."""
        self._taker = None
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_MOST_UNSENT_BYTES)

    def pause_writing(self) -> None:
        """Called by the loop: the upstream does not read."""
        if self._taker is not None:
            self._taker.hold_request()

    def resume_writing(self) -> None:
        """Called by the loop."""
        if self._taker is not None:
            self._taker.resume_request()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        taker = self._taker
        if taker is None:
            self.abort()  # nobody has asked for this
            return
        try:
            if self._flow is None:
                data = self._read_head(taker, data)
            if self._taker is not None and self._flow is not None:
                self._pass(taker, self._flow, data=data)
            taker.flush()
        except Malformed as fault:
            self._taker = None
            self.abort()
            taker.take_loss(fault.detail)

    def eof_received(self) -> None:
        """Called by the loop: an endless body ends so, any other is cut."""
        if isinstance(self._flow, EndlessFlow):
            self._is_last = True
            self._end(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self._home.mourn(self)
        taker, self._taker = self._taker, None
        if taker is not None:
            taker.take_loss(str(exc) if exc else "the upstream closed the connection")

    def _read_head(self, taker: Taker, data: bytes) -> bytes:
        """Read heads until the final one; what stands behind it. Raises: Malformed."""
        data = self._buffer + data if self._buffer else data
        while self._flow is None:
            known = self._known
            if known is None or not data.startswith(known.raw):
                end = data.find(_END, 0, _MOST_HEAD_BYTES)
                if end < 0:
                    self._check_begun(data)
                    self._buffer = data
                    return b""
                known = read_response(data[: end + len(_END)])
            data = data[len(known.raw) :]
            if known.is_interim:
                self._take_interim(taker, known)
                continue
            self._known = known if known.status != SWITCHING else None
            is_tunnel = known.status == SWITCHING
            self._flow = EndlessFlow() if is_tunnel else known.flow(is_bodiless=self._is_bodiless)
            self._is_last = known.is_last or is_tunnel
            taker.take_head(known)
        self._buffer = b""
        return data

    def _take_interim(self, taker: Taker, head: ResponseHead) -> None:
        self._interim_count += 1
        if self._interim_count > _MOST_INTERIM:
            raise Malformed("the upstream never comes to its answer", status=502)
        taker.take_interim(head)

    def _check_begun(self, data: bytes) -> None:
        is_broken = len(data) >= _MOST_HEAD_BYTES or data.count(b"\n") != data.count(b"\r\n")
        if is_broken or not _VERSION.startswith(data[: len(_VERSION)]):
            raise Malformed("the upstream's answer is no HTTP/1.1", status=502)

    def _pass(self, taker: Taker, flow: Flow, *, data: bytes) -> None:
        rest = b""
        if not flow.is_done and data:
            data, rest = flow.take(data)
        elif data:
            data, rest = b"", data
        if data:
            taker.take_piece(data)
        if flow.is_done and self._taker is not None:
            if rest:
                self._is_last = True  # more than was announced: nothing behind it can be trusted
            self._end(flow.trailers)

    def _end(self, trailers: bytes) -> None:
        taker, self._taker = self._taker, None
        self.is_used = True
        if self._is_last or not self._is_sent or not self.is_open:
            self.abort()
        else:
            self._home.welcome(self)
        if taker is not None:
            taker.take_end(trailers)
