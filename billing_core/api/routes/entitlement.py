"""What a customer may do apart from its plan: trials and overrides, add-ons, budgets, and what comes of them all.

An answer to a change says in `applied` whether the gateway knows it already.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from billing_core.api.page import Page, PageQuery, page_of, place_of
from billing_core.api.route import Call, Route
from billing_core.api.wire import Nothing
from billing_core.catalog.guard import EntitlementTerms
from billing_core.entitlements.budget import BudgetDocument
from billing_core.entitlements.source import OwnKind
from billing_core.flows.setup import entitle
from billing_core.flows.setup.entitle import AddonDraft, AddonName, EntitlementDraft, Given
from billing_core.flows.setup.explain import Explanation, explain
from billing_core.store.billing import subscription as subscriptions
from billing_core.store.database import Transaction
from billing_core.store.projection import Owner
from billing_core.store.setup import entitlement as store
from billing_core.store.setup.customer import customer_of
from billing_core.store.setup.entitlement import BudgetRow, OwnRow, TakenRow


class OwnView(msgspec.Struct, frozen=True, kw_only=True):
    """A trial or an override of a customer. Times are on the tenant's clock."""

    entitlement_id: str
    customer_id: str
    kind: OwnKind
    terms: EntitlementTerms
    note: str
    effective_at: datetime
    expires_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


class ToldOwn(OwnView, frozen=True, kw_only=True):
    """A trial or an override that was changed, and whether the gateway knows it."""

    applied: bool = False


class AddonView(msgspec.Struct, frozen=True, kw_only=True):
    """So many of an add-on, taken with a subscription. Times are on the tenant's clock."""

    subscription_id: str
    customer_id: str
    addon: str
    quantity: int
    effective_at: datetime
    expires_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


class ToldAddon(AddonView, frozen=True, kw_only=True):
    """An add-on that was taken, and whether the gateway knows it."""

    applied: bool = False


class DroppedAddon(msgspec.Struct, frozen=True, kw_only=True):
    """An add-on that was taken away, and whether the gateway knows it."""

    subscription_id: str
    customer_id: str
    addon: str
    applied: bool = False


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's budgets, and since when they are so; none before the first."""

    customer_id: str
    document: BudgetDocument
    written_at: datetime | None


class ToldBudgets(Budgets, frozen=True, kw_only=True):
    """Budgets that were written, and whether the gateway knows them."""

    applied: bool = False


def _given(call: Call[Any, Any]) -> Given:
    return Given(tenant_id=call.tenant_id, customer_id=call.path["customer_id"])


def _name(call: Call[Any, Any]) -> AddonName:
    return AddonName(
        tenant_id=call.tenant_id, subscription_id=call.path["subscription_id"], addon_code=call.path["addon"]
    )


async def give(tx: Transaction, call: Call[EntitlementDraft, Nothing]) -> ToldOwn:
    """Give a trial or an override."""
    return _told_own(await entitle.give(tx, _given(call), draft=call.body, now=call.now))


async def list_own(tx: Transaction, call: Call[Nothing, PageQuery]) -> Page[OwnView]:
    """A customer's trials and overrides, ended ones among them, page by page."""
    customer = await customer_of(tx, call.tenant_id, customer_id=call.path["customer_id"])
    place, count = place_of(call.query.cursor, "entitlements"), call.query.limit + 1
    name = customer.customer_id
    rows = await store.own_after(tx, call.tenant_id, customer_id=name, entitlement_id=place, count=count)
    views = [msgspec.convert(row, OwnView, from_attributes=True) for row in rows]
    return page_of(views, call.query, listing="entitlements", name=lambda view: view.entitlement_id)


async def withdraw(tx: Transaction, call: Call[Nothing, Nothing]) -> ToldOwn:
    """End a trial or an override."""
    entitlement_id = call.path["entitlement_id"]
    return _told_own(await entitle.withdraw(tx, _given(call), entitlement_id=entitlement_id, now=call.now))


async def resolved(tx: Transaction, call: Call[Nothing, Nothing]) -> Explanation:
    """What a customer may do now, and where each part comes from."""
    owner = Owner(tenant_id=call.tenant_id, customer_id=call.path["customer_id"])
    return await explain(tx, owner, now=call.now)


async def write_budgets(tx: Transaction, call: Call[BudgetDocument, Nothing]) -> ToldBudgets:
    """Replace a customer's budgets, whole."""
    row = await entitle.write_budgets(tx, _given(call), document=call.body, now=call.now)
    return ToldBudgets(customer_id=call.path["customer_id"], document=row.document, written_at=row.written_at)


async def read_budgets(tx: Transaction, call: Call[Nothing, Nothing]) -> Budgets:
    """A customer's budgets."""
    customer = await customer_of(tx, call.tenant_id, customer_id=call.path["customer_id"])
    row: BudgetRow = await store.budgets_of(tx, call.tenant_id, customer_id=customer.customer_id)
    return Budgets(customer_id=customer.customer_id, document=row.document, written_at=row.written_at)


async def take_addon(tx: Transaction, call: Call[AddonDraft, Nothing]) -> ToldAddon:
    """Set how many of an add-on a subscription has."""
    return ToldAddon(**_taken(await entitle.take_addon(tx, _name(call), draft=call.body, now=call.now)))


async def drop_addon(tx: Transaction, call: Call[Nothing, Nothing]) -> DroppedAddon:
    """Take an add-on away."""
    name = _name(call)
    customer_id = await entitle.drop_addon(tx, name, now=call.now)
    return DroppedAddon(subscription_id=name.subscription_id, customer_id=customer_id, addon=name.addon_code)


async def list_addons(tx: Transaction, call: Call[Nothing, PageQuery]) -> Page[AddonView]:
    """All that was ever taken with a subscription, page by page; each quantity is an entry of its own."""
    subscription_id = call.path["subscription_id"]
    await subscriptions.by_id(tx, tenant_id=call.tenant_id, subscription_id=subscription_id)
    place, count = place_of(call.query.cursor, "addons"), call.query.limit + 1
    rows = await store.addons_after(
        tx, call.tenant_id, subscription_id=subscription_id, taken_id=place, count=count
    )
    page = page_of(rows, call.query, listing="addons", name=lambda row: row.taken_id)
    return Page(items=tuple(AddonView(**_taken(row)) for row in page.items), next_cursor=page.next_cursor)


def _told_own(row: OwnRow) -> ToldOwn:
    return msgspec.convert(row, ToldOwn, from_attributes=True)


def _taken(row: TakenRow) -> dict[str, Any]:
    shown = msgspec.structs.asdict(row)
    del shown["taken_id"]
    return {"addon": shown.pop("addon_code"), **shown}


ENTITLEMENTS, BUDGETS = "/v1/customers/{customer_id}/entitlements", "/v1/customers/{customer_id}/budgets"
ADDONS = "/v1/subscriptions/{subscription_id}/addons"


def _whose(answer: Any) -> str:
    return answer.customer_id


ROUTES = (
    Route(
        method="POST",
        path=ENTITLEMENTS,
        summary="Give a customer a trial or an override",
        query=Nothing,
        body=EntitlementDraft,
        answer=ToldOwn,
        status=201,
        tells=_whose,
        act=give,
    ),
    Route(
        method="GET",
        path=ENTITLEMENTS,
        summary="List a customer's trials and overrides",
        query=PageQuery,
        body=Nothing,
        answer=Page[OwnView],
        act=list_own,
    ),
    Route(
        method="DELETE",
        path=ENTITLEMENTS + "/{entitlement_id}",
        summary="End a trial or an override",
        query=Nothing,
        body=Nothing,
        answer=ToldOwn,
        tells=_whose,
        act=withdraw,
    ),
    Route(
        method="GET",
        path=ENTITLEMENTS + "/resolved",
        summary="What a customer may do now, and where each part comes from",
        query=Nothing,
        body=Nothing,
        answer=Explanation,
        act=resolved,
    ),
    Route(
        method="PUT",
        path=BUDGETS,
        summary="Replace a customer's budgets, whole",
        query=Nothing,
        body=BudgetDocument,
        answer=ToldBudgets,
        tells=_whose,
        act=write_budgets,
    ),
    Route(
        method="GET",
        path=BUDGETS,
        summary="Read a customer's budgets",
        query=Nothing,
        body=Nothing,
        answer=Budgets,
        act=read_budgets,
    ),
    Route(
        method="PUT",
        path=ADDONS + "/{addon}",
        summary="Set how many of an add-on a subscription has",
        query=Nothing,
        body=AddonDraft,
        answer=ToldAddon,
        tells=_whose,
        act=take_addon,
    ),
    Route(
        method="DELETE",
        path=ADDONS + "/{addon}",
        summary="Take an add-on away",
        query=Nothing,
        body=Nothing,
        answer=DroppedAddon,
        tells=_whose,
        act=drop_addon,
    ),
    Route(
        method="GET",
        path=ADDONS,
        summary="List what was taken with a subscription",
        query=PageQuery,
        body=Nothing,
        answer=Page[AddonView],
        act=list_addons,
    ),
)
