"""Many customers resolved at one instant: alike ones once, others alone, and each by the plan that is in force."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from billing_core.catalog.catalog import PlanTerms, catalog_of
from billing_core.catalog.document import CatalogDocument, FeatureKind
from billing_core.catalog.guard import EntitlementTerms
from billing_core.contract.snapshot import Status
from billing_core.entitlements.source import Holdings, OwnEntitlement, OwnKind
from billing_core.flows.project import Resolver
from billing_core.store.projection import PlanName, SnapshotFacts

NOW = datetime(2026, 3, 17, tzinfo=UTC)
STARTED, LATER = datetime(2026, 1, 1, tzinfo=UTC), NOW + timedelta(hours=1)
DOCUMENT = {
    "features": [{"code": code, "kind": "switch"} for code in ("old", "new", "own")],
    "plans": [{"code": code, "currency": "USD", "entitlements": [{"feature": code}]} for code in ("old", "new")],
}
TERMS: dict[str, PlanTerms] = {
    code: catalog_of(msgspec.convert(DOCUMENT, CatalogDocument)).terms(code) for code in ("old", "new")
}
PLANS = {PlanName(tenant_id="t", code=code, version=1): terms for code, terms in TERMS.items()}
TRIAL = OwnEntitlement(
    entitlement_id="ent_1",
    kind=OwnKind.TRIAL,
    feature_kind=FeatureKind.SWITCH,
    terms=EntitlementTerms(feature="own"),
    effective_at=STARTED,
    expires_at=LATER,
)


def facts(customer: str = "c", **more: Any) -> SnapshotFacts:
    told: dict[str, Any] = {
        "tenant_id": "t",
        "customer_id": customer,
        "shard": 1,
        "version": 1,
        "status": Status.ACTIVE,
        "clock_offset_ms": 0,
        "customer_zone": "UTC",
        "customer_since": STARTED,
        "subscription_id": "sub_1",
        "plan_code": "old",
        "plan_version": 1,
        "anchor_at": STARTED,
        "started_at": STARTED,
        "time_zone": "UTC",
        "changed_at": None,
        "next_plan_code": None,
        "next_plan_version": None,
        "next_anchor_at": None,
        "next_at": None,
        "ends_at": None,
    }
    return SnapshotFacts(**(told | more))


def coming(at: datetime, **more: Any) -> SnapshotFacts:
    change = {"next_plan_code": "new", "next_plan_version": 1, "next_anchor_at": STARTED, "next_at": at}
    return facts(**change, **more)


def features(one: SnapshotFacts, *, now: datetime = NOW) -> tuple[set[str], datetime | None]:
    resolution = Resolver(PLANS, now=now).resolution_of(one)
    return set(resolution.snapshot.features), resolution.stale_at


def test_customers_of_one_plan_that_began_together_are_resolved_once() -> None:
    """Each with its own version and status."""
    resolver = Resolver(PLANS, now=NOW)
    one = resolver.resolution_of(facts("a", version=7)).snapshot
    other = resolver.resolution_of(facts("b", version=8, status=Status.SUSPENDED)).snapshot
    assert one.features is other.features
    assert [(each.version, each.status) for each in (one, other)] == [(7, Status.ACTIVE), (8, Status.SUSPENDED)]


def test_who_has_something_of_its_own_is_resolved_alone() -> None:
    """It changes nobody else's."""
    resolver = Resolver(PLANS, now=NOW)
    own = resolver.resolution_of(facts("a", holdings=Holdings(own=(TRIAL,))))
    assert (set(own.snapshot.features), own.stale_at) == ({"old", "own"}, LATER)
    assert set(resolver.resolution_of(facts("b")).snapshot.features) == {"old"}


def test_a_change_is_in_force_from_its_instant_on() -> None:
    """Until then it says when to look again; afterwards nothing does."""
    assert features(coming(LATER)) == ({"old"}, LATER)
    assert features(coming(LATER), now=LATER) == ({"new"}, None)
    assert features(coming(NOW)) == ({"new"}, None)


def test_a_change_and_its_bill_resolve_alike() -> None:
    """The close moves the plan on the subscription; the gate sees no difference."""
    billed = facts(plan_code="new", changed_at=NOW)
    resolver = Resolver(PLANS, now=LATER)
    assert resolver.resolution_of(coming(NOW)) == resolver.resolution_of(billed)


def test_what_is_canceled_ends_with_its_period() -> None:
    """A trial goes on."""
    assert features(facts(ends_at=LATER)) == ({"old"}, LATER)
    assert features(facts(ends_at=NOW)) == (set(), None)
    assert features(facts(ends_at=NOW, holdings=Holdings(own=(TRIAL,)))) == ({"own"}, LATER)


def test_a_sandbox_goes_by_its_own_clock() -> None:
    """An hour ahead, the change has come."""
    assert features(coming(LATER, clock_offset_ms=3_600_000)) == ({"new"}, None)


def test_without_a_subscription_only_trials_count() -> None:
    """And one that starts later is looked at again then."""
    nobody = {"subscription_id": None, "plan_code": None, "plan_version": None, "started_at": None}
    assert features(facts(**nobody)) == (set(), None)
    assert features(facts(**nobody, holdings=Holdings(own=(TRIAL,)))) == ({"own"}, LATER)
    assert features(facts(started_at=LATER, anchor_at=LATER)) == (set(), LATER)
