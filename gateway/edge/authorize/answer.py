"""What a proxy is told, and through it the upstream and the client.

for the upstream   who the caller is and what was decided; and the hold that waits to be settled, whose id is a
                   credential: it is for the proxy, which keeps it from the client
for the client     what is left: RateLimit headers, and the balance; to whoever is refused for money, how to pay
"""

from __future__ import annotations

from collections.abc import Iterable

from billing_core.errors import Failure, InvariantBroken, NotFound, Unavailable
from gateway.admission.decision import Decision
from gateway.edge.message import Answer
from gateway.edge.refusal.answer import Notices
from gateway.edge.reply import failed

STATUS_HEADER = "X-Tallygate-Status"
HOLD_HEADER = "X-Tallygate-Hold"
_WOULD_HEADER = "X-Tallygate-Would"
_DEGRADED_HEADER = "X-Tallygate-Degraded"
_SELDOM_TOLD = (HOLD_HEADER, _WOULD_HEADER, _DEGRADED_HEADER)
_REMOVED_BY_ENVOY = "x-envoy-auth-headers-to-remove"
_FORBIDDEN = 403
_NGINX_KNOWS = frozenset({200, 401, 403})


def upstream_headers(decision: Decision, customer_id: str) -> list[tuple[str, str]]:
    """What the upstream is told of a caller who may pass."""
    told = [
        ("X-Tallygate-Customer", customer_id),
        ("X-Tallygate-Plan", decision.plan),
        ("X-Tallygate-Decision", decision.decision_id),
    ]
    if decision.would:
        told.append((_WOULD_HEADER, decision.would))
    if decision.degraded:
        told.append((_DEGRADED_HEADER, "1"))
    return told


def untold(told: Iterable[tuple[str, str]]) -> list[str]:
    """Of what upstreams believe in, what was not told this time: who asks Envoy must not tell it in our place."""
    names = {name for name, _ in told}
    return [name for name in _SELDOM_TOLD if name not in names]


def decided(decision: Decision, customer_id: str, *, notices: Notices) -> Answer:
    """200 with an empty body, or the refusal's own status as problem+json."""
    if decision.allowed:
        return _allowed(decision, customer_id, notices=notices)
    return notices.refused(decision, customer_id)


def decided_for_nginx(decision: Decision, customer_id: str, *, notices: Notices) -> Answer:
    """The same in a status that nginx knows, without a body."""
    if decision.allowed:
        return _allowed(decision, customer_id, notices=notices)
    return _for_nginx(notices.refused(decision, customer_id), reason=decision.reason.value)


def decided_for_envoy(decision: Decision, customer_id: str, *, notices: Notices) -> Answer:
    """As to others, and what the client may have said in our place is not passed on."""
    if not decision.allowed:
        return notices.refused(decision, customer_id)
    answer = _allowed(decision, customer_id, notices=notices)
    removed = (_REMOVED_BY_ENVOY, ", ".join(untold(answer.headers)))
    return Answer(status=answer.status, headers=(*answer.headers, removed))


def failed_for_nginx(failure: Failure) -> Answer | Failure:
    """A failure in a status that nginx knows; a fault of ours is reported at the door: nginx refuses on 500."""
    return failure if isinstance(failure, InvariantBroken) else _for_nginx(failed(failure), reason=failure.code)


def failed_for_envoy(failure: Failure) -> Failure:
    """A failure that is nobody's denial: Envoy does on a 5xx what its operator says."""
    return Unavailable("the customer of this key is not ready yet") if isinstance(failure, NotFound) else failure


def _allowed(decision: Decision, customer_id: str, *, notices: Notices) -> Answer:
    headers = upstream_headers(decision, customer_id)
    if decision.hold is not None:
        headers.append((HOLD_HEADER, decision.hold.hold_id))
    return Answer(status=200, headers=(*headers, *notices.headers(decision)))


def _for_nginx(answer: Answer, *, reason: str) -> Answer:
    status = answer.status if answer.status in _NGINX_KNOWS else _FORBIDDEN
    told = ((STATUS_HEADER, str(answer.status)), ("X-Tallygate-Reason", reason))
    return Answer(status=status, headers=(*told, *answer.headers))
