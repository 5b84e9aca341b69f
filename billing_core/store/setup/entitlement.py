"""What customers have apart from their plans: trials and overrides, add-ons, budgets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.catalog.catalog import AddonTerms
from billing_core.catalog.document import Feature, FeatureKind
from billing_core.catalog.guard import EntitlementTerms
from billing_core.entitlements.budget import BudgetDocument
from billing_core.entitlements.source import Holdings, OwnEntitlement, OwnKind, TakenAddon
from billing_core.errors import NotFound
from billing_core.store.database import Transaction
from billing_core.store.query import Q

Owned = tuple[str, str]
"""Tenant and customer."""


class OwnRow(msgspec.Struct, frozen=True, kw_only=True):
    """A trial or an override as it is kept. Instants are on the tenant's clock."""

    entitlement_id: str
    customer_id: str
    kind: OwnKind
    feature_kind: FeatureKind
    terms: EntitlementTerms
    note: str
    effective_at: datetime
    expires_at: datetime | None
    created_at: datetime
    ended_at: datetime | None = None


class TakenRow(msgspec.Struct, frozen=True, kw_only=True):
    """An add-on that was taken with a subscription. Instants are on the tenant's clock."""

    taken_id: str
    subscription_id: str
    customer_id: str
    addon_code: str
    quantity: int
    effective_at: datetime
    expires_at: datetime | None
    created_at: datetime
    ended_at: datetime | None = None


class BudgetRow(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's budgets, and since when they are so."""

    document: BudgetDocument
    written_at: datetime | None = None


class _Own(OwnEntitlement, frozen=True, kw_only=True):
    tenant_id: str
    customer_id: str


class _Taken(TakenAddon, frozen=True, kw_only=True):
    tenant_id: str
    customer_id: str


class _Budget(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str
    customer_id: str
    document: BudgetDocument


async def features_of(tx: Transaction, tenant_id: str, *, codes: Sequence[str]) -> dict[str, Feature]:
    """Those of the features that the tenant has, by code."""
    return {row.code: row for row in await tx.many(Q["features_by_code"], Feature, tenant_id, list(codes))}


async def add_own(tx: Transaction, tenant_id: str, *, row: OwnRow) -> None:
    """Keep a trial or an override."""
    what = (row.kind, row.terms.feature, row.feature_kind, row.terms, row.note)
    when = (row.effective_at, row.expires_at, row.created_at)
    await tx.run(Q["own_entitlement_insert"], tenant_id, row.entitlement_id, row.customer_id, *what, *when)


async def end_own(
    tx: Transaction, tenant_id: str, *, customer_id: str, entitlement_id: str, at: datetime
) -> OwnRow:
    """End one; where it has ended already it stays as it is.

    Raises: NotFound.
    """
    row = await tx.maybe(Q["own_entitlement_end"], OwnRow, tenant_id, customer_id, entitlement_id, at)
    if row is None:
        raise NotFound(f"there is no entitlement {entitlement_id!r}", field="entitlement_id")
    return row


async def own_after(
    tx: Transaction, tenant_id: str, *, customer_id: str, entitlement_id: str, count: int
) -> list[OwnRow]:
    """The customer's trials and overrides in the order of their birth, ended ones among them."""
    return await tx.many(Q["own_entitlements_after"], OwnRow, tenant_id, customer_id, entitlement_id, count)


async def take_addon(tx: Transaction, tenant_id: str, *, row: TakenRow, terms: AddonTerms) -> None:
    """The add-on in this quantity from its instant on; what was taken of it before counts until then."""
    await drop_addon(tx, tenant_id, row=row)
    what = (row.addon_code, row.quantity, terms, row.effective_at, row.expires_at, row.created_at)
    await tx.run(Q["addon_insert"], tenant_id, row.taken_id, row.subscription_id, row.customer_id, *what)


async def drop_addon(tx: Transaction, tenant_id: str, *, row: TakenRow) -> int:
    """Nothing of the add-on from the instant on; how many entries that changed."""
    until = (row.addon_code, row.effective_at, row.created_at)
    return await tx.run(Q["addon_shorten"], tenant_id, row.subscription_id, *until)


async def addons_after(
    tx: Transaction, tenant_id: str, *, subscription_id: str, taken_id: str, count: int
) -> list[TakenRow]:
    """All that was ever taken with the subscription, in the order of its birth."""
    return await tx.many(Q["addons_after"], TakenRow, tenant_id, subscription_id, taken_id, count)


async def put_budgets(
    tx: Transaction, tenant_id: str, *, customer_id: str, document: BudgetDocument, now: datetime
) -> None:
    """Replace a customer's budgets."""
    await tx.run(Q["budget_put"], tenant_id, customer_id, document, now)


async def budgets_of(tx: Transaction, tenant_id: str, *, customer_id: str) -> BudgetRow:
    """A customer's budgets; empty before the first."""
    row = await tx.maybe(Q["budget_of_customer"], BudgetRow, tenant_id, customer_id)
    return row or BudgetRow(document=BudgetDocument())


async def holdings_of(tx: Transaction, owners: Sequence[Owned]) -> dict[Owned, Holdings]:
    """What these customers have apart from their plans; who has nothing is left out."""
    asked = [tenant for tenant, _ in owners], [customer for _, customer in owners]
    addons: dict[Owned, list[TakenAddon]] = defaultdict(list)
    for taken in await tx.many(Q["addons_of"], _Taken, *asked):
        addons[taken.tenant_id, taken.customer_id].append(taken)
    own: dict[Owned, list[OwnEntitlement]] = defaultdict(list)
    for one in await tx.many(Q["own_entitlements_of"], _Own, *asked):
        own[one.tenant_id, one.customer_id].append(one)
    budgets = {
        (row.tenant_id, row.customer_id): row.document for row in await tx.many(Q["budgets_of"], _Budget, *asked)
    }
    return {
        owner: Holdings(
            addons=tuple(addons.get(owner, ())),
            own=tuple(own.get(owner, ())),
            budgets=budgets.get(owner, BudgetDocument()),
        )
        for owner in addons.keys() | own.keys() | budgets.keys()
    }
