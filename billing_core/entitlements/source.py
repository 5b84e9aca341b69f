"""Sources: where a customer's entitlements come from, which of them are in force, and what they make together.

The rules by which they are merged stand in `merge`. Here is what a source is: the plan version of the subscription,
add-ons taken with it, trials and overrides of the customer, its budgets. Add-ons and overrides belong to a
subscription that is in force: where there is none, there is nothing to add to and nothing to alter. A trial stands
on its own. What somebody took keeps the words that it had then, like the plan version: a new catalog changes
nobody's terms.

Each source has an instant from which it counts and perhaps one from which it counts no longer, both on the tenant's
clock; the next such instant is when the customer must be resolved again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum

import msgspec

from billing_core.catalog.catalog import AddonTerms, PlanVersion
from billing_core.catalog.document import FeatureKind
from billing_core.catalog.guard import EntitlementTerms
from billing_core.entitlements.budget import BudgetDocument
from billing_core.entitlements.merge import add, narrowed, widen


class SourceKind(StrEnum):
    """The kinds of sources, in the order in which they count."""

    PLAN = "plan"
    ADDON = "addon"
    TRIAL = "trial"
    OVERRIDE = "override"
    BUDGET = "budget"


class OwnKind(StrEnum):
    """What a customer may be given for itself."""

    TRIAL = "trial"
    OVERRIDE = "override"


class Subscribed(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a subscription that entitlements follow.

    Billing periods are counted from `anchor_at`, limits that follow the subscription from `started_at`: the two
    differ where the plan is billed by the calendar. `changed_at` is when it came from another plan.
    """

    plan: PlanVersion
    started_at: datetime
    anchor_at: datetime
    time_zone: str
    changed_at: datetime | None = None


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """In force from an instant until another; without that, for good."""

    effective_at: datetime
    expires_at: datetime | None = None

    def is_in_force(self, at: datetime) -> bool:
        """Whether it counts at the instant."""
        return self.effective_at <= at and (self.expires_at is None or at < self.expires_at)


class TakenAddon(Timed, frozen=True, kw_only=True):
    """An add-on that was taken with a subscription, in the words that it had then."""

    subscription_id: str
    terms: AddonTerms
    quantity: int

    @property
    def code(self) -> str:
        """Which add-on."""
        return self.terms.addon.code


class OwnEntitlement(Timed, frozen=True, kw_only=True):
    """A trial or an override."""

    entitlement_id: str
    kind: OwnKind
    feature_kind: FeatureKind
    terms: EntitlementTerms


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer has apart from its plan; add-ons of the subscription that is asked about."""

    addons: tuple[TakenAddon, ...] = ()
    own: tuple[OwnEntitlement, ...] = ()
    budgets: BudgetDocument = BudgetDocument()

    def with_subscription(self, subscription_id: str | None) -> Holdings:
        """Without what was taken with other subscriptions."""
        addons = tuple(one for one in self.addons if one.subscription_id == subscription_id)
        return msgspec.structs.replace(self, addons=addons)

    def changes_at(self, now: datetime) -> datetime | None:
        """The next instant at which something begins or ends to count."""
        timed = (*self.addons, *self.own)
        edges = [at for one in timed for at in (one.effective_at, one.expires_at) if at is not None and at > now]
        return min(edges, default=None)


NOTHING = Holdings()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A source that took part. `code` names the plan, the add-on, or the trial's or override's id."""

    source: SourceKind
    code: str
    version: int | None = None
    quantity: int | None = None
    expires_at: datetime | None = None


class Combined(msgspec.Struct, frozen=True, kw_only=True):
    """What all sources say about one feature, and which they were, in the order in which they counted."""

    kind: FeatureKind
    terms: EntitlementTerms
    parts: tuple[Part, ...]

    def then(self, terms: EntitlementTerms, part: Part) -> Combined:
        """With one more source."""
        return Combined(kind=self.kind, terms=terms, parts=(*self.parts, part))


def combine(subscribed: Subscribed | None, holdings: Holdings, *, now: datetime) -> dict[str, Combined]:
    """What the customer may do at the instant, by feature."""
    found: dict[str, Combined] = {}
    if subscribed is not None:
        found = _of_plan(subscribed.plan)
        for taken in sorted(holdings.addons, key=lambda one: (one.code, one.effective_at)):
            if taken.is_in_force(now):
                _add(found, taken)
    own = sorted(holdings.own, key=lambda one: (one.effective_at, one.entitlement_id))
    in_force = [one for one in own if one.is_in_force(now)]
    for one in in_force:
        known = found.get(one.terms.feature)
        if one.kind is OwnKind.TRIAL and _fits(known, one.feature_kind):
            terms = widen(known.terms if known else None, one.terms)
            _put(found, one.feature_kind, terms=terms, part=_part(one))
    if subscribed is not None:
        last = {one.terms.feature: one for one in in_force if one.kind is OwnKind.OVERRIDE}
        for code, one in last.items():
            found[code] = Combined(kind=one.feature_kind, terms=one.terms, parts=(_part(one),))
    for guard in holdings.budgets.customer.guards:
        known = found.get(guard.feature)
        if known is not None and known.kind in {FeatureKind.METERED, FeatureKind.GAUGE}:
            part = Part(source=SourceKind.BUDGET, code="customer")
            found[guard.feature] = known.then(narrowed(known.terms, guard), part)
    return found


def _of_plan(plan: PlanVersion) -> dict[str, Combined]:
    part = Part(source=SourceKind.PLAN, code=plan.terms.plan.code, version=plan.version)
    return {
        one.feature: Combined(kind=plan.terms.feature(one.feature).kind, terms=one, parts=(part,))
        for one in plan.terms.plan.entitlements
    }


def _add(found: dict[str, Combined], taken: TakenAddon) -> None:
    part = Part(source=SourceKind.ADDON, code=taken.code, quantity=taken.quantity, expires_at=taken.expires_at)
    for kind, more in _told(taken.terms):
        known = found.get(more.feature)
        if _fits(known, kind):
            terms = add(known.terms if known else None, more, quantity=taken.quantity)
            _put(found, kind, terms=terms, part=part)


def _told(terms: AddonTerms) -> Iterator[tuple[FeatureKind, EntitlementTerms]]:
    return ((terms.feature(one.feature).kind, one) for one in terms.addon.entitlements)


def _fits(known: Combined | None, kind: FeatureKind) -> bool:
    """Whether a source knows the feature as the others do: one from before it changed its kind does not count."""
    return known is None or known.kind is kind


def _put(found: dict[str, Combined], kind: FeatureKind, *, terms: EntitlementTerms, part: Part) -> None:
    known = found.get(terms.feature)
    found[terms.feature] = (
        Combined(kind=kind, terms=terms, parts=(part,)) if known is None else known.then(terms, part)
    )


def _part(one: OwnEntitlement) -> Part:
    return Part(source=SourceKind(one.kind.value), code=one.entitlement_id, expires_at=one.expires_at)
