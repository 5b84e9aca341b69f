"""How a hold ended, as `settle` and `release` tell it.

A hold ends in exactly one way. Work that is settled after its hold was given back at the deadline is charged
anew, as far as the wallet goes (`late`). Whoever asks for the same end again gets the first answer, marked as
replayed; whoever asks for another end learns how it ended instead, as a conflict.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from billing_core.errors import Conflict, Failure, IdempotencyConflict, InvariantBroken, NotFound
from gateway.state.resp import Reply, flat, text_of


class HoldEnd(StrEnum):
    """How a hold ended, or why it cannot."""

    SETTLED = "settled"
    LATE = "late"
    RELEASED = "released"
    EXPIRED = "expired"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a settlement or release."""

    end: HoldEnd
    replayed: bool
    decided_at_ms: int
    currency: str
    charged_nanos: int
    released_nanos: int
    uncollected_nanos: int
    balance_nanos: int


class PartOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a part of a hold was charged, and what stays held until when (real clock)."""

    replayed: bool
    decided_at_ms: int
    currency: str
    charged_nanos: int
    held_nanos: int
    uncollected_nanos: int
    balance_nanos: int
    deadline_ms: int


CHARGED = "charged"
DECIDED = "decided"
"""What `part` says where a decision under the same key was made instead."""


def part_of(reply: Reply) -> PartOutcome:
    """The outcome in a reply of `part`.

    Raises: NotFound or Conflict where the hold is not open; InvariantBroken where the reply is not one that the
    script gives.
    """
    try:
        outcome, replayed, at_ms, currency, charged, held, uncollected, balance, deadline_ms = flat(reply)
        said = text_of(outcome)
        if said != CHARGED:
            raise not_open(said)
        return PartOutcome(
            replayed=int(replayed) == 1,
            decided_at_ms=int(at_ms),
            currency=text_of(currency),
            charged_nanos=int(charged),
            held_nanos=int(held),
            uncollected_nanos=int(uncollected),
            balance_nanos=int(balance),
            deadline_ms=int(deadline_ms),
        )
    except (ValueError, TypeError) as error:
        raise InvariantBroken(f"a part's reply cannot be read: {error}") from error


def not_open(said: str) -> Failure:
    """The failure that tells how a hold ended that should be open. Raises: ValueError where that is no end."""
    return _failure(HoldEnd(said))


def outcome_of(reply: Reply, *, wanted: frozenset[HoldEnd]) -> Outcome:
    """The outcome in a reply of `settle` or `release`.

    Raises: NotFound, Conflict or IdempotencyConflict where the hold did not end as wanted; InvariantBroken where
    the reply is not one that these scripts give.
    """
    try:
        end, replayed, at_ms, currency, charged, released, uncollected, balance = flat(reply)
        outcome = Outcome(
            end=HoldEnd(text_of(end)),
            replayed=int(replayed) == 1,
            decided_at_ms=int(at_ms),
            currency=text_of(currency),
            charged_nanos=int(charged),
            released_nanos=int(released),
            uncollected_nanos=int(uncollected),
            balance_nanos=int(balance),
        )
    except (ValueError, TypeError) as error:
        raise InvariantBroken(f"a hold's reply cannot be read: {error}") from error
    if outcome.end not in wanted:
        raise _failure(outcome.end)
    return outcome


def _failure(end: HoldEnd) -> Failure:
    if end is HoldEnd.NOT_FOUND:
        return NotFound("no such hold", field="hold")
    if end is HoldEnd.CONFLICT:
        return IdempotencyConflict("the hold was settled with other quantities", field="charges")
    return Conflict(f"the hold is already {end.value}", field="hold")
