"""Tenants, their operators' tokens, and the answers that a retry gets back."""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.errors import NotFound
from billing_core.store.database import Transaction
from billing_core.store.query import Q


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace. Its instant is the real one plus `clock_offset_ms`."""

    tenant_id: str
    name: str
    sandbox: bool
    clock_offset_ms: int
    created_at: datetime


class OperatorToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is kept: a digest and a hint, never the token."""

    token_id: str
    tenant_id: str
    digest: str
    label: str
    hint: str
    created_at: datetime
    revoked_at: datetime | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A request under its idempotency key. `digest` is of all that must be the same in a retry."""

    tenant_id: str
    key: str
    route: str
    digest: str


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known under an idempotency key; status 0 while the first request is being worked on."""

    route: str
    digest: str
    status: int
    body: bytes
    created_at: datetime


class _TenantOnly(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str


async def add_tenant(tx: Transaction, tenant: Tenant) -> None:
    """A new workspace."""
    values = (tenant.tenant_id, tenant.name, tenant.sandbox, tenant.clock_offset_ms, tenant.created_at)
    await tx.run(Q["tenant_insert"], *values)


async def tenant_of(tx: Transaction, tenant_id: str, *, lock: bool = False) -> Tenant:
    """The tenant, locked until the transaction ends where asked for.

    Raises: NotFound.
    """
    tenant = await tx.maybe(Q["tenant_locked" if lock else "tenant_by_id"], Tenant, tenant_id)
    if tenant is None:
        raise NotFound(f"there is no tenant {tenant_id!r}", field="tenant_id")
    return tenant


async def tenants_after(tx: Transaction, tenant_id: str, *, count: int) -> list[Tenant]:
    """Tenants in the order of their ids."""
    return await tx.many(Q["tenants_after"], Tenant, tenant_id, count)


async def set_clock(tx: Transaction, tenant_id: str, *, offset_ms: int) -> None:
    """Set the tenant's offset, which never shrinks.

    Raises: InvariantBroken where it would.
    """
    await tx.exactly(1, Q["tenant_clock_set"], tenant_id, offset_ms)


async def add_token(tx: Transaction, token: OperatorToken) -> None:
    """A new operator token."""
    values = (token.digest, token.token_id, token.tenant_id, token.label, token.hint, token.created_at)
    await tx.run(Q["operator_token_insert"], *values)


async def tenant_of_token(tx: Transaction, digest: str) -> str | None:
    """Whose token has this digest; None for one that is unknown or revoked."""
    found = await tx.maybe(Q["operator_token_tenant"], _TenantOnly, digest)
    return None if found is None else found.tenant_id


async def tokens_after(tx: Transaction, tenant_id: str, *, token_id: str, count: int) -> list[OperatorToken]:
    """The tenant's tokens in the order of their birth."""
    return await tx.many(Q["operator_tokens_after"], OperatorToken, tenant_id, token_id, count)


async def revoke_token(tx: Transaction, tenant_id: str, *, token_id: str, now: datetime) -> OperatorToken:
    """End a token; one that has ended stays as it is.

    Raises: NotFound.
    """
    token = await tx.maybe(Q["operator_token_revoke"], OperatorToken, tenant_id, token_id, now)
    if token is None:
        raise NotFound(f"there is no token {token_id!r}", field="token_id")
    return token


async def claim_answer(tx: Transaction, claim: Claim, *, now: datetime, given_up_at: datetime) -> KeptAnswer | None:
    """None where the key is now this request's to answer; else what is known under it.

    A claim waits for another transaction that holds the same key. A claim without an answer that is older than
    `given_up_at` belongs to a process that died.
    """
    values = (claim.tenant_id, claim.key, claim.route, claim.digest, now, given_up_at)
    if await tx.maybe(Q["answer_claim"], KeptAnswer, *values) is not None:
        return None
    return await tx.one(Q["answer_by_key"], KeptAnswer, claim.tenant_id, claim.key)


async def keep_answer(tx: Transaction, claim: Claim, *, claimed_at: datetime, status: int, body: bytes) -> bool:
    """Fill in what the claim was made for; False where somebody took the claim over meanwhile."""
    return await tx.run(Q["answer_keep"], claim.tenant_id, claim.key, claimed_at, status, body) == 1


async def release_answer(tx: Transaction, claim: Claim, *, claimed_at: datetime) -> None:
    """Give the key free again: the request failed and wrote nothing."""
    await tx.run(Q["answer_release"], claim.tenant_id, claim.key, claimed_at)


async def forget_answers(tx: Transaction, *, created_before: datetime, count: int) -> int:
    """Delete old answers; how many."""
    return await tx.run(Q["answers_forget"], created_before, count)
