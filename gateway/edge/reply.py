"""Values into answers: the one place where decisions, outcomes and failures become bytes."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from billing_core.contract.problem import MEDIA_TYPE, problem_of
from billing_core.errors import Failure, Unauthenticated, Unavailable
from billing_core.values.clock import from_ms
from gateway.admission.decision import ChargeOutcome, Decision
from gateway.admission.outcome import CHARGED, Outcome, PartOutcome
from gateway.admission.reason import Reason
from gateway.edge.message import Answer
from gateway.edge.ratelimit import Headers, retry_after_ms
from gateway.edge.refusal.answer import CHALLENGE
from gateway.edge.wire import ChargeAnswer, CheckAnswer, EventAnswer, HoldAnswer, PartAnswer, SettleAnswer
from gateway.usage.intake import Taken

_ENCODER = msgspec.json.Encoder()
_SOON = ("Retry-After", "1")


def told(body: msgspec.Struct, *, status: int = 200) -> Answer:
    """An answer with a JSON body."""
    return Answer(status=status, body=_ENCODER.encode(body))


def failed(failure: Failure, *, status: int = 0) -> Answer:
    """A failure as problem+json, with its own status unless told another."""
    headers: Headers = ()
    if isinstance(failure, Unauthenticated):
        headers = (CHALLENGE,)
    elif isinstance(failure, Unavailable):
        headers = (_SOON,)
    status = status or failure.status
    detail = failure.detail.encode(errors="replace").decode()  # a header's bytes need be no text
    body = _ENCODER.encode(msgspec.structs.replace(problem_of(failure), status=status, detail=detail))
    return Answer(status=status, body=body, media_type=MEDIA_TYPE, headers=headers)


def check_answer(decision: Decision, customer_id: str | None) -> CheckAnswer:
    """A decision as a check tells it."""
    reason, currency, charges = decision.reason, decision.currency or None, decision.charges
    return CheckAnswer(
        allowed=reason is Reason.ALLOWED,
        reason=reason,
        decision_id=decision.decision_id or None,
        replayed=decision.replayed,
        customer=customer_id,
        currency=currency,
        cost_nanos=decision.cost_nanos,
        balance_nanos=None if currency is None else decision.balance_nanos,
        charges=(_charge(charges[0]),) if len(charges) == 1 else tuple([_charge(one) for one in charges]),
        **_besides(decision),
    )


def _besides(decision: Decision) -> dict[str, Any]:
    """What stands in an answer only where it means something; in most nothing does."""
    told: dict[str, Any] = {}
    wait_ms, hold = retry_after_ms(decision), decision.hold
    if hold is not None:
        told["hold"] = HoldAnswer(id=hold.hold_id, expires_at=from_ms(hold.deadline_ms))
    if wait_ms is not None:
        told["retry_after_ms"] = wait_ms
    if decision.refused_feature:
        told["refused_feature"] = decision.refused_feature
    if decision.level:
        told["level"] = decision.level
    if decision.limit:
        told["limit"] = decision.limit
    if decision.would:
        told["would"] = decision.would
    if decision.degraded:
        told["degraded"] = True
    if decision.sliced:
        told["sliced"] = True
    return told


def settle_answer(hold_id: str, outcome: Outcome) -> SettleAnswer:
    """How a hold ended, as settle and release tell it."""
    return SettleAnswer(
        hold=hold_id,
        outcome=outcome.end,
        replayed=outcome.replayed,
        currency=outcome.currency or None,
        charged_nanos=outcome.charged_nanos,
        released_nanos=outcome.released_nanos,
        uncollected_nanos=outcome.uncollected_nanos,
        balance_nanos=outcome.balance_nanos if outcome.currency else None,
    )


def part_answer(hold_id: str, part: PartOutcome) -> PartAnswer:
    """What a part of a hold was charged."""
    return PartAnswer(
        hold=hold_id,
        outcome=CHARGED,
        replayed=part.replayed,
        currency=part.currency or None,
        charged_nanos=part.charged_nanos,
        held_nanos=part.held_nanos,
        uncollected_nanos=part.uncollected_nanos,
        balance_nanos=part.balance_nanos if part.currency else None,
        expires_at=from_ms(part.deadline_ms),
    )


def event_answer(taken: Taken) -> EventAnswer:
    """What became of one event."""
    problem = problem_of(taken.failure) if taken.failure else msgspec.UNSET
    return EventAnswer(id=taken.event_id, status=taken.receipt, problem=problem)


@lru_cache(maxsize=4_096)
def _instant(ms: int) -> datetime:
    """An instant that many answers tell: the end of a window."""
    return from_ms(ms)


def _charge(charge: ChargeOutcome) -> ChargeAnswer:
    return ChargeAnswer(
        feature=charge.feature,
        limit_units=charge.limit_units,
        remaining_units=charge.remaining_units,
        reset_at=None if charge.reset_at_ms is None else _instant(charge.reset_at_ms),
        currency=charge.currency or None,
        cost_nanos=charge.cost_nanos,
        value=charge.static_value or msgspec.UNSET,
    )
