"""One request on its way: read, decided, sent upstream, its response passed back, settled.

The story is told in `answer`, which is run as a turn of its connection; bytes pass in between by callbacks, as they
come. Nothing waits in full: who does not read is not read for, on either side, all the way to the other end.

    deciding    nothing has gone upstream; whoever goes now is charged only what was consumed before
    sending     the request goes upstream as its body comes, and as far as the upstream takes it
    relaying    the response comes; each part that is measured passes only once the hold covers it
    over        it ended in one way, and is charged by that

A request that a kept connection was closed for is sent again on a fresh one, if none of its response came, its
method may be repeated and its body is still at hand.

Source: RFC 9110, sections 9.2.2 (idempotent methods), 10.1.1 (Expect) and 15.6.3 (502).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec

from billing_core.errors import Failure, InvalidInput, InvariantBroken, NotFound, TooLarge, Unavailable
from gateway.admission.caller import Caller, caller_at_hand, caller_of_key
from gateway.admission.deadline import Deadline, deadline_since
from gateway.admission.decision import Decision
from gateway.admission.order import Charge, Order
from gateway.admission.reason import RULES, Reason
from gateway.edge.authorize.answer import upstream_headers
from gateway.edge.lane.head import CHUNKED, Malformed
from gateway.edge.lane.turn import Turn
from gateway.edge.message import Answer, Outcome, Prepared
from gateway.edge.meter.cover import Cover
from gateway.edge.meter.usage import with_usage
from gateway.edge.proxy.field import added_lines, trailing_lines
from gateway.edge.proxy.pricing import read_document
from gateway.edge.proxy.relay import Relay
from gateway.edge.proxy.request import RequestHead
from gateway.edge.proxy.rule import HalfClose, Outage, RouteRule
from gateway.edge.proxy.settlement import (
    Ending,
    Settlement,
    body_of,
    charges_of,
    covered_charge,
    settlement_of,
)
from gateway.edge.proxy.table import ProxyRoute
from gateway.edge.reply import failed
from gateway.edge.scrape.trace import Trace
from gateway.edge.straight.passage import passed
from gateway.edge.upstream.connection import UpstreamConnection
from gateway.edge.upstream.flow import chunk_of, last_chunk
from gateway.edge.upstream.pool import Endpoint

if TYPE_CHECKING:
    from gateway.edge.proxy.connection import ClientConnection
    from gateway.edge.proxy.port import ProxyPort

_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
_TIMED_OUT: Final = 504
_BAD_GATEWAY: Final = 502
_BAD_METHOD: Final = 405


class ClientGone(Exception):  # noqa: N818 - what happened, and nobody is left to be told
    """The client went before its request was whole."""


class Exchange:
    """Made by a connection for each request."""

    __slots__ = ("_body", "_client", "_port", "_request", "_since_s", "_strips_usage", "_trace", "relay")

    def __init__(self, port: ProxyPort, client: ClientConnection, *, request: RequestHead, since_s: float) -> None:
        self._port = port
        self._client = client
        self._request = request
        self._since_s = since_s
        self._body: bytes | None = None
        self._strips_usage = False
        self._trace: Trace | None = None
        self.relay: Relay | None = None

    def begin(self, turn: Turn[Answer | Prepared]) -> None:
        """Begin; the turn ends with our own answer, or with none where the upstream's was passed back."""
        if self._port.door.is_traced:
            turn.run(self._traced())
        elif not self._is_straight(turn):
            turn.run(self._told())

    def _is_straight(self, turn: Turn[Answer | Prepared]) -> bool:
        """Begin to decide without a coroutine; whether that could be done."""
        request, route = self._request, self._request.route
        if route is None or route.straight is None or route.pool.is_full:
            return False
        return request.length <= route.rule.max_body_bytes and self._port.passage.begin(
            (route.rule.name, request.secret),
            route.straight,
            budget_ms=self._budget_ms(route),
            since_s=self._since_s,
            tell=lambda outcome: turn.run(self._told(outcome)),
        )

    async def _traced(self) -> Answer | Prepared | None:
        request = self._request
        rule = request.route.rule if request.route is not None else None
        name = f"{request.method} {rule.path}" if rule is not None else request.method
        trace = self._trace = self._port.door.trace(name, request.fields.get("traceparent", ""))
        answer = await self._told()
        if trace is not None:
            told: dict[str, str | int] = {"http.request.method": request.method}
            if rule is not None:
                told |= {"http.route": rule.path, "tallygate.route": rule.name}
            if self.relay is not None:
                told["tallygate.ending"] = self.relay.evidence.ending.value
            status = answer.status if answer is not None else self.relay and self.relay.evidence.status
            trace.end(told | ({"http.response.status_code": status} if status else {}))
        return answer

    async def _told(self, outcome: Outcome | None = None) -> Answer | Prepared | None:
        """`outcome` of the decision, where there was a straight way to it."""
        route, port = self._request.route, self._port
        try:
            try:
                if outcome is None or route is None:
                    return await self._passed(self._checked(route))
                return await self._ended(route, outcome)
            except (Failure, Malformed, ClientGone):
                raise
            except Exception as error:  # the same law as at the door
                raise InvariantBroken(f"{type(error).__name__}: {error}") from error
        except InvariantBroken as broken:
            return port.door.fault("a proxied request", broken)
        except Failure as failure:
            port.tally.count("refused" if failure.status < 500 else "failed")
            status = _BAD_METHOD if route is None and self._request.is_known_path else 0
            return failed(failure, status=status)
        except Malformed as fault:
            return failed(InvalidInput(fault.detail, field="body"), status=fault.status)
        except ClientGone:
            return None

    def _checked(self, route: ProxyRoute | None) -> ProxyRoute:
        if route is not None:
            return route
        if self._request.is_known_path:
            raise InvalidInput("no route has this method", field="method")
        raise NotFound("no such path", field="path")

    async def _ended(self, route: ProxyRoute, outcome: Outcome) -> Answer | Prepared | None:
        """What follows from a decision on the straight way. Raises: Failure, ClientGone."""
        lines = passed(outcome)
        if isinstance(outcome, Failure):
            self._bear(route, _not_ready(outcome))
            lines = b"", b""
        elif lines is None:
            self._port.tally.count("refused")
            return outcome
        return await self._relayed(route, told=lines[0], extra=lines[1])

    async def _passed(self, route: ProxyRoute) -> Answer | None:
        """Decide, pass on, settle. Raises: Failure, ClientGone."""
        request, rule, client = self._request, route.rule, self._client
        document: object = None
        if request.length > rule.max_body_bytes:
            raise TooLarge(f"the body is larger than {rule.max_body_bytes} bytes", field="body")
        if route.reads_body:
            body = await client.whole_body(rule.max_read_bytes)
            document = read_document(body) if rule.is_priced_by_body else None
            asking = with_usage(body) if rule.include_usage else None
            self._strips_usage = asking is not None
            self._body, self._since_s = body if asking is None else asking, time.perf_counter()
        route.pool.check_room()
        if not rule.charges:
            return await self._relayed(route)
        deadline = deadline_since(self._since_s, self._budget_ms(route))
        caller = await self._caller(deadline)
        order = route.pricing.order(request.fields, document)
        decision = await self._decided(route, caller, order=order, deadline=deadline)
        if decision is None:
            return await self._relayed(route)
        if caller is None or not decision.allowed:
            self._port.tally.count("refused")
            return self._port.notices.refused(decision, caller.customer_id if caller is not None else "")
        told = added_lines(self._port.notices.headers(decision))
        extra = added_lines(upstream_headers(decision, caller.customer_id))
        held = _Held(decision=decision, caller=caller, charges=order.charges) if decision.hold is not None else None
        return await self._relayed(route, told=told, extra=extra, held=held)

    def _budget_ms(self, route: ProxyRoute) -> int:
        return route.rule.deadline_ms or self._port.settings.decision_deadline_ms

    def _bear(self, route: ProxyRoute, failure: Failure) -> None:
        """Let it pass unpaid where the route says so. Raises: Failure."""
        if not isinstance(failure, Unavailable) or route.rule.on_outage is not Outage.PASS:
            raise failure
        self._port.tally.count("unpaid")

    async def _caller(self, deadline: Deadline) -> Caller | None:
        secret, directory = self._request.secret, self._port.directory
        caller = caller_at_hand(directory, secret) if secret else None
        return (
            caller
            if caller is not None or not secret
            else await caller_of_key(directory, secret, deadline=deadline)
        )

    async def _decided(
        self, route: ProxyRoute, caller: Caller | None, *, order: Order, deadline: Deadline
    ) -> Decision | None:
        """The decision; None where none can be made and the route lets such requests pass. Raises: Failure."""
        step = self._trace.step("decision") if self._trace is not None else None
        try:
            decision = await self._port.gate.decide(caller, order, deadline=deadline)
            if decision.reason is Reason.UNAVAILABLE:
                raise Unavailable(RULES[Reason.UNAVAILABLE].title)  # noqa: TRY301 - as if Redis had not answered
        except NotFound as failure:
            raise _not_ready(failure) from None
        except Unavailable as failure:
            self._bear(route, failure)
            return None
        finally:
            if step is not None:
                step.end()
        return decision

    async def _relayed(
        self, route: ProxyRoute, *, told: bytes = b"", extra: bytes = b"", held: _Held | None = None
    ) -> Answer | None:
        """Pass the request on and its response back; then the hold ends. Raises: Failure, ClientGone."""
        relay = self.relay = Relay(self._client, self._request, route=route)
        relay.told, relay.strips_usage = told, self._strips_usage
        self._port.exchanges.add(self)
        if held is not None:
            relay.cover = self._cover(route, held.hold_id, charges=held.charges)
        try:
            ending = await self._sent(route, relay, extra=extra)
            if held is not None:
                await self._port.settlements.settle(_settlement(relay, held))
        except ClientGone:
            if held is not None:
                await self._port.settlements.settle(settlement_of(held.hold_id, None, place=held.place))
            raise
        finally:
            self._port.exchanges.discard(self)
        self._port.tally.count(ending.value)
        return None if relay.is_begun or self._client.is_gone else self._unanswered(relay)

    def look(self, now_s: float) -> None:
        """Called now and then: end what has lasted for too long, and keep the hold while it has not."""
        relay = self.relay
        if relay is not None:
            relay.look(now_s)
            if relay.cover is not None and not relay.ended.done():
                relay.cover.keep(now_s)

    def abandon(self) -> None:
        """The process ends: what was delivered is all there will be."""
        if self.relay is not None:
            self.relay.abandon()

    def _cover(self, route: ProxyRoute, hold_id: str, *, charges: tuple[Charge, ...]) -> Cover:
        rule, port = route.rule, self._port
        cover = Cover(
            port.settlements.holds, hold_id, ttl_ms=rule.ttl_ms, deadline_ms=port.settings.bulk_deadline_ms
        )
        place = covered_charge(rule)
        if place is not None:
            outlasts = rule.on_outage is Outage.PASS
            cover.measure(charges[place], extend_units=rule.extend_units, outlasts_outage=outlasts)
        return cover

    async def _sent(self, route: ProxyRoute, relay: Relay, *, extra: bytes) -> Ending:
        """Send the request, a second time where that is harmless, and wait for the end. Raises: ClientGone."""
        is_again = False
        if self._client.is_gone:
            raise ClientGone
        while True:
            try:
                endpoint = route.pool.choose()
                connection = None if is_again else endpoint.idle(time.perf_counter())
                if connection is None:
                    connection = await asyncio.create_task(endpoint.connect())
            except Unavailable as failure:
                relay.why = failure.detail
                return Ending.UPSTREAM_LOST
            if self._client.is_gone:
                endpoint.welcome(connection)
                raise ClientGone
            was_used = connection.is_used
            self._send(connection, endpoint, relay=relay, extra=extra)
            ending = await relay.ended
            if ending is not Ending.UPSTREAM_LOST or relay.is_begun:
                return ending
            if not was_used:
                endpoint.blame()
            if is_again or not was_used or not self._may_repeat:
                return ending
            is_again = True
            relay.begin_again()

    def _send(self, connection: UpstreamConnection, endpoint: Endpoint, *, relay: Relay, extra: bytes) -> None:
        request, client = self._request, self._client
        if self._body is None:
            self._body = client.body_at_hand()
        body = self._body
        host = endpoint.host_line if request.needs_host else b""
        if body is None:
            framing, body = request.framing + (b"Expect: 100-continue\r\n" if request.expects else b""), b""
        else:
            framing = b"Content-Length: %d\r\n" % len(body) if body or request.framing else b""
        relay.upstream = connection
        start = request.start if self._trace is None else self._trace.passed_on(request.start)
        data = b"%b%b%b%b\r\n%b" % (start, host, extra, framing, body)
        connection.begin(relay, data, is_bodiless=request.is_head)
        if self._body is not None:
            connection.finish()
        else:
            client.pump()

    def take_body(self, piece: bytes) -> None:
        """Called by the client's connection: more of the body."""
        upstream = self.relay.upstream if self.relay is not None else None
        if upstream is not None and piece:
            upstream.write(chunk_of(piece) if self._request.length == CHUNKED else piece)

    def end_body(self, trailers: bytes) -> None:
        """Called by the client's connection: that was all of it."""
        upstream = self.relay.upstream if self.relay is not None else None
        if upstream is not None:
            if self._request.length == CHUNKED:
                upstream.write(last_chunk(trailing_lines(trailers)))
            upstream.finish()

    @property
    def outlives_half_close(self) -> bool:
        """Whether the client is answered although it has closed its side."""
        route, relay = self._request.route, self.relay
        if route is None or (relay is not None and relay.is_tunnel):
            return False
        is_announced = self._request.is_last and not (relay is not None and relay.is_begun)
        told = route.rule.half_close
        return told is HalfClose.ALWAYS or (told is HalfClose.ANNOUNCED and is_announced)

    @property
    def _may_repeat(self) -> bool:
        return self._request.method in _REPEATABLE and self._body is not None and not self._client.is_gone

    def _unanswered(self, relay: Relay) -> Answer:
        if relay.refusal is not None:
            return relay.refusal
        status = _TIMED_OUT if relay.is_late else _BAD_GATEWAY
        return failed(Unavailable(relay.why or "the upstream did not answer"), status=status)


class _Held(msgspec.Struct, frozen=True, kw_only=True):
    """What was set aside for a request, and for whom."""

    decision: Decision
    caller: Caller
    charges: tuple[Charge, ...]

    @property
    def hold_id(self) -> str:
        """Of the hold."""
        return self.decision.hold.hold_id if self.decision.hold is not None else ""

    @property
    def place(self) -> str:
        """Where the customer takes turns, for this as for all else."""
        return self.caller.keys.snapshot


def _settlement(relay: Relay, held: _Held) -> Settlement:
    """How the hold ends."""
    evidence, rule, decision = relay.seen(), relay.rule, held.decision
    cost = charges_of(rule, _as_held(held.charges, relay.cover, rule=rule), evidence=evidence)
    if cost is None or evidence.ending is Ending.WHOLE:
        return settlement_of(held.hold_id, cost, place=held.place)
    event_id = (
        f"{decision.decision_id}.1" if decision.would else decision.decision_id
    )  # what would be is told already
    body = body_of(rule, held.caller, event_id=event_id, charges=cost, evidence=evidence)
    return settlement_of(held.hold_id, cost, body=body, place=held.place)


def _not_ready(failure: Failure) -> Failure:
    return Unavailable("the customer of this key is not ready yet") if isinstance(failure, NotFound) else failure


def _as_held(charges: tuple[Charge, ...], cover: Cover | None, *, rule: RouteRule) -> tuple[Charge, ...]:
    """The charges, with what was set aside later."""
    place = covered_charge(rule)
    if place is None or cover is None or not cover.more:
        return charges
    extended = msgspec.structs.replace(charges[place], quantity=charges[place].quantity + cover.more)
    return (*charges[:place], extended, *charges[place + 1 :])
