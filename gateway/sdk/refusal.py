"""Refusals, for whoever wants them raised, and as HTTP answers for those whom a middleware turns away.

Refused                         the gateway decided: no; says why, and when it is worth asking again
billing_core.errors.Failure     the request itself is at fault, or its credential
└── Unavailable                 nobody decided in time, and `on_outage` says refuse
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from billing_core.errors import Unavailable
from gateway.admission.reason import RULES, Reason
from gateway.edge.message import Answer
from gateway.edge.ratelimit import Limit, headers_of
from gateway.edge.refusal.answer import Why, refusal_answer
from gateway.edge.reply import failed
from gateway.edge.wire import ChargeAnswer, CheckAnswer
from gateway.sdk.ask import undecided

_MS: Final = timedelta(milliseconds=1)


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
    return Refused(undecided(Reason.UNKNOWN_KEY))


def turned_away(why: Refused | Unavailable, *, now: datetime) -> TurnedAway:
    """The answer that tells it, as the gateway itself would."""
    answer = failed(why) if isinstance(why, Unavailable) else _refused(why, now)
    told = (("Content-Type", answer.media_type), ("Content-Length", str(len(answer.body))), *answer.headers)
    return TurnedAway(status=answer.status, headers=told, body=answer.body)


def _refused(why: Refused, now: datetime) -> Answer:
    answer = why.answer
    named = Why(
        reason=why.reason,
        decision_id=answer.decision_id or "",
        feature=answer.refused_feature or "",
        level=answer.level or "",
        limit=answer.limit or "",
    )
    limits = [limit for charge in answer.charges if (limit := _limit(charge, now)) is not None]
    balance = "" if answer.currency is None else f"{answer.balance_nanos} {answer.currency}"
    return refusal_answer(named, headers_of(limits, balance=balance, wait_ms=why.retry_after_ms))


def _limit(charge: ChargeAnswer, now: datetime) -> Limit | None:
    """The limit of a charge; None where it has none."""
    if charge.limit_units is None:
        return None
    left_ms = None if charge.reset_at is None else (charge.reset_at - now) // _MS
    return charge.feature, charge.limit_units, charge.remaining_units or 0, left_ms
