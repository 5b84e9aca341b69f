"""One client's connection: a request at a time, its body handed on as it is taken, its answer, the next.

    reading     bytes become a head; the body behind it waits until somebody takes it, and the socket with it
    tunnelling  the protocol was switched: what comes is handed on as it is
    lingering   the last answer is out; what still comes is dropped, so that the client can read that answer

What is pipelined waits in its socket until its turn comes. A client that closes its side while it is owed an answer
has hung up: it is how a client that gave up looks, and nobody pays for work that nobody wants. Only one that said
that this request is its last, and closes before the response has begun, has said all it has to say and is answered.

Source: RFC 9112, section 9.6 (tear-down).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, cast

from billing_core.errors import InvalidInput, TooLarge
from gateway.edge.lane.head import CHUNKED, Malformed
from gateway.edge.lane.turn import Turn
from gateway.edge.message import Answer, Prepared
from gateway.edge.proxy.exchange import ClientGone, Exchange
from gateway.edge.proxy.request import RequestHead, read_request
from gateway.edge.reply import failed
from gateway.edge.upstream.flow import ChunkedFlow, Flow, SizedFlow

if TYPE_CHECKING:
    from gateway.edge.proxy.port import ProxyPort

_END: Final = b"\r\n\r\n"
_MOST_UNREAD_BYTES: Final = 65_536
_LONGEST_KEPT: Final = 4_096
_REQUEST_TIMEOUT: Final = 408


class ClientConnection(asyncio.Protocol):
    """Made by a port for each connection that comes."""

    __slots__ = (
        "_buffer", "_collected", "_exchange", "_flow", "_is_ended", "_is_held", "_is_lingering", "_is_paused",
        "_is_pumping", "_is_reading", "_is_tunnel", "_known", "_most", "_peer", "_port", "_request", "_since_s",
        "_taken", "_transport", "_turn", "_whole", "is_choked", "tick",
    )  # fmt: skip

    def __init__(self, port: ProxyPort) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._known: RequestHead | None = None
        self._request: RequestHead | None = None
        self._exchange: Exchange | None = None
        self._turn: Turn[Answer | Prepared] | None = None
        self._flow: Flow | None = None
        self._collected: list[bytes] = []
        self._whole: asyncio.Future[bytes] | None = None
        self._most = self._taken = 0
        self._peer = ""
        self._since_s = 0.0
        self._is_paused = self._is_held = self._is_pumping = self._is_reading = False
        self._is_lingering = self._is_tunnel = self._is_ended = False
        self.is_choked = False
        self.tick = port.tick
        """When it was last heard of, or answered; the port counts the ticks."""

    @property
    def is_gone(self) -> bool:
        """Whether nobody is left to be answered."""
        return self._transport is None or self._transport.is_closing()

    @property
    def is_last(self) -> bool:
        """Whether this answer is the connection's last; it is, where the request's body is not all here."""
        request, flow = self._request, self._flow
        is_cut = (flow is not None and not flow.is_done) or (self._is_ended and not self._buffer)
        return is_cut or self._port.is_stopping or (request is not None and request.is_last)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_MOST_UNREAD_BYTES)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else "unknown"
        self._port.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop says it
        """Called by the loop."""
        self._transport = None
        self._port.connections.discard(self)
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(ClientGone())
        relay = self._exchange.relay if self._exchange is not None else None
        if relay is not None:
            relay.client_lost()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        transport = self._transport
        if self._is_lingering or transport is None:
            return
        exchange = self._exchange
        if self._whole is None and not (exchange is None and self._buffer):
            self.tick = self._port.tick  # a head, and a body that is read whole, must come in one patience
        if exchange is None:
            self._since_s = self._port.slumber.since_s(transport)
            self._buffer = self._buffer + data if self._buffer else data
            self._read()
        elif self._is_tunnel and exchange.relay is not None:
            exchange.relay.tunnel_up(data)
        else:
            self._buffer += data
            if self._is_pumping or self._whole is not None:
                self._drain()
            self._regulate()

    def eof_received(self) -> bool:
        """Called by the loop: nothing more comes. Whether the connection stays for what is owed."""
        if self._exchange is None or not self._exchange.outlives_half_close:
            return False
        self._is_ended = True
        is_taken = (self._is_pumping and not self._is_held) or self._whole is not None
        return not is_taken or self._flow is None or self._flow.is_done

    def pause_writing(self) -> None:
        """Called by the loop: the client does not read its answer."""
        self.is_choked = True
        relay = self._exchange.relay if self._exchange is not None else None
        if relay is not None:
            relay.client_choked()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.is_choked = False
        relay = self._exchange.relay if self._exchange is not None else None
        if relay is not None:
            relay.client_ready()

    def write(self, data: bytes) -> None:
        """Send something of an answer."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def cut(self) -> None:
        """What was sent is all there is: the connection ends with it."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def begin_tunnel(self) -> None:
        """From here on bytes are handed on as they come."""
        self._is_tunnel = True
        data, self._buffer = self._buffer, b""
        if data and self._exchange is not None and self._exchange.relay is not None:
            self._exchange.relay.tunnel_up(data)
        self._regulate()

    def body_at_hand(self) -> bytes | None:
        """The body, if all of it is here; else it stays where it is."""
        request, flow = self._request, self._flow
        if flow is None or request is None:
            return b""
        if request.length == CHUNKED or len(self._buffer) < request.length:
            return None
        body, self._buffer = flow.take(self._buffer)
        return body

    async def whole_body(self, most_bytes: int) -> bytes:
        """The body, once all of it is here. Raises: TooLarge, Malformed, ClientGone."""
        request = self._request
        if self._flow is None or request is None:
            return b""
        if request.length > most_bytes:
            raise TooLarge(f"the body is larger than {most_bytes} bytes", field="body")
        self._most, self._collected = most_bytes, []
        self._whole = asyncio.get_running_loop().create_future()
        if request.expects:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._drain()
        try:
            return await self._whole
        finally:
            self._whole = None

    def pump(self) -> None:
        """Hand the body on as it comes."""
        self._is_pumping = True
        self._drain()
        self._regulate()

    def hold_body(self) -> None:
        """Whoever takes the body can take no more for now."""
        self._is_held = True
        self._regulate()

    def resume_body(self) -> None:
        """It can again."""
        self._is_held = False
        if self._is_pumping:
            self._drain()
        self._regulate()

    def look(self, tick: int) -> None:
        """Called now and then: close what has been silent, or slow, for too long."""
        transport, age, patience = self._transport, tick - self.tick, self._port.patience
        if transport is None:
            return
        exchange = self._exchange
        if self._is_lingering:
            if age > patience.slow_ticks:
                transport.abort()
        elif exchange is not None:
            self._look_at(age)
        elif not self._buffer:
            if age > patience.idle_ticks:
                transport.close()
        elif age > patience.slow_ticks:
            self._refuse(failed(InvalidInput("did not come in time", field="request"), status=_REQUEST_TIMEOUT))

    def end(self, before_tick: int) -> None:
        """Close if nothing is being asked, and nothing was since that tick."""
        if self._transport is not None and self._exchange is None and self.tick <= before_tick:
            self._transport.close()

    def _look_at(self, age: int) -> None:
        """A body that does not go on coming, while nobody but the client keeps it."""
        is_awaited = self._flow is not None and not self._flow.is_done and not self._is_held
        if not is_awaited or age <= self._port.patience.slow_ticks:
            return
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(Malformed("the body did not come in time", status=_REQUEST_TIMEOUT))
        elif self._is_pumping:
            self._break(Malformed("the body did not come in time", status=_REQUEST_TIMEOUT))

    def _read(self) -> None:
        """Begin what is whole, one after the other; a turn that ends at once comes back here by a loop."""
        if self._is_reading:
            return
        self._is_reading = True
        try:
            while (
                self._exchange is None and self._buffer and not self._is_lingering and self._transport is not None
            ):
                if not self._begin_next():
                    return
        finally:
            self._is_reading = False

    def _begin_next(self) -> bool:
        """Begin one request; whether there was one."""
        buffer, known = self._buffer, self._known
        if known is None or not buffer.startswith(known.raw):
            try:
                known = self._head(buffer)
            except Malformed as fault:
                self._refuse(failed(InvalidInput(fault.detail, field="request"), status=fault.status))
                return False
            if known is None:
                return False
            self._known = known if len(known.raw) <= _LONGEST_KEPT else None
        self._buffer = self._buffer[len(known.raw) :]
        self._request = known
        self._flow = (
            None if not known.length else ChunkedFlow() if known.length == CHUNKED else SizedFlow(known.length)
        )
        self._is_pumping = self._is_held = False
        self._taken = 0
        exchange = self._exchange = Exchange(self._port, self, request=known, since_s=self._since_s)
        turn: Turn[Answer | Prepared] = Turn(tell=self._told, is_last=known.is_last)
        self._turn = turn
        exchange.begin(turn)
        return True

    def _head(self, buffer: bytes) -> RequestHead | None:
        """The head that stands first; None while it is not whole. Raises: Malformed."""
        if buffer.startswith(b"\r\n"):
            buffer = self._buffer = buffer[2:]  # one empty line may stand before a request
        most = self._port.max_head_bytes
        end = buffer.find(_END, 0, most)
        if end >= 0:
            return read_request(buffer[: end + len(_END)], self._port.table, peer=self._peer)
        if len(buffer) >= most:
            raise Malformed(f"the head is larger than {most} bytes", status=431)
        if buffer.count(b"\n") != buffer.count(b"\r\n"):
            raise Malformed("this is no HTTP/1.1 request")
        return None

    def _drain(self) -> None:
        """Hand on what has come of the body."""
        flow, exchange = self._flow, self._exchange
        if flow is None or flow.is_done or exchange is None or (self._is_held and self._whole is None):
            return
        try:
            piece, self._buffer = flow.take(self._buffer)
        except Malformed as fault:
            self._break(fault)
            return
        self._taken += len(piece)
        if self._whole is not None:
            self._collect(piece, flow)
            return
        rule = self._request.route.rule if self._request is not None and self._request.route is not None else None
        if rule is not None and self._taken > rule.max_body_bytes:
            self._break(Malformed(f"the body is larger than {rule.max_body_bytes} bytes", status=413))
            return
        exchange.take_body(piece)
        if flow.is_done:
            exchange.end_body(flow.trailers)
        elif self._is_ended:
            self.abort()

    def _collect(self, piece: bytes, flow: Flow) -> None:
        whole = self._whole
        if whole is None or whole.done():
            return
        self._collected.append(piece)
        if self._taken > self._most:
            whole.set_exception(TooLarge(f"the body is larger than {self._most} bytes", field="body"))
        elif flow.is_done:
            whole.set_result(b"".join(self._collected))
        elif self._is_ended:
            self.abort()

    def _break(self, fault: Malformed) -> None:
        """A body that cannot be read: nothing behind it can either."""
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(fault)
            return
        relay = self._exchange.relay if self._exchange is not None else None
        if relay is None or relay.is_begun:
            self.abort()
        else:
            relay.give_up(failed(InvalidInput(fault.detail, field="body"), status=fault.status))

    def _told(self) -> None:
        """The exchange is over: tell what is ours to tell, and go on with the next."""
        turn, exchange, request, transport = self._turn, self._exchange, self._request, self._transport
        self._skip_body()
        is_last = self.is_last
        self._exchange = self._turn = None
        if turn is None or transport is None or transport.is_closing():
            return
        answer = turn.answer
        if answer is not None:
            data = self._port.written(answer, is_last=is_last)
            transport.write(
                data[: data.index(_END) + len(_END)] if request is not None and request.is_head else data
            )
        elif exchange is None or exchange.relay is None or not exchange.relay.is_begun:
            transport.abort()
            return
        if is_last:
            self._linger(transport)
            return
        self.tick = self._port.tick
        self._flow = None
        self._regulate()
        if self._buffer:
            self._since_s = self._port.slumber.since_s(transport)
            self._read()
        if self._is_ended:
            self.end(self.tick)

    def _skip_body(self) -> None:
        """Drop what is here of a body that nobody took: where that is all of it, the connection goes on."""
        if self._flow is not None and not self._flow.is_done and not self._is_tunnel:
            with contextlib.suppress(Malformed):
                _, self._buffer = self._flow.take(self._buffer)

    def _refuse(self, answer: Answer) -> None:
        """Answer what cannot be understood, and read no more."""
        transport = self._transport
        if transport is not None:
            transport.write(self._port.written(answer, is_last=True))
            self._linger(transport)

    def _linger(self, transport: asyncio.Transport) -> None:
        self._is_lingering, self._buffer = True, b""
        self.tick = self._port.tick
        self._regulate()
        if self._is_ended:
            transport.close()
        elif transport.can_write_eof():
            transport.write_eof()

    def _regulate(self) -> None:
        """Read from the socket only what somebody takes."""
        is_full = len(self._buffer) > _MOST_UNREAD_BYTES or (self._is_held and not self._is_lingering)
        transport = self._transport
        if transport is None or transport.is_closing() or is_full == self._is_paused:
            return
        self._is_paused = is_full
        if is_full:
            transport.pause_reading()
        else:
            transport.resume_reading()
