"""Customers, whether they are served, and the keys of their callers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from billing_core.api.page import Page, PageQuery, page_of, place_of
from billing_core.api.route import Call, Route
from billing_core.api.wire import Nothing
from billing_core.flows.setup import enroll
from billing_core.flows.setup.enroll import KEY_PREFIX, CustomerDraft, KeyDraft, KeyOwner
from billing_core.store.database import Transaction
from billing_core.store.setup.customer import ApiKey, Customer, customer_of, customers_after, keys_after


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key, known by its hint. Times are on the tenant's clock."""

    key_id: str
    customer_id: str
    label: str
    hint: str
    path: str
    created_at: datetime
    revoked_at: datetime | None = None


class ToldCustomer(Customer, frozen=True, kw_only=True):
    """A customer that was changed, and whether the gateway knows it."""

    applied: bool = False


class RevokedKey(KeyView, frozen=True, kw_only=True):
    """A key that has ended, and whether the gateways were told to forget it."""

    applied: bool = False


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, shown this once, and whether the gateway knows it."""

    key_id: str
    key: str
    hint: str
    customer_id: str
    label: str
    path: str
    created_at: datetime
    applied: bool = False


def _told(customer: Customer) -> ToldCustomer:
    return msgspec.convert(customer, ToldCustomer, from_attributes=True)


async def create(tx: Transaction, call: Call[CustomerDraft, Nothing]) -> ToldCustomer:
    """A new customer."""
    return _told(await enroll.enroll_customer(tx, call.tenant_id, draft=call.body, now=call.now))


async def list_customers(tx: Transaction, call: Call[Nothing, PageQuery]) -> Page[Customer]:
    """All customers, page by page."""
    place = place_of(call.query.cursor, "customers")
    rows = await customers_after(tx, call.tenant_id, customer_id=place, count=call.query.limit + 1)
    return page_of(rows, call.query, listing="customers", name=lambda row: row.customer_id)


async def read(tx: Transaction, call: Call[Nothing, Nothing]) -> Customer:
    """One customer."""
    return await customer_of(tx, call.tenant_id, customer_id=call.path["customer_id"])


async def suspend(tx: Transaction, call: Call[Nothing, Nothing]) -> ToldCustomer:
    """Serve the customer no longer."""
    return await _set_suspended(tx, call, suspended=True)


async def resume(tx: Transaction, call: Call[Nothing, Nothing]) -> ToldCustomer:
    """Serve the customer again, unless dunning has suspended it too."""
    return await _set_suspended(tx, call, suspended=False)


async def _set_suspended(tx: Transaction, call: Call[Nothing, Nothing], *, suspended: bool) -> ToldCustomer:
    name = call.path["customer_id"]
    customer = await enroll.set_suspended(tx, call.tenant_id, customer_id=name, suspended=suspended, now=call.now)
    return _told(customer)


def _owner(call: Call[KeyDraft, Nothing] | Call[Nothing, Nothing]) -> KeyOwner:
    return KeyOwner(tenant_id=call.tenant_id, customer_id=call.path["customer_id"])


async def issue_key(tx: Transaction, call: Call[KeyDraft, Nothing]) -> IssuedKey:
    """A new key."""
    key = await enroll.issue_key(tx, _owner(call), draft=call.body, secret=call.secret, now=call.now)
    return IssuedKey(
        key_id=key.key_id,
        key=call.secret,
        hint=key.hint,
        customer_id=key.customer_id,
        label=key.label,
        path="/".join(key.path),
        created_at=key.created_at,
    )


async def list_keys(tx: Transaction, call: Call[Nothing, PageQuery]) -> Page[KeyView]:
    """A customer's keys, page by page."""
    customer = await customer_of(tx, call.tenant_id, customer_id=call.path["customer_id"])
    place = place_of(call.query.cursor, "keys")
    count = call.query.limit + 1
    rows = await keys_after(tx, call.tenant_id, customer_id=customer.customer_id, key_id=place, count=count)
    views = [KeyView(**_shown(row)) for row in rows]
    return page_of(views, call.query, listing="keys", name=lambda view: view.key_id)


async def revoke_key(tx: Transaction, call: Call[Nothing, Nothing]) -> RevokedKey:
    """End a key."""
    key = await enroll.revoke_key(tx, _owner(call), key_id=call.path["key_id"], now=call.now)
    return RevokedKey(**_shown(key))


def _shown(key: ApiKey) -> dict[str, Any]:
    """What may be shown of a key: never its digest."""
    shown = {name: value for name, value in msgspec.structs.asdict(key).items() if name != "digest"}
    return {**shown, "path": "/".join(key.path)}


CUSTOMERS, CUSTOMER, KEYS = "/v1/customers", "/v1/customers/{customer_id}", "/v1/customers/{customer_id}/keys"

ROUTES = (
    Route(
        method="POST",
        path=CUSTOMERS,
        summary="Create a customer",
        query=Nothing,
        body=CustomerDraft,
        answer=ToldCustomer,
        status=201,
        tells=lambda answer: answer.customer_id,
        act=create,
    ),
    Route(
        method="GET",
        path=CUSTOMERS,
        summary="List customers",
        query=PageQuery,
        body=Nothing,
        answer=Page[Customer],
        act=list_customers,
    ),
    Route(
        method="GET",
        path=CUSTOMER,
        summary="Read a customer",
        query=Nothing,
        body=Nothing,
        answer=Customer,
        act=read,
    ),
    Route(
        method="POST",
        path=CUSTOMER + "/suspend",
        summary="Stop serving a customer",
        query=Nothing,
        body=Nothing,
        answer=ToldCustomer,
        tells=lambda answer: answer.customer_id,
        act=suspend,
    ),
    Route(
        method="POST",
        path=CUSTOMER + "/resume",
        summary="Serve a customer again",
        query=Nothing,
        body=Nothing,
        answer=ToldCustomer,
        tells=lambda answer: answer.customer_id,
        act=resume,
    ),
    Route(
        method="POST",
        path=KEYS,
        summary="Issue an API key",
        query=Nothing,
        body=KeyDraft,
        answer=IssuedKey,
        status=201,
        secret_prefix=KEY_PREFIX,
        tells=lambda answer: answer.customer_id,
        act=issue_key,
    ),
    Route(
        method="GET",
        path=KEYS,
        summary="List a customer's API keys",
        query=PageQuery,
        body=Nothing,
        answer=Page[KeyView],
        act=list_keys,
    ),
    Route(
        method="DELETE",
        path=KEYS + "/{key_id}",
        summary="Revoke an API key",
        query=Nothing,
        body=Nothing,
        answer=RevokedKey,
        tells=lambda answer: answer.customer_id,
        act=revoke_key,
    ),
)
