"""`envoy.service.auth.v3.Authorization/Check`: may this request pass, and what does it cost?

What is charged stands beside the route, in the operator's configuration of Envoy (`context_extensions`, which no
client can reach), in the same words as elsewhere (see `authorize/order`). The id of a hold is told as dynamic
metadata (`hold`), for whoever settles it when the response is known; where that is our own access log service, also
by what (`settle`, see `accesslog/terms`).

The credential is the client's: `Authorization: Bearer`, or `X-Api-Key`. Envoy may ask twice for one request (a
retry of the check); the header that the settings name, as `x-request-id`, is then the idempotency key, together
with what is charged. It must be Envoy's own (`use_remote_address: true`, no `preserve_external_request_id`): a
client that could choose it would pay once and pass for ever.

Who may pass is answered with headers for the upstream, which replace what the client sent under these names, and
the RateLimit headers for the client. A refusal has its own HTTP status and problem+json as its body. Where nothing
could be decided the call fails, and Envoy does what `failure_mode_allow` says.
"""

from __future__ import annotations

from typing import Final

from billing_core.errors import NotFound, Unavailable
from gateway.admission.caller import bearer_of, caller_at_hand, caller_of_key
from gateway.admission.decision import Decision
from gateway.admission.gate import Gate
from gateway.admission.reason import RULES, Reason
from gateway.edge.accesslog.terms import terms_beside
from gateway.edge.authorize.answer import untold, upstream_headers
from gateway.edge.authorize.order import order_of, with_request
from gateway.edge.envoy.ask import authorization_of
from gateway.edge.envoy.desk import deadline_of
from gateway.edge.envoy.reply import denied, passed
from gateway.edge.grpc.call import Call
from gateway.edge.grpc.status import status_of
from gateway.edge.refusal.answer import Notices
from gateway.settings import GatewaySettings
from gateway.state.directory import Directory

HOLD: Final = "hold"
SETTLE: Final = "settle"
_CREDENTIALS: Final = ("authorization", "x-api-key")


class AuthorizationDesk:
    """Decides for Envoy's `ext_authz` filter."""

    def __init__(self, gate: Gate, directory: Directory, *, settings: GatewaySettings, notices: Notices) -> None:
        self._gate = gate
        self._directory = directory
        self._deadline_ms = settings.decision_deadline_ms
        self._shadow = settings.authorize_shadow
        self._notices = notices
        self._id_header = settings.envoy_request_id_header.lower()
        self._wanted = frozenset({*_CREDENTIALS, self._id_header} - {""})

    async def check(self, call: Call) -> bytes:
        """A CheckRequest, and its CheckResponse."""
        deadline = deadline_of(call, self._deadline_ms)
        asked = authorization_of(call.message, self._wanted)
        headers = asked.headers
        order = with_request(order_of(asked.extensions), headers.get(self._id_header, ""), shadow=self._shadow)
        settle = terms_beside(asked.extensions, order)
        secret = bearer_of(headers.get("authorization", "")) or headers.get("x-api-key", "")
        caller = caller_at_hand(self._directory, secret) if secret else None
        if caller is None and secret:
            caller = await caller_of_key(self._directory, secret, deadline=deadline)
        try:
            decision = await self._gate.decide(caller, order, deadline=deadline)
        except NotFound:
            raise Unavailable("the customer of this key is not ready yet") from None
        return _told(decision, caller.customer_id if caller else "", settle=settle, notices=self._notices)


def _told(decision: Decision, customer_id: str, *, settle: str, notices: Notices) -> bytes:
    """Raises: Unavailable where that is the reason: the proxy's operator says what happens then."""
    if decision.allowed:
        metadata = [(HOLD, decision.hold.hold_id)] if decision.hold else []
        if metadata and settle:
            metadata.append((SETTLE, settle))
        told = upstream_headers(decision, customer_id)
        return passed(told, notices.headers(decision), removed=untold(told), metadata=metadata)
    if decision.reason is Reason.UNAVAILABLE:
        raise Unavailable(RULES[Reason.UNAVAILABLE].title)
    answer = notices.refused(decision, customer_id)
    headers = (("Content-Type", answer.media_type), *answer.headers)
    return denied(answer.status, headers, body=answer.body, status=status_of(answer.status))
