"""What a script answered, read into a value.

Replies are flat lists of integers and strings, described in the headers of `lua/`, and packed: that costs the
server less than a list of the protocol, and whoever reads it too. Reading them is pure. A reply of another shape is
a broken law of the house, never a guess.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from billing_core.errors import InvariantBroken
from gateway.admission.order import Order
from gateway.admission.reason import Reason
from gateway.state.resp import Reply

_HEAD: Final = (str, int, int, str, str, int, str, int, int, int, str, int, str)
_CHARGE: Final = (int, int, int, int, str, str, int, str)
_CHARGE_COUNT: Final = len(_CHARGE)
_KEPT_COUNT: Final = _CHARGE_COUNT - 1
"""What the version before kept of each charge under an idempotency key: it told no plan."""
_ALLOWED: Final = Reason.ALLOWED.value
_REASONS: Final = {reason.value: reason for reason in Reason}


Words = tuple[Any, ...]
"""Of a reply: the head's, and those of each charge."""

Frame = tuple[str, int, int, int, str, str]
"""Currency, limit, end of its window and seconds until then, currency of the charge, plan."""

Figures = tuple[int, int, int, int]
"""Cost, balance, remaining units, cost of the charge."""


class ChargeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision says of one charge. None: no limit, no window's end."""

    feature: str
    limit_units: int | None
    remaining_units: int | None
    reset_at_ms: int | None
    cost_nanos: int
    static_value: str
    currency: str = ""
    outage_units: int = 0


class HoldOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that was placed."""

    hold_id: str
    deadline_ms: int


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a check. `decided_at_ms` and resets are on the tenant's clock; a hold's deadline is not.

    `level` and `limit` say what refused: the customer or a node of the path, and which counter there. `would` is
    the reason that shadow mode did not refuse for. `degraded`: allowed on a lease, without Redis;
    `sliced`: out of a slice, whose usage event the decision id names; numbers are not known.
    """

    reason: Reason
    decision_id: str
    replayed: bool = False
    refused_feature: str = ""
    level: str = ""
    limit: str = ""
    retry_after_ms: int = 0
    would: str = ""
    degraded: bool = False
    sliced: bool = False
    decided_at_ms: int = 0
    currency: str = ""
    cost_nanos: int = 0
    balance_nanos: int = 0
    plan: str = ""
    charges: tuple[ChargeOutcome, ...] = ()
    hold: HoldOutcome | None = None

    @property
    def allowed(self) -> bool:
        """Whether the caller may go on."""
        return self.reason is Reason.ALLOWED


def decision_of(reply: Reply, order: Order, *, decision_id: str) -> Decision:
    """The decision in a reply of `consume`, `peek`, `hold`, `record` or `extend`.

    Raises: InvariantBroken where the reply is not one that these scripts give.
    """
    try:
        return decision_in(words_of(reply, len(order.charges)), order, decision_id=decision_id)
    except LookupError as error:
        raise InvariantBroken(f"a decision's reply cannot be read: {error}") from error


def words_of(reply: Reply, count: int) -> Words:
    """The words of a reply about so many charges.

    Raises: InvariantBroken where it is none.
    """
    try:
        return _decoder(count).decode(reply)  # type: ignore[arg-type]
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        kept = _kept_words(reply, count)
        if kept is None:
            raise InvariantBroken(f"a reply about {count} charges cannot be read: {error}") from error
        return kept


def _kept_words(reply: Reply, count: int) -> Words | None:
    """The words of a first answer that the version before kept for retries; None where it is none."""
    try:
        words = _kept_decoder(count).decode(reply)  # type: ignore[arg-type]
    except (msgspec.MsgspecError, TypeError, ValueError):
        return None
    if words[1] != 1:
        return None
    head, told = words[: len(_HEAD)], words[len(_HEAD) :]
    charges = [told[at : at + _KEPT_COUNT] for at in range(0, len(told), _KEPT_COUNT)]
    return (*head, *[word for charge in charges for word in (*charge, "")])


def usual_of(words: Words) -> tuple[Frame, Figures] | None:
    """What nearly all replies about one charge say: it is allowed, and nothing besides; None of any other.

    Two decisions on one order whose frames are the same differ in their figures only, and in their ids; and in the
    moment, which nobody is told to the millisecond.
    """
    (reason, replayed, refused, level, limited, at_ms, currency, cost, balance, deadline_ms, hold_id, retry_ms,
     would, limit, remaining, reset_at_ms, charge_cost, value, charge_currency, outage_units,
     plan) = words  # fmt: skip
    if reason != _ALLOWED or replayed or refused or level or limited or deadline_ms or hold_id or retry_ms:
        return None
    if would or value or outage_units:
        return None
    if limit < 0:
        limit = remaining = -1
    elif remaining < 0:
        return None
    left_s = -((at_ms - reset_at_ms) // 1_000) if reset_at_ms > at_ms else 0
    return (currency, limit, reset_at_ms, left_s, charge_currency, plan), (cost, balance, remaining, charge_cost)


@lru_cache(maxsize=128)
def _decoder(count: int) -> msgspec.msgpack.Decoder[tuple[Any, ...]]:
    return msgspec.msgpack.Decoder(tuple[*_HEAD, *_CHARGE * count])  # type: ignore[misc]


@lru_cache(maxsize=128)
def _kept_decoder(count: int) -> msgspec.msgpack.Decoder[tuple[Any, ...]]:
    return msgspec.msgpack.Decoder(tuple[*_HEAD, *_CHARGE[:_KEPT_COUNT] * count])  # type: ignore[misc]


def decision_in(words: Words, order: Order, *, decision_id: str) -> Decision:
    """The decision that words tell. Raises: LookupError where it is none."""
    charges = order.charges
    (reason, replayed, refused, level, limit, at_ms, currency, cost, balance, deadline_ms, hold_id, retry_ms, would,
     *rest) = words  # fmt: skip
    if len(charges) == 1:
        told: tuple[ChargeOutcome, ...] = (_charge(rest, charges[0].feature),)
    else:
        told = tuple([_charge(rest[at * _CHARGE_COUNT :], one.feature) for at, one in enumerate(charges)])
    return Decision(
        reason=_REASONS[reason],
        decision_id=decision_id,
        replayed=replayed == 1,
        refused_feature=charges[int(refused) - 1].feature if refused else "",
        level=level,
        limit=limit,
        retry_after_ms=retry_ms,
        would=would,
        decided_at_ms=at_ms,
        currency=currency,
        cost_nanos=cost,
        balance_nanos=balance,
        plan=rest[-1] if rest else "",
        charges=told,
        hold=HoldOutcome(hold_id=hold_id, deadline_ms=deadline_ms) if deadline_ms else None,
    )


def _charge(words: list[Any], feature: str) -> ChargeOutcome:
    """The first eight words."""
    limit_units, remaining_units, reset_at_ms, cost_nanos, value, currency, outage_units, *_ = words
    return ChargeOutcome(
        feature=feature,
        limit_units=None if limit_units < 0 else limit_units,
        remaining_units=None if limit_units < 0 else remaining_units,
        reset_at_ms=reset_at_ms or None,
        cost_nanos=cost_nanos,
        static_value=value,
        currency=currency,
        outage_units=outage_units,
    )
