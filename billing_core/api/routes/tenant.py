"""Tenants, their operators' tokens, and a sandbox's clock."""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.api.page import Page, PageQuery, page_of, place_of
from billing_core.api.route import Access, Call, Route
from billing_core.api.wire import Nothing
from billing_core.flows.setup import enroll, publish
from billing_core.flows.setup.enroll import TOKEN_PREFIX, TenantDraft, TokenDraft
from billing_core.flows.setup.publish import TenantClock
from billing_core.store.database import Transaction
from billing_core.store.setup.tenant import Tenant, tenant_of, tenants_after, tokens_after
from billing_core.values.text import Instant


class FoundedTenant(msgspec.Struct, frozen=True, kw_only=True):
    """A new tenant with its first token, shown this once."""

    tenant_id: str
    operator_token: str
    name: str
    sandbox: bool
    clock_offset_ms: int


class IssuedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A new token, shown this once."""

    token_id: str
    operator_token: str
    hint: str
    label: str


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A token, known by its hint."""

    token_id: str
    label: str
    hint: str
    created_at: datetime
    revoked_at: datetime | None = None


class Advance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the clock shall stand."""

    to: Instant


async def found(tx: Transaction, call: Call[TenantDraft, Nothing]) -> FoundedTenant:
    """A workspace and a token to operate it."""
    tenant = await enroll.found_tenant(tx, call.body, now=call.now)
    draft = TokenDraft(label="first")
    await enroll.issue_token(tx, tenant.tenant_id, draft=draft, secret=call.secret, now=call.now)
    return FoundedTenant(
        tenant_id=tenant.tenant_id,
        operator_token=call.secret,
        name=tenant.name,
        sandbox=tenant.sandbox,
        clock_offset_ms=tenant.clock_offset_ms,
    )


async def list_tenants(tx: Transaction, call: Call[Nothing, PageQuery]) -> Page[Tenant]:
    """All tenants, page by page."""
    place = place_of(call.query.cursor, "tenants")
    rows = await tenants_after(tx, place, count=call.query.limit + 1)
    return page_of(rows, call.query, listing="tenants", name=lambda row: row.tenant_id)


async def issue_token(tx: Transaction, call: Call[TokenDraft, Nothing]) -> IssuedToken:
    """A further token."""
    token = await enroll.issue_token(tx, call.path["tenant_id"], draft=call.body, secret=call.secret, now=call.now)
    return IssuedToken(token_id=token.token_id, operator_token=call.secret, hint=token.hint, label=token.label)


async def list_tokens(tx: Transaction, call: Call[Nothing, PageQuery]) -> Page[TokenView]:
    """A tenant's tokens, page by page."""
    tenant = await tenant_of(tx, call.path["tenant_id"])
    place = place_of(call.query.cursor, "tokens")
    rows = await tokens_after(tx, tenant.tenant_id, token_id=place, count=call.query.limit + 1)
    views = [msgspec.convert(row, TokenView, from_attributes=True) for row in rows]
    return page_of(views, call.query, listing="tokens", name=lambda view: view.token_id)


async def revoke_token(tx: Transaction, call: Call[Nothing, Nothing]) -> TokenView:
    """End a token."""
    token = await enroll.revoke_token(tx, call.path["tenant_id"], token_id=call.path["token_id"], now=call.now)
    return msgspec.convert(token, TokenView, from_attributes=True)


async def read_clock(tx: Transaction, call: Call[Nothing, Nothing]) -> TenantClock:
    """What time it is for the tenant."""
    return publish.clock_of(await tenant_of(tx, call.tenant_id), now=call.now)


async def advance(tx: Transaction, call: Call[Advance, Nothing]) -> TenantClock:
    """Move a sandbox's clock forward."""
    return await publish.advance(tx, call.tenant_id, to=call.body.to, now=call.now)


TENANTS, TOKENS = "/v1/tenants", "/v1/tenants/{tenant_id}/tokens"

ROUTES = (
    Route(
        method="POST",
        path=TENANTS,
        summary="Found a tenant and issue its first operator token",
        query=Nothing,
        body=TenantDraft,
        answer=FoundedTenant,
        access=Access.ROOT,
        status=201,
        secret_prefix=TOKEN_PREFIX,
        act=found,
    ),
    Route(
        method="GET",
        path=TENANTS,
        summary="List tenants",
        query=PageQuery,
        body=Nothing,
        answer=Page[Tenant],
        access=Access.ROOT,
        act=list_tenants,
    ),
    Route(
        method="POST",
        path=TOKENS,
        summary="Issue an operator token",
        query=Nothing,
        body=TokenDraft,
        answer=IssuedToken,
        access=Access.ROOT,
        status=201,
        secret_prefix=TOKEN_PREFIX,
        act=issue_token,
    ),
    Route(
        method="GET",
        path=TOKENS,
        summary="List a tenant's operator tokens",
        query=PageQuery,
        body=Nothing,
        answer=Page[TokenView],
        access=Access.ROOT,
        act=list_tokens,
    ),
    Route(
        method="DELETE",
        path=TOKENS + "/{token_id}",
        summary="Revoke an operator token",
        query=Nothing,
        body=Nothing,
        answer=TokenView,
        access=Access.ROOT,
        act=revoke_token,
    ),
    Route(
        method="GET",
        path="/v1/clock",
        summary="What time it is for the tenant",
        query=Nothing,
        body=Nothing,
        answer=TenantClock,
        act=read_clock,
    ),
    Route(
        method="POST",
        path="/v1/clock/advance",
        summary="Move a sandbox's clock forward",
        query=Nothing,
        body=Advance,
        answer=TenantClock,
        act=advance,
    ),
)
