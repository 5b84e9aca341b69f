"""Refusals, for whoever wants them raised, and as HTTP answers for those whom a middleware turns away.

Refused                         the gateway decided: no; says why, and when it is worth asking again
billing_core.errors.Failure     the request itself is at fault, or its credential
└── Unavailable                 nobody decided in time, and `on_outage` says refuse
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.contract.problem import MEDIA_TYPE, Problem, problem_of
from billing_core.errors import Unavailable
from gateway.admission.reason import RULES, Reason
from gateway.edge.wire import CheckAnswer

_CHALLENGE = ("WWW-Authenticate", 'Bearer realm="tallygate"')
_SOON = ("Retry-After", "1")
_QUOTA_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_QUOTAS = frozenset({Reason.RATE_LIMITED, Reason.LIMIT_REACHED})


class Refused(Exception):  # noqa: N818 - the word of this house
    """The gateway decided that this may not be done; nothing was charged."""

    def __init__(self, answer: CheckAnswer) -> None:
        super().__init__(RULES[answer.reason].title)
        self.answer = answer

    @property
    def reason(self) -> Reason:
        """Why, in one word."""
        return self.answer.reason

    @property
    def status(self) -> int:
        """The HTTP status that tells it."""
        return RULES[self.answer.reason].status

    @property
    def retry_after_ms(self) -> int | None:
        """When the same request may succeed, where that is known."""
        wait_ms = self.answer.retry_after_ms
        return wait_ms if isinstance(wait_ms, int) else None


class TurnedAway(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP answer for a caller who may not pass."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def require(answer: CheckAnswer) -> CheckAnswer:
    """The answer, if it allows. Raises: Refused."""
    if not answer.allowed:
        raise Refused(answer)
    return answer


def nobody() -> Refused:
    """What a caller without a key is told; nobody need be asked for that."""
    return Refused(
        CheckAnswer(
            allowed=False,
            reason=Reason.UNKNOWN_KEY,
            decision_id=None,
            replayed=False,
            customer=None,
            currency=None,
            cost_nanos=0,
            balance_nanos=None,
            charges=(),
        )
    )


def turned_away(why: Refused | Unavailable, *, now: datetime) -> TurnedAway:
    """The answer that tells it: the gateway's own, with its status, as problem+json."""
    if isinstance(why, Unavailable):
        return _told(problem_of(why), (_SOON,))
    kind = _QUOTA_TYPE if why.reason in _QUOTAS else f"urn:tallygate:problem:{why.reason.value}"
    problem = Problem(type=kind, title=str(why), status=why.status, detail=_detail(why), code=why.reason.value)
    headers = list(_limits(why.answer, now))
    if why.reason is Reason.UNKNOWN_KEY:
        headers.append(_CHALLENGE)
    if why.retry_after_ms is not None:
        headers.append(("Retry-After", str(_seconds(why.retry_after_ms))))
    return _told(problem, tuple(headers))


def _told(problem: Problem, headers: tuple[tuple[str, str], ...]) -> TurnedAway:
    body = msgspec.json.encode(problem)
    told = (("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(body))), *headers)
    return TurnedAway(status=problem.status, headers=told, body=body)


def _detail(why: Refused) -> str:
    answer = why.answer
    named = (("feature", answer.refused_feature), ("level", answer.level), ("limit", answer.limit))
    told = [f"{name} {value}" for name, value in named if isinstance(value, str)]
    return f"{why}: {', '.join(told)}" if told else str(why)


def _limits(answer: CheckAnswer, now: datetime) -> tuple[tuple[str, str], ...]:
    """The limits of the decision; `t` is the time until a window starts anew."""
    limited = [charge for charge in answer.charges if charge.limit_units is not None]
    if not limited:
        return ()
    states: list[str] = []
    for charge in limited:
        state = f'"{charge.feature}";r={max(0, charge.remaining_units or 0)}'
        if charge.reset_at is not None:
            state += f";t={max(0, _seconds(int((charge.reset_at - now).total_seconds() * 1_000)))}"
        states.append(state)
    policies = ", ".join([f'"{charge.feature}";q={charge.limit_units}' for charge in limited])
    return (("RateLimit-Policy", policies), ("RateLimit", ", ".join(states)))


def _seconds(ms: int) -> int:
    return -(-ms // 1_000)
