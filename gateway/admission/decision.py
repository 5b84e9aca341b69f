"""What a script answered, read into a value.

Replies are flat lists of integers and strings, described in the headers of `lua/`. Reading them is pure. A reply of
another shape is a broken law of the house, never a guess.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from billing_core.errors import InvariantBroken
from gateway.admission.order import Order
from gateway.admission.reason import Reason
from gateway.state.resp import Reply

_HEAD_COUNT = 13
_CHARGE_COUNT = 7
_REASONS: Final = {reason.value.encode(): reason for reason in Reason}


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
        return _read(reply, order, decision_id=decision_id)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvariantBroken(f"a decision's reply cannot be read: {error}") from error


def _read(reply: Reply, order: Order, *, decision_id: str) -> Decision:
    charges = order.charges
    count = len(charges)
    if not isinstance(reply, list) or len(reply) != _HEAD_COUNT + count * _CHARGE_COUNT:
        raise ValueError(f"no reply of {count} charges")
    words = cast("list[Any]", reply)
    (reason, replayed, refused, level, limit, at_ms, currency, cost, balance, deadline_ms, hold_id, retry_ms, would,
     *rest) = words  # fmt: skip
    refused, deadline_ms = int(refused), int(deadline_ms)
    if count == 1:
        told: tuple[ChargeOutcome, ...] = (_charge(rest, charges[0].feature),)
    else:
        told = tuple([_charge(rest[at * _CHARGE_COUNT :], one.feature) for at, one in enumerate(charges)])
    return Decision(
        reason=_REASONS[reason],
        decision_id=decision_id,
        replayed=int(replayed) == 1,
        refused_feature=charges[refused - 1].feature if refused else "",
        level=level.decode() if level else "",
        limit=limit.decode() if limit else "",
        retry_after_ms=int(retry_ms),
        would=would.decode() if would else "",
        decided_at_ms=int(at_ms),
        currency=currency.decode() if currency else "",
        cost_nanos=int(cost),
        balance_nanos=int(balance),
        charges=told,
        hold=HoldOutcome(hold_id=hold_id.decode(), deadline_ms=deadline_ms) if deadline_ms else None,
    )


def _charge(words: list[Any], feature: str) -> ChargeOutcome:
    """The first seven words."""
    limit_units, reset_at_ms, value, currency = int(words[0]), int(words[2]), words[4], words[5]
    return ChargeOutcome(
        feature=feature,
        limit_units=None if limit_units < 0 else limit_units,
        remaining_units=None if limit_units < 0 else int(words[1]),
        reset_at_ms=reset_at_ms or None,
        cost_nanos=int(words[3]),
        static_value=value.decode() if value else "",
        currency=currency.decode() if currency else "",
        outage_units=int(words[6]),
    )
