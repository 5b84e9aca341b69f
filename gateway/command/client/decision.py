"""What the gateway answers: to a check, to the end of a hold, to events, and about an account as it stands.

The control plane tells what has been written down; the live shapes here say what holds at this moment, with what is
held and not yet flushed.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.contract.problem import Problem


class ChargeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of a decision. `limit_units` None: no limit; `value` is a static feature's."""

    feature: str
    limit_units: int | None = None
    remaining_units: int | None = None
    reset_at: datetime | None = None
    currency: str | None = None
    cost_nanos: int = 0
    value: str = ""


class HoldAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that was placed."""

    id: str
    expires_at: datetime


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a check."""

    allowed: bool
    reason: str
    decision_id: str | None = None
    replayed: bool = False
    customer: str | None = None
    currency: str | None = None
    cost_nanos: int = 0
    balance_nanos: int | None = None
    charges: tuple[ChargeAnswer, ...] = ()
    hold: HoldAnswer | None = None
    refused_feature: str = ""
    level: str = ""
    limit: str = ""
    would: str = ""
    degraded: bool = False
    sliced: bool = False
    retry_after_ms: int | None = None
    receipt: str = ""


class BatchItem(Decision, frozen=True, kw_only=True):
    """One answer of a batch: a decision, or the problem that stood in its way."""

    allowed: bool = False
    reason: str = ""
    problem: Problem | None = None


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer for each check, in their order."""

    answers: tuple[BatchItem, ...] = ()


class HoldEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a settle or a release. `uncollected_nanos` was used, and could not be charged.

    A part has `held_nanos` instead of what was released, and says until when the rest is held.
    """

    hold: str
    outcome: str
    replayed: bool = False
    currency: str | None = None
    charged_nanos: int = 0
    released_nanos: int = 0
    held_nanos: int = 0
    expires_at: datetime | None = None
    uncollected_nanos: int = 0
    balance_nanos: int | None = None


class EventAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one event."""

    status: str
    id: str | None = None
    problem: Problem | None = None


class EventAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each event, in their order."""

    results: tuple[EventAnswer, ...] = ()


class LiveFeature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature now, in the window that is open."""

    feature: str
    kind: str = ""
    enabled: bool = True
    value: str | None = None
    limit_units: int | None = None
    limit_mode: str | None = None
    used_units: int = 0
    held_units: int = 0
    remaining_units: int | None = None
    reset_at: datetime | None = None


class LiveBound(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that holds back at one level: a limit, rate, concurrency limit, gauge or spend cap."""

    level: str
    kind: str
    feature: str | None = None
    counter: str | None = None
    currency: str | None = None
    limit_units: int | None = None
    used_units: int = 0
    held_units: int = 0
    remaining_units: int | None = None
    reset_at: datetime | None = None


class LiveUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer may use and has used."""

    status: str = ""
    features: tuple[LiveFeature, ...] = ()
    bounds: tuple[LiveBound, ...] = ()


class LiveGrant(msgspec.Struct, frozen=True, kw_only=True):
    """One credit block as it stands."""

    id: str
    usable: bool = True
    remaining_nanos: int = 0
    held_nanos: int = 0
    expires_at: datetime | None = None
    priority: int = 0
    kind: str = "paid"
    features: tuple[str, ...] = ()
    lent_nanos: int = 0


class LiveWallet(msgspec.Struct, frozen=True, kw_only=True):
    """A balance as it stands: what is neither held nor spent."""

    currency: str
    balance_nanos: int = 0
    held_nanos: int = 0
    grants: tuple[LiveGrant, ...] = ()


class LiveWallets(msgspec.Struct, frozen=True, kw_only=True):
    """All wallets of a customer."""

    wallets: tuple[LiveWallet, ...] = ()
