"""Enroll: tenants, the tokens of their operators, customers, and the keys of their callers.

Credentials are random and shown once; what is kept is a digest, and a hint (the last characters) by which
people tell them apart. The secret comes in as a parameter, because a retry under the same idempotency key must
show the same one again although nobody keeps it. Whatever the gateway must know of, a customer's status or a
credential, leaves a row in the outbox in the same transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from billing_core.contract.keys import digest_of
from billing_core.contract.path import parse_path
from billing_core.contract.snapshot import Status
from billing_core.errors import Unprocessable
from billing_core.flows.setup.publish import offset_to
from billing_core.store.database import Transaction
from billing_core.store.outbox import OutboxKind, push
from billing_core.store.setup import customer as customer_store
from billing_core.store.setup import tenant as tenant_store
from billing_core.store.setup.customer import ApiKey, Collection, Customer, customer_of
from billing_core.store.setup.tenant import OperatorToken, Tenant, tenant_of
from billing_core.values.ids import Code, new_id
from billing_core.values.period import zone_of
from billing_core.values.text import Instant, Label

KEY_PREFIX = "tgk"
TOKEN_PREFIX = "tgo"  # noqa: S105 - what a token starts with, not a token
HINT_CHARACTERS = 4

ProcessorId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_]{0,255}\Z")]


class TenantDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workspace to be. `clock_at` is what time it shall be there; only a sandbox may say."""

    tenant_id: Code | None = None
    name: Label = ""
    sandbox: bool = False
    clock_at: Instant | None = None


class TokenDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator token to be."""

    label: Label = ""


class CustomerDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer to be. Stripe collects from the named payment method; offline means ACH or wire."""

    customer_id: Code
    name: Label = ""
    time_zone: Label = "UTC"
    collection: Collection = Collection.OFFLINE
    payment_terms_days: Annotated[int, msgspec.Meta(ge=0, le=365)] = 30
    stripe_customer: ProcessorId = ""
    stripe_payment_method: ProcessorId = ""


class KeyDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API key to be. `path` says whose budgets it draws on: `team:ml/project:chat/key:k1`."""

    label: Label = ""
    path: str = ""


async def found_tenant(tx: Transaction, draft: TenantDraft, *, now: datetime) -> Tenant:
    """A new workspace.

    Raises: Unprocessable where a clock is set for what is no sandbox.
    """
    tenant = Tenant(
        tenant_id=draft.tenant_id or new_id("ten", now=now),
        name=draft.name,
        sandbox=draft.sandbox,
        clock_offset_ms=_offset_of(draft, now=now),
        created_at=now,
    )
    await tenant_store.add_tenant(tx, tenant)
    return tenant


def _offset_of(draft: TenantDraft, *, now: datetime) -> int:
    if draft.clock_at is None:
        return 0
    if not draft.sandbox:
        raise Unprocessable("only a sandbox has a clock of its own", field="clock_at")
    return offset_to(draft.clock_at, now=now, field="clock_at")


async def issue_token(
    tx: Transaction, tenant_id: str, *, draft: TokenDraft, secret: str, now: datetime
) -> OperatorToken:
    """A token for the tenant's operator.

    Raises: NotFound for an unknown tenant.
    """
    await tenant_of(tx, tenant_id)
    token = OperatorToken(
        token_id=new_id("tok", now=now),
        tenant_id=tenant_id,
        digest=digest_of(secret),
        label=draft.label,
        hint=secret[-HINT_CHARACTERS:],
        created_at=now,
    )
    await tenant_store.add_token(tx, token)
    await push(tx, OutboxKind.KEY, tenant_id=tenant_id, subject=token.digest)
    return token


async def revoke_token(tx: Transaction, tenant_id: str, *, token_id: str, now: datetime) -> OperatorToken:
    """End a token: the control plane forgets it within seconds, the gateway with the outbox.

    Raises: NotFound.
    """
    token = await tenant_store.revoke_token(tx, tenant_id, token_id=token_id, now=now)
    await push(tx, OutboxKind.KEY, tenant_id=tenant_id, subject=token.digest)
    return token


async def enroll_customer(tx: Transaction, tenant_id: str, *, draft: CustomerDraft, now: datetime) -> Customer:
    """A new customer, active and without a plan.

    Raises: InvalidInput for an unknown zone.
    """
    zone_of(draft.time_zone)
    customer = Customer(
        customer_id=draft.customer_id,
        name=draft.name or draft.customer_id,
        time_zone=draft.time_zone,
        status=Status.ACTIVE,
        collection=draft.collection,
        payment_terms_days=draft.payment_terms_days,
        stripe_customer=draft.stripe_customer,
        stripe_payment_method=draft.stripe_payment_method,
        created_at=now,
    )
    added = await customer_store.add_customer(tx, tenant_id, customer=customer)
    await push(tx, OutboxKind.SNAPSHOT, tenant_id=tenant_id, customer_id=draft.customer_id)
    return added


async def set_suspended(
    tx: Transaction, tenant_id: str, *, customer_id: str, suspended: bool, now: datetime
) -> Customer:
    """Suspend a customer by the operator's word, or take that word back; doing so twice changes nothing.

    A customer whom dunning has suspended too is served again when it has paid.

    Raises: NotFound.
    """
    customer = await customer_store.set_suspended(
        tx, tenant_id, customer_id=customer_id, suspended=suspended, now=now
    )
    await push(tx, OutboxKind.SNAPSHOT, tenant_id=tenant_id, customer_id=customer_id)
    return customer


class KeyOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a key speaks for."""

    tenant_id: str
    customer_id: str


async def issue_key(tx: Transaction, owner: KeyOwner, *, draft: KeyDraft, secret: str, now: datetime) -> ApiKey:
    """A key for the customer's callers.

    Raises: NotFound for an unknown customer; InvalidInput for what is no path.
    """
    await customer_of(tx, owner.tenant_id, customer_id=owner.customer_id)
    key = ApiKey(
        key_id=new_id("key", now=now),
        customer_id=owner.customer_id,
        digest=digest_of(secret),
        label=draft.label,
        hint=secret[-HINT_CHARACTERS:],
        path=parse_path(draft.path),
        created_at=now,
    )
    added = await customer_store.add_key(tx, owner.tenant_id, key=key)
    await push(tx, OutboxKind.KEY, tenant_id=owner.tenant_id, customer_id=owner.customer_id, subject=key.digest)
    return added


async def revoke_key(tx: Transaction, owner: KeyOwner, *, key_id: str, now: datetime) -> ApiKey:
    """End a key.

    Raises: NotFound.
    """
    key = await customer_store.revoke_key(
        tx, owner.tenant_id, customer_id=owner.customer_id, key_id=key_id, now=now
    )
    await push(tx, OutboxKind.KEY, tenant_id=owner.tenant_id, customer_id=owner.customer_id, subject=key.digest)
    return key
