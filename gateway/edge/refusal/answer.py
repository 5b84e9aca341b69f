"""A refusal as an answer: its own status, problem+json, and what the caller needs to come back, or to pay.

Whoever refuses says so here: the dialects of the proxies, Envoy's gRPC, the reverse proxy of our own, and the
middlewares of the SDK.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from billing_core.contract.problem import MEDIA_TYPE
from gateway.admission.decision import Decision
from gateway.admission.reason import RULES, Reason
from gateway.edge.message import Answer
from gateway.edge.ratelimit import Headers, rate_limit_headers
from gateway.edge.refusal.payment import NO_OFFER, Offer, Payment, open_offer
from gateway.settings import GatewaySettings

CHALLENGE = ("WWW-Authenticate", 'Bearer realm="tallygate"')
_ENCODER = msgspec.json.Encoder()
_QUOTAS = frozenset({Reason.RATE_LIMITED, Reason.LIMIT_REACHED})
_POLICY_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_CAPACITY_TYPE = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A refusal as problem+json, for whoever reads a status code and not a decision."""

    type: str
    title: str
    status: int
    code: Reason
    decision_id: str = ""
    feature: str = ""
    level: str = ""
    limit: str = ""
    violated_policies: tuple[str, ...] = msgspec.field(default=(), name="violated-policies")
    payment: Payment | UnsetType = UNSET


class Why(NamedTuple):
    """What a decision says of its refusal; empty where it says nothing."""

    reason: Reason
    decision_id: str = ""
    feature: str = ""
    level: str = ""
    limit: str = ""
    customer_id: str = ""


def refusal_answer(why: Why, headers: Headers, *, offer: Offer = NO_OFFER) -> Answer:
    """The answer that tells it. `headers` say what is left, and when to come back."""
    rule, limited = RULES[why.reason], why.reason in _QUOTAS
    kind = f"urn:tallygate:problem:{why.reason.value}"
    if limited:
        kind = _POLICY_TYPE
    elif why.reason is Reason.UNAVAILABLE:
        kind = _CAPACITY_TYPE
    payment, paying = offer.told(why.reason, why.customer_id)
    refusal = Refusal(
        type=kind,
        title=rule.title,
        status=rule.status,
        code=why.reason,
        decision_id=why.decision_id,
        feature=why.feature,
        level=why.level,
        limit=why.limit,
        violated_policies=(why.feature,) if limited else (),
        payment=payment,
    )
    challenge = (CHALLENGE,) if why.reason is Reason.UNKNOWN_KEY else ()
    body = _ENCODER.encode(refusal)
    return Answer(status=rule.status, body=body, media_type=MEDIA_TYPE, headers=(*challenge, *headers, *paying))


class Notices:
    """What callers are told beside yes and no, as the operator wants it told."""

    def __init__(self, offer: Offer = NO_OFFER, *, with_legacy: bool = False) -> None:
        self._offer = offer
        self._with_legacy = with_legacy

    def headers(self, decision: Decision) -> Headers:
        """Limits, balance and when to come back."""
        return rate_limit_headers(decision, with_legacy=self._with_legacy)

    def refused(self, decision: Decision, customer_id: str) -> Answer:
        """A refusal as its own HTTP status."""
        why = Why(
            reason=decision.reason,
            decision_id=decision.decision_id,
            feature=decision.refused_feature,
            level=decision.level,
            limit=decision.limit,
            customer_id=customer_id,
        )
        return refusal_answer(why, self.headers(decision), offer=self._offer)


def open_notices(settings: GatewaySettings) -> Notices:
    """As the settings say. Raises: ConfigurationError, one line."""
    return Notices(open_offer(settings.payment_offer_file), with_legacy=settings.legacy_ratelimit_headers)
