"""Subscriptions: a customer on a version of a plan, from a start until it ends.

A customer is on one plan at a time. The version of the plan that was offered when it came to it is kept, whatever
the catalog says later, until somebody changes the plan. Each of its periods is billed once; at a period's end it
renews, or ends where that was asked for.

    phase     renew     change    cancel at end   end
    active    active    active    ending          refused
    ending    refused   refused   ending          ended
    ended     refused   refused   refused         refused

Asking to cancel what is already ending changes nothing, so a retry is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

import msgspec

from billing_core.errors import Conflict


class SubscriptionState(StrEnum):
    """Whether the plan is in force."""

    ACTIVE = "active"
    ENDED = "ended"


class Phase(StrEnum):
    """Where a subscription stands in its life."""

    ACTIVE = "active"
    ENDING = "ending"
    ENDED = "ended"


class Act(StrEnum):
    """What can be done to a subscription."""

    RENEW = "renew"
    CHANGE = "change"
    CANCEL_AT_END = "cancel at end"
    END = "end"


PHASES: Mapping[tuple[Phase, Act], Phase] = MappingProxyType(
    {
        (Phase.ACTIVE, Act.RENEW): Phase.ACTIVE,
        (Phase.ACTIVE, Act.CHANGE): Phase.ACTIVE,
        (Phase.ACTIVE, Act.CANCEL_AT_END): Phase.ENDING,
        (Phase.ENDING, Act.CANCEL_AT_END): Phase.ENDING,
        (Phase.ENDING, Act.END): Phase.ENDED,
    }
)
"""What is not in the table is refused."""


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A customer on a plan. Instants are on the tenant's clock; `anchor_at` is where periods are counted from.

    What is `next` is in force for the gate from `next_at` on, and becomes the plan once the period that ends there
    is closed; `changed_at` is when that last happened.
    """

    tenant_id: str
    subscription_id: str
    customer_id: str
    plan_code: str
    plan_version: int
    state: SubscriptionState
    started_at: datetime
    anchor_at: datetime
    time_zone: str
    cancel_at_end: bool
    ended_at: datetime | None
    created_at: datetime
    next_plan_code: str | None = None
    next_plan_version: int | None = None
    next_anchor_at: datetime | None = None
    next_at: datetime | None = None
    changed_at: datetime | None = None

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        if self.state is SubscriptionState.ENDED:
            return Phase.ENDED
        return Phase.ENDING if self.cancel_at_end else Phase.ACTIVE


def phase_after(phase: Phase, act: Act) -> Phase:
    """The phase that follows.

    Raises: Conflict where the phase does not allow the act.
    """
    following = PHASES.get((phase, act))
    if following is None:
        raise Conflict(f"a subscription that is {phase} cannot {act}", field="subscription_id")
    return following
