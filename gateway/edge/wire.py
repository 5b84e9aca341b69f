"""What travels over HTTP: the bodies of requests and answers, as types.

Requests refuse unknown fields. Answers always have the same shape; what does not apply is null, except what is
unset by default, which stands only where it means something.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from billing_core.contract.problem import Problem
from billing_core.values.ids import Code, IdempotencyKey
from billing_core.values.money import MAX_EXACT
from gateway.admission.order import Mode, OnExpiry
from gateway.admission.outcome import HoldEnd
from gateway.admission.reason import Reason
from gateway.usage.intake import Receipt

MAX_CHARGES = 16
MAX_BATCH = 1_000
MAX_TTL_MS = 604_800_000
MAX_DEADLINE_MS = 60_000

Quantity = Annotated[int, msgspec.Meta(ge=-MAX_EXACT, le=MAX_EXACT)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXACT)]
Path = Annotated[str, msgspec.Meta(max_length=300)]
Credential = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
DeadlineMs = Annotated[int, msgspec.Meta(ge=1, le=MAX_DEADLINE_MS)]
Ttl = Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_MS)]


class ChargeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feature and how much of it; of a gauge by how much it changes, or to which level it is `set`."""

    feature: Code
    quantity: Quantity | None = None
    set: Count | None = None


Charges = Annotated[tuple[ChargeRequest, ...], msgspec.Meta(min_length=1, max_length=MAX_CHARGES)]


class CheckRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/check`: by `key`, or by `customer` with an operator's token; one `feature`, or `charges`.

    A key brings its `path` along; beside a customer it may be told.
    """

    key: Credential | None = None
    customer: Code | None = None
    path: Path | None = None
    feature: Code | None = None
    quantity: Quantity | None = None
    set: Count | None = None
    charges: Charges | None = None
    mode: Mode = Mode.CONSUME
    ttl_ms: Ttl | None = None
    on_expiry: OnExpiry | None = None
    idempotency_key: IdempotencyKey | None = None
    deadline_ms: DeadlineMs | None = None
    shadow: bool = False
    receipt: bool = False


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/check/batch`: 1 to 1,000 bodies of `/v1/check`, and one deadline for them all."""

    checks: list[msgspec.Raw]
    deadline_ms: DeadlineMs | None = None


class SettleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/holds/{id}/settle`: what was really used. A feature that is not named settles as held.

    `final` false charges so much now and keeps the rest held, until `ttl_ms` from now where it is told.
    """

    feature: Code | None = None
    quantity: Count | None = None
    charges: Charges | None = None
    final: bool = True
    ttl_ms: Ttl | None = None
    idempotency_key: IdempotencyKey | None = None
    deadline_ms: DeadlineMs | None = None


class ExtendRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/holds/{id}/extend`: until `ttl_ms` from now, and by what more is set aside."""

    ttl_ms: Ttl
    feature: Code | None = None
    quantity: Count | None = None
    charges: Charges | None = None
    idempotency_key: IdempotencyKey | None = None
    deadline_ms: DeadlineMs | None = None


class ReleaseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/holds/{id}/release`: what may be left out, so that no body at all will do."""

    deadline_ms: DeadlineMs | None = None


class ChargeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One charge of a decision; `limit_units` null: no limit. `value` is what a static feature is entitled to."""

    feature: str
    limit_units: int | None
    remaining_units: int | None
    reset_at: datetime | None
    currency: str | None
    cost_nanos: int
    value: str | UnsetType = UNSET


class HoldAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that was placed; its id is all that settling and releasing need."""

    id: str
    expires_at: datetime


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A decision.

    `replayed`: the first answer to this idempotency key, given again. `balance_nanos` is what is left after this
    decision. `level` and `limit`: who refused, and which of its counters. `retry_after_ms`: when the same
    request may succeed, where that is known. `would`: why shadow mode would have refused. `degraded`: allowed
    without Redis, on units that were set aside before. `sliced`: allowed by this worker alone, out of units that it
    has set aside a moment ago; `decision_id` is that of the usage event in which all of them are summed up. Of
    both, cost, balance and what remains are not known yet.
    """

    allowed: bool
    reason: Reason
    decision_id: str | None
    replayed: bool
    customer: str | None
    currency: str | None
    cost_nanos: int
    balance_nanos: int | None
    charges: tuple[ChargeAnswer, ...]
    hold: HoldAnswer | UnsetType = UNSET
    refused_feature: str | UnsetType = UNSET
    level: str | UnsetType = UNSET
    limit: str | UnsetType = UNSET
    would: str | UnsetType = UNSET
    degraded: bool | UnsetType = UNSET
    sliced: bool | UnsetType = UNSET
    retry_after_ms: int | UnsetType = UNSET
    receipt: str | UnsetType = UNSET


class FailedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Stands in a batch for a check on which no decision could be made."""

    problem: Problem


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer for each check, in their order."""

    answers: list[CheckAnswer | FailedAnswer]


class SettleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How a hold ended. `uncollected_nanos` is what was used above the hold and could not be charged."""

    hold: str
    outcome: HoldEnd
    replayed: bool
    currency: str | None
    charged_nanos: int
    released_nanos: int
    uncollected_nanos: int
    balance_nanos: int | None


class PartAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a part of a hold was charged now; the rest stays held until `expires_at`."""

    hold: str
    outcome: str
    replayed: bool
    currency: str | None
    charged_nanos: int
    held_nanos: int
    uncollected_nanos: int
    balance_nanos: int | None
    expires_at: datetime


class EventAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one event."""

    id: str | None
    status: Receipt
    problem: Problem | UnsetType = UNSET


class EventsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer for each event, in their order."""

    results: list[EventAnswer]
