"""`/v1/authorize/forward` and `/v1/authorize/nginx`: the status code is the decision.

A proxy asks before it passes a request on. What is charged stands in our query, which the operator writes into the
proxy's configuration: `?feature=api.calls&quantity=1`, both required and the first of each counted, because Caddy
appends the client's own query to ours: a client that adds `&quantity=0` changes nothing. The credential is the
client's: `Authorization: Bearer`, or `X-Api-Key`.

    forward   Caddy, Traefik, HAProxy: 200 with an empty body, or the refusal's own status as problem+json, which
              these proxies pass on word for word
    nginx     `auth_request` knows 2xx, 401 and 403 and turns all else into 500: other refusals travel as 403. The
              real status stands in `X-Tallygate-Status`, the body is empty (nginx drops it, and its keep-alive
              with it)

A proxy may ask twice for one request (nginx does after an internal redirect), so the proxy's request id is the
idempotency key, together with the feature. It must be the proxy's own: a client that could choose it would pay
once and pass for ever. nginx makes one (`proxy_set_header X-Request-Id $request_id`); Caddy and Traefik make none,
so the header is read there only if the settings name it.

Shadow mode, in which refusals are recorded and not made, is the operator's to switch on: for all proxies in the
settings, or for a route by `?shadow=1&feature=...`. It counts in front of the feature only, where no client can
put it.

`Tallygate-Deadline-Ms` says by when the answer is needed, where the default of the settings is not what the proxy
wants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache, partial
from urllib.parse import unquote_plus

from billing_core.contract.keys import digest_of
from billing_core.errors import Failure, InvalidInput, InvariantBroken
from billing_core.values.ids import is_code
from billing_core.values.money import MAX_EXACT
from gateway.admission.caller import bearer_of, caller_at_hand, caller_of_key
from gateway.admission.deadline import deadline_since
from gateway.admission.decision import Decision
from gateway.admission.gate import Gate
from gateway.admission.order import Charge, Order
from gateway.edge.message import Answer, Request, Tell
from gateway.edge.ratelimit import rate_limit_headers
from gateway.edge.reply import failed, refused
from gateway.edge.straight.ask import Ask, Asks
from gateway.edge.straight.way import StraightWay
from gateway.edge.wire import MAX_DEADLINE_MS
from gateway.settings import GatewaySettings
from gateway.state.directory import Directory

STATUS_HEADER = "X-Tallygate-Status"
DEADLINE_HEADER = "Tallygate-Deadline-Ms"
SHADOW = "shadow=1&"
_FORBIDDEN = 403
_NGINX_KNOWS = frozenset({200, 401, 403})
_DIGITS = 16
_SHORT = 256
_DIGEST_BYTES = 16


class AuthorizeRoute:
    """Decides for proxies."""

    def __init__(self, gate: Gate, directory: Directory, *, settings: GatewaySettings) -> None:
        self._gate = gate
        self._directory = directory
        self._forward_id = settings.forward_request_id_header
        self._nginx_id = settings.nginx_request_id_header
        self._shadow = settings.authorize_shadow
        self._deadline_ms = settings.decision_deadline_ms
        self._asks = Asks(lambda digest: directory.behind(digest) is not None)
        self._forward_way = StraightWay(gate, directory, write=_for_others, refuse=lambda failure: failure)
        self._nginx_way = StraightWay(
            gate,
            directory,
            write=decided_for_nginx,
            refuse=lambda failure: failure if isinstance(failure, InvariantBroken) else _failed_for_nginx(failure),
        )

    async def forward(self, request: Request) -> Answer:
        """For Caddy `forward_auth`, Traefik `forwardAuth`, HAProxy's auth-intercept."""
        return _for_others(*await self._decide(request, self._forward_id))

    async def nginx(self, request: Request) -> Answer:
        """For nginx `auth_request`; no answer has a body, and none a status that nginx does not know."""
        try:
            decision, customer_id = await self._decide(request, self._nginx_id)
        except InvariantBroken:
            raise  # a fault of ours is reported at the door, and nginx refuses what is answered by 500
        except Failure as failure:
            return _failed_for_nginx(failure)
        return decided_for_nginx(decision, customer_id)

    def straight_forward(self, request: Request, tell: Tell) -> bool:
        """The same for what is known; whether that could be begun."""
        return self._begin(request, self._forward_id, way=self._forward_way, tell=tell)

    def straight_nginx(self, request: Request, tell: Tell) -> bool:
        """The same for what is known; whether that could be begun."""
        return self._begin(request, self._nginx_id, way=self._nginx_way, tell=tell)

    def _begin(self, request: Request, id_header: str, *, way: StraightWay, tell: Tell) -> bool:
        headers = request.headers
        request_id = headers.get(id_header, "") if id_header else ""
        secrets = headers.get("Authorization", ""), headers.get("X-Api-Key", "")
        words = (request.query, *secrets, headers.get(DEADLINE_HEADER, ""), bool(request_id))
        ask = self._asks.get(words) or self._asks.meet(
            words, partial(self._plain, request, is_keyed=bool(request_id))
        )
        if ask is None:
            return False
        key = request_key(ask.order.charges, request_id) if request_id else ""
        return way.begin(ask, key, since_s=request.since_s, tell=tell)

    def _plain(self, request: Request, *, is_keyed: bool) -> Ask | None:
        """What is asked, unless it is wrong, or so long that it is not worth a place."""
        secret, query = _secret_of(request), request.query
        if not secret or not secret.isascii() or len(secret) > _SHORT or len(query) > _SHORT:
            return None
        try:
            budget_ms, charge = _budget_ms(request.headers.get(DEADLINE_HEADER, "")), charge_in(query)
        except InvalidInput:
            return None
        return Ask(
            Order(charges=(charge,), shadow=self._is_shadow(query)),
            digest=digest_of(secret),
            is_keyed=is_keyed,
            budget_ms=budget_ms or self._deadline_ms,
        )

    def _is_shadow(self, query: str) -> bool:
        return self._shadow or query.startswith(SHADOW)

    async def _decide(self, request: Request, id_header: str) -> tuple[Decision, str]:
        budget_ms = _budget_ms(request.headers.get(DEADLINE_HEADER, ""))
        deadline = deadline_since(request.since_s, budget_ms or self._deadline_ms)
        charge = charge_in(request.query)
        secret = _secret_of(request)
        caller = caller_at_hand(self._directory, secret) if secret else None
        if caller is None and secret:
            caller = await caller_of_key(self._directory, secret, deadline=deadline)
        request_id = request.headers.get(id_header, "") if id_header else ""
        order = Order(
            charges=(charge,),
            idempotency_key=request_key((charge,), request_id) if request_id else "",
            shadow=self._is_shadow(request.query),
        )
        decision = await self._gate.decide(caller, order, deadline=deadline)
        return decision, caller.customer_id if caller else ""


def _secret_of(request: Request) -> str:
    """The client's credential."""
    headers = request.headers
    return bearer_of(headers.get("Authorization", "")) or headers.get("X-Api-Key", "")


def charge_in(query: str) -> Charge:
    """The first `feature` and the first `quantity` of a query; whatever else stands there is the client's.

    Raises: InvalidInput.
    """
    return _short_charge_in(query) if len(query) <= _SHORT else _charge_in(query)


def _charge_in(query: str) -> Charge:
    found: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name in ("feature", "quantity") and name not in found:
            found[name] = unquote_plus(value)
        if len(found) == 2:  # both
            break
    return charge_of(found.get("feature", ""), found.get("quantity", ""))


_short_charge_in = lru_cache(maxsize=4_096)(_charge_in)
"""A proxy asks with the same query again and again; a long one is a client's, and not worth a place."""


def charge_of(feature: str, quantity: str) -> Charge:
    """What a proxy's configuration says is charged, as text.

    Raises: InvalidInput.
    """
    if not is_code(feature):
        raise InvalidInput("the proxy's configuration must name one, such as feature=api.calls", field="feature")
    if not (quantity.isascii() and quantity.isdigit() and len(quantity) <= _DIGITS and int(quantity) <= MAX_EXACT):
        raise InvalidInput(
            "the proxy's configuration must say how much: a whole number below 2^53", field="quantity"
        )
    return Charge(feature=feature, quantity=int(quantity))


def _budget_ms(text: str) -> int | None:
    """The deadline that a header tells; None where there is none.

    Raises: InvalidInput.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and 1 <= int(text) <= MAX_DEADLINE_MS):
        raise InvalidInput(f"must be a whole number from 1 to {MAX_DEADLINE_MS}", field=DEADLINE_HEADER)
    return int(text)


def request_key(charges: Sequence[Charge], request_id: str) -> str:
    """The idempotency key of charges in a proxy's request: a route that asks for two features pays for both."""
    name = " ".join((*(f"{charge.feature} {charge.quantity}" for charge in charges), request_id))
    return f"req:{hashlib.blake2b(name.encode(errors='surrogateescape'), digest_size=_DIGEST_BYTES).hexdigest()}"


def upstream_headers(decision: Decision, customer_id: str) -> list[tuple[str, str]]:
    """What the upstream is told of a caller who may pass."""
    told = [("X-Tallygate-Customer", customer_id), ("X-Tallygate-Decision", decision.decision_id)]
    if decision.would:
        told.append(("X-Tallygate-Would", decision.would))
    if decision.degraded:
        told.append(("X-Tallygate-Degraded", "1"))
    return told


def _allowed(decision: Decision, customer_id: str) -> Answer:
    return Answer(status=200, headers=(*upstream_headers(decision, customer_id), *rate_limit_headers(decision)))


def _for_others(decision: Decision, customer_id: str) -> Answer:
    return _allowed(decision, customer_id) if decision.allowed else refused(decision)


def decided_for_nginx(decision: Decision, customer_id: str) -> Answer:
    """What nginx is told of a decision."""
    if decision.allowed:
        return _allowed(decision, customer_id)
    return _for_nginx(refused(decision), reason=decision.reason.value)


def _failed_for_nginx(failure: Failure) -> Answer:
    return _for_nginx(failed(failure), reason=failure.code)


def _for_nginx(answer: Answer, *, reason: str) -> Answer:
    status = answer.status if answer.status in _NGINX_KNOWS else _FORBIDDEN
    told = ((STATUS_HEADER, str(answer.status)), ("X-Tallygate-Reason", reason))
    return Answer(status=status, headers=(*told, *answer.headers))
