"""Entitle: what a customer gets apart from its plan, and how it shares its means out.

Trials and overrides are given to a customer, add-ons are taken with a subscription, budgets are written as one
document. Every act locks the customer first and leaves a row in the outbox in the same transaction: the relay reads
the parts of a snapshot one after another under the same lock, so the gateway sees an act whole or not yet.

`now` is real time; instants that are given or kept are on the tenant's clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from billing_core.catalog.catalog import AddonTerms, catalog_of
from billing_core.catalog.fault import raise_first
from billing_core.catalog.guard import EntitlementTerms
from billing_core.catalog.guard_rule import entitlement_faults
from billing_core.entitlements.budget import BudgetDocument, check_budgets
from billing_core.entitlements.source import OwnKind
from billing_core.errors import Conflict, InvalidInput, NotFound
from billing_core.store.billing import subscription as subscriptions
from billing_core.store.database import Transaction
from billing_core.store.money.grant import has_unit
from billing_core.store.outbox import OutboxKind, push
from billing_core.store.setup import entitlement as store
from billing_core.store.setup.catalog import applied_catalog
from billing_core.store.setup.entitlement import BudgetRow, OwnRow, TakenRow
from billing_core.subscriptions.subscription import Phase, Subscription
from billing_core.values.clock import from_ms, to_ms
from billing_core.values.ids import Code, new_id
from billing_core.values.money import is_unit
from billing_core.values.text import Instant, Note

MAX_QUANTITY = 1_000_000


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """To whom."""

    tenant_id: str
    customer_id: str


class EntitlementDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trial or an override to be: of a feature, in these terms, from an instant (now) until another.

    An override with `enabled` false denies. A trial has an end and enables.
    """

    kind: OwnKind
    terms: EntitlementTerms
    effective_at: Instant | None = None
    expires_at: Instant | None = None
    note: Note = ""


class AddonDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many of an add-on, from an instant (now) until another (for good)."""

    quantity: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUANTITY)] = 1
    effective_at: Instant | None = None
    expires_at: Instant | None = None


class AddonName(msgspec.Struct, frozen=True, kw_only=True):
    """Which add-on of which subscription."""

    tenant_id: str
    subscription_id: str
    addon_code: Code


async def give(tx: Transaction, given: Given, *, draft: EntitlementDraft, now: datetime) -> OwnRow:
    """Give a trial or an override.

    Raises: NotFound for an unknown customer; InvalidInput where the words break a rule, by field.
    """
    at = await _lock(tx, given, now=now)
    code = draft.terms.feature
    feature = (await store.features_of(tx, given.tenant_id, codes=[code])).get(code)
    raise_first(list(entitlement_faults(draft.terms, "terms", feature=feature)))
    if feature is None:
        raise NotFound(f"there is no feature {code!r}", field="terms.feature")
    if draft.kind is OwnKind.TRIAL and draft.expires_at is None:
        raise InvalidInput("a trial has an end", field="expires_at")
    if draft.kind is OwnKind.TRIAL and not draft.terms.enabled:
        raise InvalidInput("a trial allows; an override denies", field="terms.enabled")
    effective_at = draft.effective_at or at
    _check_order(effective_at, draft.expires_at, at=at)
    row = OwnRow(
        entitlement_id=new_id("ent", now=at),
        customer_id=given.customer_id,
        kind=draft.kind,
        feature_kind=feature.kind,
        terms=draft.terms,
        note=draft.note,
        effective_at=effective_at,
        expires_at=draft.expires_at,
        created_at=at,
    )
    await store.add_own(tx, given.tenant_id, row=row)
    await _tell(tx, given)
    return row


async def withdraw(tx: Transaction, given: Given, *, entitlement_id: str, now: datetime) -> OwnRow:
    """End a trial or an override at once; twice changes nothing.

    Raises: NotFound.
    """
    at = await _lock(tx, given, now=now)
    row = await store.end_own(
        tx, given.tenant_id, customer_id=given.customer_id, entitlement_id=entitlement_id, at=at
    )
    await _tell(tx, given)
    return row


async def write_budgets(tx: Transaction, given: Given, *, document: BudgetDocument, now: datetime) -> BudgetRow:
    """Replace a customer's budgets, whole.

    Raises: NotFound for an unknown customer; InvalidInput where the document breaks a rule, by field.
    """
    at = await _lock(tx, given, now=now)
    named = sorted({guard.feature for node in document.nodes for guard in node.guards})
    features = await store.features_of(tx, given.tenant_id, codes=named)
    asked = sorted({cap.currency for node in document.nodes for cap in node.spend_caps if is_unit(cap.currency)})
    units = [code for code in asked if await has_unit(tx, given.tenant_id, code=code)]
    check_budgets(document, features=features, units=units)
    await store.put_budgets(tx, given.tenant_id, customer_id=given.customer_id, document=document, now=at)
    await _tell(tx, given)
    return BudgetRow(document=document, written_at=at)


async def take_addon(tx: Transaction, name: AddonName, *, draft: AddonDraft, now: datetime) -> TakenRow:
    """Set how many of an add-on a subscription has, in the words of today's catalog; earlier words end there.

    Raises: NotFound for an unknown subscription or add-on; Conflict where the subscription has ended.
    """
    subscription, at = await _lock_subscription(tx, name, now=now)
    terms = await _offered(tx, name)
    effective_at = draft.effective_at or at
    _check_order(effective_at, draft.expires_at, at=at)
    row = _taken(name, subscription, effective_at=effective_at, at=at)
    row = msgspec.structs.replace(row, quantity=draft.quantity, expires_at=draft.expires_at)
    await store.take_addon(tx, name.tenant_id, row=row, terms=terms)
    await _tell(tx, Given(tenant_id=name.tenant_id, customer_id=subscription.customer_id))
    return row


async def drop_addon(tx: Transaction, name: AddonName, *, now: datetime) -> str:
    """Take an add-on away at once, and what was to come of it; whose it was.

    Raises: NotFound where the subscription has none of it.
    """
    subscription, at = await _lock_subscription(tx, name, now=now)
    row = _taken(name, subscription, effective_at=at, at=at)
    if not await store.drop_addon(tx, name.tenant_id, row=row):
        raise NotFound(f"the subscription has no add-on {name.addon_code!r}", field="addon")
    await _tell(tx, Given(tenant_id=name.tenant_id, customer_id=subscription.customer_id))
    return subscription.customer_id


def _taken(name: AddonName, subscription: Subscription, *, effective_at: datetime, at: datetime) -> TakenRow:
    return TakenRow(
        taken_id=new_id("add", now=at),
        subscription_id=name.subscription_id,
        customer_id=subscription.customer_id,
        addon_code=name.addon_code,
        quantity=1,
        effective_at=effective_at,
        expires_at=None,
        created_at=at,
    )


async def _offered(tx: Transaction, name: AddonName) -> AddonTerms:
    applied = await applied_catalog(tx, name.tenant_id)
    if applied is None:
        raise NotFound(f"there is no add-on {name.addon_code!r}", field="addon")
    return catalog_of(applied.document).addon_terms(name.addon_code)


async def _lock_subscription(tx: Transaction, name: AddonName, *, now: datetime) -> tuple[Subscription, datetime]:
    """The subscription, its customer locked, and the tenant's instant."""
    found = await subscriptions.by_id(tx, tenant_id=name.tenant_id, subscription_id=name.subscription_id)
    at = await _lock(tx, Given(tenant_id=name.tenant_id, customer_id=found.customer_id), now=now)
    subscription = await subscriptions.by_id(
        tx, tenant_id=name.tenant_id, subscription_id=name.subscription_id, lock=True
    )
    if subscription.phase is Phase.ENDED:
        raise Conflict("the subscription has ended", field="subscription_id")
    return subscription, at


async def _lock(tx: Transaction, given: Given, *, now: datetime) -> datetime:
    """The customer, locked; what time it is for it, in whole milliseconds as decisions tell it."""
    customer = await subscriptions.lock_customer(tx, tenant_id=given.tenant_id, customer_id=given.customer_id)
    return from_ms(to_ms(now + timedelta(milliseconds=customer.clock_offset_ms)))


async def _tell(tx: Transaction, given: Given) -> None:
    await push(tx, OutboxKind.SNAPSHOT, tenant_id=given.tenant_id, customer_id=given.customer_id)


def _check_order(effective_at: datetime, expires_at: datetime | None, *, at: datetime) -> None:
    if expires_at is not None and expires_at <= max(effective_at, at):
        raise InvalidInput(f"must come after its beginning and after now ({at.isoformat()})", field="expires_at")
