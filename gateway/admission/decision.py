"""What a script answered, read into a value.

Replies are flat lists of integers and strings, described in the headers of `lua/`. Reading them is pure. A reply of
another shape is a broken law of the house, never a guess.
"""

from __future__ import annotations

import msgspec

from billing_core.errors import InvariantBroken
from gateway.admission.order import Order
from gateway.admission.reason import Reason
from gateway.state.resp import Flat, Reply, flat, text_of

_HEAD_COUNT = 13
_CHARGE_COUNT = 7


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
    the reason that shadow mode did not refuse for. `degraded`: allowed on a lease, without Redis; numbers are
    not known.
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
    decided_at_ms: int = 0
    currency: str = ""
    cost_nanos: int = 0
    balance_nanos: int = 0
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
        return _read(flat(reply), order, decision_id=decision_id)
    except (ValueError, IndexError, TypeError) as error:
        raise InvariantBroken(f"a decision's reply cannot be read: {error}") from error


def _read(words: Flat, order: Order, *, decision_id: str) -> Decision:
    count = len(order.charges)
    end = _HEAD_COUNT + count * _CHARGE_COUNT
    if len(words) != end:
        raise ValueError(f"{len(words)} words for {count} charges")
    refused, deadline_ms = int(words[2]), int(words[9])
    return Decision(
        reason=Reason(text_of(words[0])),
        decision_id=decision_id,
        replayed=int(words[1]) == 1,
        refused_feature=order.charges[refused - 1].feature if refused else "",
        level=text_of(words[3]),
        limit=text_of(words[4]),
        retry_after_ms=int(words[11]),
        would=text_of(words[12]),
        decided_at_ms=int(words[5]),
        currency=text_of(words[6]),
        cost_nanos=int(words[7]),
        balance_nanos=int(words[8]),
        charges=tuple(
            _charge(words[at : at + _CHARGE_COUNT], charge.feature)
            for at, charge in zip(range(_HEAD_COUNT, end, _CHARGE_COUNT), order.charges, strict=True)
        ),
        hold=HoldOutcome(hold_id=text_of(words[10]), deadline_ms=deadline_ms) if deadline_ms else None,
    )


def _charge(words: Flat, feature: str) -> ChargeOutcome:
    limit_units, remaining_units, reset_at_ms = int(words[0]), int(words[1]), int(words[2])
    return ChargeOutcome(
        feature=feature,
        limit_units=None if limit_units < 0 else limit_units,
        remaining_units=None if limit_units < 0 else remaining_units,
        reset_at_ms=reset_at_ms or None,
        cost_nanos=int(words[3]),
        static_value=text_of(words[4]),
        currency=text_of(words[5]),
        outage_units=int(words[6]),
    )
