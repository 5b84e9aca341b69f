"""Customers and their API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

import msgspec

from billing_core.contract.keys import shard_of_customer
from billing_core.contract.snapshot import Status
from billing_core.errors import NotFound
from billing_core.store.database import Transaction
from billing_core.store.query import Q

Found = TypeVar("Found", bound=msgspec.Struct)


class Collection(StrEnum):
    """How the customer's invoices are paid: by Stripe on its own, or as the operator is told."""

    STRIPE = "stripe"
    OFFLINE = "offline"


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is billed. Times are on the tenant's clock.

    Suspended while any cause stands: the operator's word, or dunning, each with the instant at which it began.
    """

    customer_id: str
    name: str
    time_zone: str
    status: Status
    collection: Collection
    payment_terms_days: int
    stripe_customer: str
    stripe_payment_method: str
    created_at: datetime
    operator_suspended_at: datetime | None = None
    dunning_suspended_at: datetime | None = None


class CustomerName(msgspec.Struct, frozen=True, kw_only=True):
    """Which customer of which tenant."""

    tenant_id: str
    customer_id: str


class Standing(CustomerName, frozen=True, kw_only=True):
    """A customer that is locked: the tenant's clock, and whether dunning has suspended it."""

    clock_offset_ms: int
    is_dunned: bool


class _Count(msgspec.Struct, frozen=True, kw_only=True):
    count: int


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is kept: a digest and a hint, never the key."""

    key_id: str
    customer_id: str
    digest: str
    label: str
    hint: str
    path: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None = None


async def add_customer(tx: Transaction, tenant_id: str, *, customer: Customer) -> Customer:
    """A new customer; `created_at` comes in real time and is kept on the tenant's clock."""
    return await tx.one(
        Q["customer_insert"],
        Customer,
        tenant_id,
        customer.customer_id,
        customer.name,
        customer.time_zone,
        customer.collection.value,
        customer.payment_terms_days,
        customer.stripe_customer,
        customer.stripe_payment_method,
        shard_of_customer(tenant_id, customer.customer_id),
        customer.created_at,
    )


async def customer_of(tx: Transaction, tenant_id: str, *, customer_id: str) -> Customer:
    """The customer.

    Raises: NotFound.
    """
    return _found(await tx.maybe(Q["customer_by_id"], Customer, tenant_id, customer_id), customer_id)


async def customers_after(tx: Transaction, tenant_id: str, *, customer_id: str, count: int) -> list[Customer]:
    """Customers in the order of their ids."""
    return await tx.many(Q["customers_after"], Customer, tenant_id, customer_id, count)


async def set_suspended(
    tx: Transaction, tenant_id: str, *, customer_id: str, suspended: bool, now: datetime
) -> Customer:
    """The operator's word on whether the customer is served; dunning has its own. `now` is real time.

    Raises: NotFound.
    """
    if suspended:
        row = await tx.maybe(Q["customer_suspend_by_operator"], Customer, tenant_id, customer_id, now)
    else:
        row = await tx.maybe(Q["customer_resume_by_operator"], Customer, tenant_id, customer_id)
    return _found(row, customer_id)


async def lock(tx: Transaction, tenant_id: str, *, customer_id: str) -> Standing:
    """The customer, locked until the transaction ends.

    Raises: NotFound.
    """
    return _found(await tx.maybe(Q["customer_locked"], Standing, tenant_id, customer_id), customer_id)


async def set_dunned(tx: Transaction, tenant_id: str, *, customer_id: str, since: datetime | None) -> None:
    """Suspend a locked customer by dunning since an instant of the tenant's clock, or lift that."""
    await tx.exactly(1, Q["customer_set_dunned"], tenant_id, customer_id, since)


async def count_arrears(tx: Transaction, tenant_id: str, *, customer_id: str, at: datetime) -> int:
    """How many invoices are unpaid at the instant, after they were due or given up."""
    return (await tx.one(Q["customer_arrears"], _Count, tenant_id, customer_id, at)).count


async def lock_overdue(tx: Transaction, *, now: datetime, overdue_days: int, most: int) -> list[Standing]:
    """Customers who may be suspended for what is overdue, locked; those that others have locked are skipped."""
    return await tx.many(Q["customers_overdue_locked"], Standing, now, overdue_days, most)


async def dun(
    tx: Transaction, locked: Sequence[CustomerName], *, now: datetime, overdue_days: int
) -> list[CustomerName]:
    """Suspend those of the locked customers that are overdue still; these."""
    tenants, names = [one.tenant_id for one in locked], [one.customer_id for one in locked]
    return await tx.many(Q["customers_dun"], CustomerName, tenants, names, now, overdue_days)


def _found(customer: Found | None, customer_id: str) -> Found:
    if customer is None:
        raise NotFound(f"there is no customer {customer_id!r}", field="customer_id")
    return customer


async def add_key(tx: Transaction, tenant_id: str, *, key: ApiKey) -> ApiKey:
    """A new key; `created_at` comes in real time and is kept on the tenant's clock."""
    values = (key.digest, key.key_id, tenant_id, key.customer_id, key.label, key.hint, list(key.path))
    return await tx.one(Q["api_key_insert"], ApiKey, *values, key.created_at)


async def keys_after(tx: Transaction, tenant_id: str, *, customer_id: str, key_id: str, count: int) -> list[ApiKey]:
    """The customer's keys in the order of their birth, revoked ones among them."""
    return await tx.many(Q["api_keys_after"], ApiKey, tenant_id, customer_id, key_id, count)


async def revoke_key(tx: Transaction, tenant_id: str, *, customer_id: str, key_id: str, now: datetime) -> ApiKey:
    """End a key; one that has ended stays as it is.

    Raises: NotFound.
    """
    key = await tx.maybe(Q["api_key_revoke"], ApiKey, tenant_id, customer_id, key_id, now)
    if key is None:
        raise NotFound(f"there is no key {key_id!r}", field="key_id")
    return key
