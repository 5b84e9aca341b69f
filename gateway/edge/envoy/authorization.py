"""`envoy.service.auth.v3.Authorization/Check`: may this request pass, and what does it cost?

What is charged stands beside the route, in the operator's configuration of Envoy (`context_extensions`, which no
client can reach):

    feature    which
    quantity   how much, a whole number
    mode       `consume` (or nothing) charges; `peek` only looks; `hold` sets aside, for `ttl_ms`, and tells the
               hold's id as dynamic metadata (`hold`), for whoever settles it when the response is known;
               `on_expiry` says what becomes of a hold that nobody settles: `release` (or nothing) or `charge`
    shadow     `1`: a refusal is recorded and not made

The credential is the client's: `Authorization: Bearer`, or `X-Api-Key`. Envoy may ask twice for one request (a
retry of the check); the header that the settings name, as `x-request-id`, is then the idempotency key, together
with what is charged. It must be Envoy's own (`use_remote_address: true`, no `preserve_external_request_id`): a
client that could choose it would pay once and pass for ever.

Who may pass is answered with headers for the upstream, which replace what the client sent under these names, and
the RateLimit headers for the client. A refusal has its own HTTP status and problem+json as its body. Where nothing
could be decided the call fails, and Envoy does what `failure_mode_allow` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from billing_core.errors import InvalidInput, NotFound, Unavailable
from gateway.admission.caller import bearer_of, caller_at_hand, caller_of_key
from gateway.admission.decision import Decision
from gateway.admission.gate import Gate
from gateway.admission.order import Mode, OnExpiry, Order
from gateway.admission.reason import RULES, Reason
from gateway.edge.envoy.ask import authorization_of
from gateway.edge.envoy.desk import deadline_of
from gateway.edge.envoy.reply import denied, passed
from gateway.edge.grpc.call import Call
from gateway.edge.grpc.status import status_of
from gateway.edge.ratelimit import rate_limit_headers
from gateway.edge.reply import refused
from gateway.edge.route.authorize import charge_of, request_key, upstream_headers
from gateway.edge.wire import MAX_TTL_MS
from gateway.settings import GatewaySettings
from gateway.state.directory import Directory

HOLD: Final = "hold"
_CREDENTIALS: Final = ("authorization", "x-api-key")


class AuthorizationDesk:
    """Decides for Envoy's `ext_authz` filter."""

    def __init__(self, gate: Gate, directory: Directory, *, settings: GatewaySettings) -> None:
        self._gate = gate
        self._directory = directory
        self._deadline_ms = settings.decision_deadline_ms
        self._shadow = settings.authorize_shadow
        self._id_header = settings.envoy_request_id_header.lower()
        self._wanted = frozenset({*_CREDENTIALS, self._id_header} - {""})

    async def check(self, call: Call) -> bytes:
        """A CheckRequest, and its CheckResponse."""
        deadline = deadline_of(call, self._deadline_ms)
        asked = authorization_of(call.message, self._wanted)
        headers = asked.headers
        order = order_of(asked.extensions, request_id=headers.get(self._id_header, ""), shadow=self._shadow)
        secret = bearer_of(headers.get("authorization", "")) or headers.get("x-api-key", "")
        caller = caller_at_hand(self._directory, secret) if secret else None
        if caller is None and secret:
            caller = await caller_of_key(self._directory, secret, deadline=deadline)
        try:
            decision = await self._gate.decide(caller, order, deadline=deadline)
        except NotFound:
            raise Unavailable("the customer of this key is not ready yet") from None
        return _told(decision, caller.customer_id if caller else "")


def order_of(extensions: Mapping[str, str], *, request_id: str, shadow: bool) -> Order:
    """What stands beside the route.

    Raises: InvalidInput.
    """
    charge = charge_of(extensions.get("feature", ""), extensions.get("quantity", ""))
    mode = _mode(extensions.get("mode", Mode.CONSUME.value))
    is_hold = mode is Mode.HOLD
    if not is_hold and not {"ttl_ms", "on_expiry"}.isdisjoint(extensions):
        raise InvalidInput("has a meaning for a hold only", field="ttl_ms")
    return Order(
        charges=(charge,),
        mode=mode,
        idempotency_key=request_key((charge,), request_id) if request_id and mode is not Mode.PEEK else "",
        ttl_ms=_ttl_ms(extensions.get("ttl_ms", "")) if is_hold else 0,
        on_expiry=_on_expiry(extensions.get("on_expiry", OnExpiry.RELEASE.value)),
        shadow=(shadow or extensions.get("shadow") == "1") and mode is not Mode.PEEK,
    )


def _mode(text: str) -> Mode:
    try:
        mode = Mode(text)
    except ValueError:
        mode = Mode.RECORD
    if mode is Mode.RECORD:
        raise InvalidInput("must be consume, peek or hold", field="mode")
    return mode


def _on_expiry(text: str) -> OnExpiry:
    try:
        return OnExpiry(text)
    except ValueError:
        raise InvalidInput("must be release or charge", field="on_expiry") from None


def _ttl_ms(text: str) -> int:
    if not (
        text.isascii() and text.isdigit() and len(text) <= len(str(MAX_TTL_MS)) and 1 <= int(text) <= MAX_TTL_MS
    ):
        raise InvalidInput(f"a hold needs a whole number from 1 to {MAX_TTL_MS}", field="ttl_ms")
    return int(text)


def _told(decision: Decision, customer_id: str) -> bytes:
    """Raises: Unavailable where that is the reason: the proxy's operator says what happens then."""
    if decision.allowed:
        metadata = [(HOLD, decision.hold.hold_id)] if decision.hold else []
        return passed(upstream_headers(decision, customer_id), rate_limit_headers(decision), metadata=metadata)
    if decision.reason is Reason.UNAVAILABLE:
        raise Unavailable(RULES[Reason.UNAVAILABLE].title)
    answer = refused(decision)
    headers = (("Content-Type", answer.media_type), *answer.headers)
    return denied(answer.status, headers, body=answer.body, status=status_of(answer.status))
