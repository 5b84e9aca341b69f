"""The response's way back: framed anew, measured as it passes, and ended in exactly one way.

What comes in one read leaves in one write. A part that is measured waits until the hold covers it, and the upstream
is not read meanwhile; where it cannot be covered, the caller gets an error event and a proper end, and the upstream
is hung up on.

Where the client has gone, `drain` reads on for a stated time, so that the usage frame at the end is still seen;
else the upstream is hung up on at once.

Source: RFC 9112, sections 6.3 and 7; RFC 9110, sections 9.3.2 (HEAD), 15.3.5 and 15.4.5 (no body).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.edge.lane.head import Malformed
from gateway.edge.message import Answer
from gateway.edge.meter.cover import Cover
from gateway.edge.meter.measure import Measure, Piece, StreamMeasure, measure_of
from gateway.edge.meter.websocket import Tunnel, close_frame
from gateway.edge.proxy.field import trailing_lines
from gateway.edge.proxy.request import RequestHead
from gateway.edge.proxy.rule import Loss, RouteRule
from gateway.edge.proxy.settlement import Ending, Evidence, passed_units
from gateway.edge.proxy.table import ProxyRoute
from gateway.edge.upstream.connection import UpstreamConnection
from gateway.edge.upstream.flow import chunk_of, last_chunk
from gateway.edge.upstream.head import NO_BODY, SWITCHING, ResponseHead

if TYPE_CHECKING:
    from gateway.edge.proxy.connection import ClientConnection

_CLOSE: Final = b"Connection: close\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_POLICY_VIOLATION: Final = 1008


class Relay:
    """Takes one response. `ended` is done once it is over; `upstream` is set by whoever sends the request."""

    __slots__ = (
        "_begun_s", "_client", "_is_chunked", "_is_complete", "_is_draining", "_measure", "_out", "_pieces",
        "_request", "_response", "_route", "_seeking", "_trailers", "_tunnel", "cover", "ended", "evidence",
        "heard_s", "is_late", "refusal", "strips_usage", "told", "upstream", "why",
    )  # fmt: skip

    def __init__(self, client: ClientConnection, request: RequestHead, *, route: ProxyRoute) -> None:
        self._client: ClientConnection | None = client
        self._request = request
        self._route = route
        self._response: ResponseHead | None = None
        self._measure: Measure | None = None
        self._pieces: deque[Piece] = deque()
        self._out: list[bytes] = []
        self._tunnel: Tunnel | None = None
        self._trailers = b""
        self._is_chunked = self._is_complete = self._is_draining = False
        self._seeking: asyncio.Task[None] | None = None
        self._begun_s = self.heard_s = time.perf_counter()
        self.told = b""
        self.strips_usage = False
        self.cover: Cover | None = None
        self.upstream: UpstreamConnection | None = None
        self.evidence = Evidence()
        self.why = ""
        self.is_late = False
        self.refusal: Answer | None = None
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    @property
    def rule(self) -> RouteRule:
        """The route's."""
        return self._route.rule

    @property
    def is_begun(self) -> bool:
        """Whether a response has come."""
        return self._response is not None

    @property
    def is_tunnel(self) -> bool:
        """Whether the connection speaks another protocol now."""
        return self._tunnel is not None

    def take_interim(self, head: ResponseHead) -> None:
        """Called by the upstream's connection: only whoever waits to send a body is told."""
        if head.status == 100 and self._request.expects and self._client is not None:
            self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def take_head(self, head: ResponseHead) -> None:
        """Called by the upstream's connection. Raises: Malformed."""
        request, route, evidence = self._request, self._route, self.evidence
        self.heard_s = time.perf_counter()
        if head.status == SWITCHING:
            self._begin_tunnel(head)
            return
        self._response = head
        evidence.status, evidence.headers = head.status, head.fields
        is_bodiless = request.is_head or head.status in NO_BODY
        if not is_bodiless and (route.is_settled_by_body or self.strips_usage):
            self._measure = measure_of(route.rule, head, strips_usage=self.strips_usage)
        is_stream = isinstance(self._measure, StreamMeasure)
        evidence.counted_tokens = 0 if is_stream else None
        is_recut = head.length < 0 or is_stream
        self._is_chunked = is_recut and not is_bodiless and not request.is_old
        self._out += (route.scribe.start(head, is_recut=is_recut, is_decoded=is_stream), self.told)
        if self._is_chunked:
            self._out.append(_CHUNKED)
        client = self._client
        self._out.append(_CLOSE + b"\r\n" if client is None or client.is_last else b"\r\n")

    def take_piece(self, piece: bytes) -> None:
        """Called by the upstream's connection. Raises: Malformed."""
        if self._measure is not None:
            self.heard_s = time.perf_counter()
            self._pieces.extend(self._measure.take(piece))
            self._pass()
        elif self._tunnel is not None:
            self._pass_tunnel(piece, b"")
        else:
            self._put(piece)

    def take_end(self, trailers: bytes) -> None:
        """Called by the upstream's connection."""
        if self._measure is not None:
            try:
                self._pieces.extend(self._measure.end())
            except Malformed as fault:
                self.take_loss(fault.detail)
                return
        self._trailers, self._is_complete = trailers, True
        self._pass()

    def take_loss(self, why: str) -> None:
        """Called by the upstream's connection: nothing more comes, and something is missing."""
        if self.ended.done():
            return
        self.why = why
        if self._client is not None and self._response is not None:
            if isinstance(self._measure, StreamMeasure):
                self._tell_error("upstream_lost", "the upstream has gone away")
            self.flush()
            self._client.cut()
        self._end(Ending.CLIENT_LOST if self._client is None else Ending.UPSTREAM_LOST)

    def hold_request(self) -> None:
        """Called by the upstream's connection: it takes no more of the request for now."""
        if self._client is not None:
            self._client.hold_body()

    def resume_request(self) -> None:
        """Called by the upstream's connection."""
        if self._client is not None:
            self._client.resume_body()

    def flush(self) -> None:
        """What has come of the response leaves in one write."""
        out, self._out = self._out, []
        if out and self._client is not None:
            self._client.write(b"".join(out))

    def client_choked(self) -> None:
        """The client does not read: nor do we."""
        if self.upstream is not None:
            self.upstream.pause()

    def client_ready(self) -> None:
        """The client reads again."""
        self.heard_s = time.perf_counter()
        if self.upstream is not None and self._seeking is None:
            self.upstream.resume()

    def client_lost(self) -> None:
        """The client has gone."""
        self._client = None
        self._out = []
        upstream = self.upstream
        if self.ended.done() or upstream is None:
            return
        self.heard_s = time.perf_counter()
        is_worth_it = not self.is_tunnel and (self.is_begun or upstream.is_sent)
        if self._route.rule.on_disconnect is Loss.DRAIN and is_worth_it:
            self._is_draining = True
            upstream.resume()
            self._pass()
            return
        self._leave()
        self._end(Ending.WHOLE if self.is_tunnel else Ending.CLIENT_LOST)

    def tunnel_up(self, data: bytes) -> None:
        """Bytes of the client, after the protocol was switched."""
        self._pass_tunnel(b"", data)

    def give_up(self, answer: Answer) -> None:
        """The request itself is broken, and no response has come: it is answered so."""
        self.refusal = answer
        self._leave()
        self._end(Ending.UPSTREAM_LOST)

    def abandon(self) -> None:
        """Hang up on the upstream, as if the client had gone."""
        if not self.ended.done():
            self._leave()
            self._end(Ending.CLIENT_LOST)

    def begin_again(self) -> None:
        """The request is sent once more, and nothing of its response has come."""
        self.why = ""
        self.heard_s = time.perf_counter()
        self.ended = asyncio.get_running_loop().create_future()

    def look(self, now_s: float) -> None:
        """Called now and then: end what has lasted for too long."""
        rule = self._route.rule
        if self.ended.done() or self._seeking is not None or self.upstream is None:
            return
        limit_ms = rule.silence_ms if self.is_begun else rule.response_ms
        limit_ms = rule.drain_ms if self._is_draining else limit_ms
        if self._tunnel is not None and self.cover is not None and self.cover.units is not None:
            used = passed_units(rule, self.seen())
            if used > self.cover.units:
                self._seek(used)
                return
        if (now_s - self.heard_s) * 1_000 <= limit_ms:
            return
        if self._client is not None and self._client.is_choked:
            self._client.abort()  # it is the client that is silent: it does not read
            return
        self._leave()
        if self._is_draining:
            self._end(Ending.CLIENT_LOST)
        elif self._tunnel is not None:
            self._finish()
        else:
            self.is_late = True
            self.take_loss("the upstream is silent")

    def seen(self) -> Evidence:
        """All that was seen, once it is over."""
        evidence, measure = self.evidence, self._measure
        if measure is not None:
            evidence.usage, evidence.found = measure.usage, measure.found()
        if self._tunnel is not None:
            evidence.messages_down, evidence.messages_up = self._tunnel.down.count, self._tunnel.up.count
        evidence.seconds = time.perf_counter() - self._begun_s
        return evidence

    def _pass(self) -> None:
        """Pass on what is covered."""
        while self._pieces and self._seeking is None and not self.ended.done():
            piece = self._pieces[0]
            units = self.cover.units if self.cover is not None else None
            if units is not None and piece.adds and (piece.tokens or 0) > units and not self._is_draining:
                self._seek(piece.tokens or 0)
                return
            self._pieces.popleft()
            if self._client is not None and not self._client.is_gone:
                self._put(piece.data)
                self.evidence.counted_tokens = piece.tokens
        if self._is_complete and not self._pieces and not self.ended.done():
            self._finish()

    def _put(self, data: bytes) -> None:
        if self._client is None or self._client.is_gone:
            return
        self.heard_s = time.perf_counter()
        self.evidence.delivered_bytes += len(data)
        self._out.append(chunk_of(data) if self._is_chunked else data)

    def _finish(self) -> None:
        if self._is_chunked:
            self._out.append(last_chunk(trailing_lines(self._trailers)))
        self.flush()
        if self._tunnel is not None and self._client is not None:
            self._client.cut()
        self._end(Ending.CLIENT_LOST if self._is_draining else Ending.WHOLE)

    def _end(self, ending: Ending) -> None:
        if not self.ended.done():
            self.evidence.ending = ending
            self.ended.set_result(ending)

    def _leave(self) -> None:
        """Hang up on the upstream, and keep in mind whether it had the request."""
        if self.upstream is not None:
            self.evidence.was_asked = self.upstream.has_request
            self.upstream.leave()

    def _seek(self, wanted: int) -> None:
        """Ask for cover, and read nothing meanwhile."""
        if self.upstream is not None:
            self.upstream.pause()
        self._seeking = asyncio.create_task(self._sought(wanted))

    async def _sought(self, wanted: int) -> None:
        refusal = await self.cover.extend(wanted) if self.cover is not None else ""
        self._seeking = None
        if self.ended.done():
            return
        if refusal:
            self._cut(refusal)
            return
        self.heard_s = time.perf_counter()
        if self.upstream is not None and (self._client is None or not self._client.is_choked):
            self.upstream.resume()
        if self._tunnel is not None:
            self.resume_request()
            self._pass_tunnel(b"", b"")
        self._pass()
        self.flush()

    def _cut(self, reason: str) -> None:
        """End the response here, in good order."""
        self._leave()
        client = self._client
        if client is not None and self._tunnel is not None:
            if self._tunnel.down.is_between_frames:
                client.write(close_frame(_POLICY_VIOLATION, reason))
            client.cut()
        elif client is not None:
            self._tell_error(reason, "the response ends here: what was set aside for it is used up")
            if self._is_chunked:
                self._out.append(last_chunk(b""))
            self.flush()
        self._end(Ending.CUT)

    def _tell_error(self, code: str, message: str) -> None:
        error = {"type": "error", "error": {"type": code, "code": code, "message": message}}
        event = b"event: error\ndata: %b\n\n" % msgspec.json.encode(error)
        self._out.append(chunk_of(event) if self._is_chunked else event)

    def _begin_tunnel(self, head: ResponseHead) -> None:
        client = self._client
        if not self._request.is_upgrade or head.fields.get("upgrade", "").lower() != "websocket":
            raise Malformed("the upstream switches to a protocol that nobody asked for", status=502)
        self._response = head
        self.evidence.status = head.status
        settled = [charge.settle.messages for charge in self.rule.charges if charge.settle is not None]
        self._tunnel = Tunnel(next(filter(None, settled), None))
        self._begun_s = time.perf_counter()
        start = self._route.scribe.start(head, is_recut=True, is_decoded=False)
        self._out += (start, self.told, b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        if client is not None:
            self.flush()
            client.begin_tunnel()

    def _pass_tunnel(self, down: bytes, up: bytes) -> None:
        """Pass on what is covered; where something is not, nobody is read until it is."""
        tunnel, upstream = self._tunnel, self.upstream
        if tunnel is None or upstream is None:
            return
        self.heard_s = time.perf_counter()
        units = self.cover.units if self.cover is not None else None
        passing = tunnel.pass_down(down, units)
        if passing:
            self._put(passing)
        passing = tunnel.pass_up(up, units)
        if passing:
            upstream.write(passing)
        if tunnel.is_blocked and self._seeking is None and not self.ended.done():
            self.flush()
            self.hold_request()
            self._seek(passed_units(self.rule, self.seen()) + 1)
