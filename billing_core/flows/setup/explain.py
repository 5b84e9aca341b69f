"""Explain: what a customer may do at this moment, and where each part of it comes from.

Read, not told: nothing is locked and nothing is written. It is resolved as the relay resolves it.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.contract.snapshot import Status
from billing_core.entitlements.explanation import FeatureView, NodeView, features_told, nodes_told
from billing_core.entitlements.source import NOTHING, combine
from billing_core.errors import NotFound
from billing_core.flows.project import PlanMemory, Resolver
from billing_core.store import projection
from billing_core.store.database import Transaction
from billing_core.store.projection import Owner


class PlanInForce(msgspec.Struct, frozen=True, kw_only=True):
    """Which version of which plan counts, and since when."""

    code: str
    version: int
    since_at: datetime


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The customer's snapshot at an instant of the tenant's clock; `stale_at` is when time alone will change it."""

    customer_id: str
    status: Status
    at: datetime
    stale_at: datetime | None
    plan: PlanInForce | None
    features: tuple[FeatureView, ...]
    budgets: tuple[NodeView, ...]


async def explain(tx: Transaction, owner: Owner, *, now: datetime) -> Explanation:
    """What the customer may do now. `now` is real time.

    Raises: NotFound for an unknown customer.
    """
    facts = await projection.read_facts(tx, [owner])
    if not facts:
        raise NotFound(f"there is no customer {owner.customer_id!r}", field="customer_id")
    (one,) = facts
    resolver = Resolver(await PlanMemory().recall(tx, facts), now=now)
    at = resolver.now_of(one)
    resolution, subscribed = resolver.resolution_of(one), resolver.subscribed_of(one)
    combined = combine(subscribed, one.holdings or NOTHING, now=at)
    plan = None
    if subscribed is not None:
        plan = PlanInForce(
            code=subscribed.plan.terms.plan.code,
            version=subscribed.plan.version,
            since_at=subscribed.changed_at or subscribed.started_at,
        )
    return Explanation(
        customer_id=owner.customer_id,
        status=one.status,
        at=at,
        stale_at=resolution.stale_at,
        plan=plan,
        features=features_told(resolution.snapshot, combined, now=at),
        budgets=nodes_told(resolution.snapshot, now=at),
    )
