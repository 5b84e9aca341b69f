"""What the gateway answers to a check, to the end of a hold, and to events."""

from __future__ import annotations

import msgspec


class ChargeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of a decision."""

    feature: str = ""
    quantity: int = 0
    remaining: int | None = None
    limit: int | None = None
    reset_at: str | None = None
    cost_nanos: int | None = None
    value: str | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a check."""

    allowed: bool
    reason: str
    decision_id: str = ""
    hold_id: str = ""
    balance_nanos: int | None = None
    cost_nanos: int | None = None
    currency: str = ""
    charges: tuple[ChargeAnswer, ...] = ()


class HoldEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a settle or a release."""

    outcome: str
    currency: str = ""
    charged_nanos: int = 0
    released_nanos: int = 0
    uncollected_nanos: int = 0
    balance_nanos: int | None = None
