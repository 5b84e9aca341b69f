"""Tenants, the tokens of their operators, and a sandbox's clock."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import RenderableType

from gateway.command.client.account import Clock, Tenant, Token
from gateway.command.client.page import Page, read_pages
from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.option import IdempotencyKey, Limit, instant_or_none, key_or_new
from gateway.command.terminal.table import day, facts_of, table_of

tenants = typer.Typer(name="tenants", help="Workspaces of this installation (root token).", no_args_is_help=True)
tokens = typer.Typer(name="tokens", help="Operator tokens of a tenant (root token).", no_args_is_help=True)
clock = typer.Typer(name="clock", help="The tenant's clock; a sandbox's can be moved on.", no_args_is_help=True)

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]


class _Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a new tenant is told of."""

    tenant_id: str = ""
    name: str = ""
    sandbox: bool = False
    clock_at: str | None = None


@hang(tenants, "list")
def list_tenants(desk: Desk, *, limit: Limit = 100) -> None:
    """All tenants."""
    desk.show(lambda planes: read_pages(planes.root, "/v1/tenants", kind=Tenant, limit=limit), _tenant_table)


@hang(tenants, "create")
def create_tenant(
    desk: Desk,
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="Its id; made if left out.")] = "",
    *,
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    sandbox: Annotated[bool, typer.Option("--sandbox", help="With a clock of its own.")] = False,
    clock_at: Annotated[str, typer.Option(metavar="TIME", help="What time it is in the sandbox.")] = "",
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Create a tenant. Its operator's token is shown this once."""
    draft = _Draft(
        tenant_id=tenant_id,
        name=name,
        sandbox=sandbox,
        clock_at=instant_or_none(clock_at, field="clock-at"),
    )
    key = key_or_new(idempotency_key)
    desk.show(
        lambda planes: planes.root.post("/v1/tenants", Tenant, body=draft, idempotency_key=key), _tenant_facts
    )


def _tenant_table(page: Page[Tenant]) -> RenderableType:
    return table_of(
        ("Tenant", "Name", "Kind", "Since"),
        ((one.tenant_id, one.name, "sandbox" if one.sandbox else "", day(one.created_at)) for one in page.items),
    )


def _tenant_facts(one: Tenant) -> RenderableType:
    return facts_of(
        (
            ("tenant", one.tenant_id),
            ("name", one.name),
            ("kind", "sandbox" if one.sandbox else ""),
            ("operator token", one.operator_token),
        )
    )


@hang(tokens, "list")
def list_tokens(desk: Desk, tenant_id: TenantArgument, *, limit: Limit = 100) -> None:
    """A tenant's operator tokens; only their last characters are known."""
    path = route("/v1/tenants/{}/tokens", tenant_id)
    desk.show(lambda planes: read_pages(planes.root, path, kind=Token, limit=limit), _token_table)


@hang(tokens, "create")
def create_token(
    desk: Desk,
    tenant_id: TenantArgument,
    *,
    label: Annotated[str, typer.Option(help="What the token is for.")] = "",
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Issue an operator token. It is shown this once."""
    path, key = route("/v1/tenants/{}/tokens", tenant_id), key_or_new(idempotency_key)
    desk.show(
        lambda planes: planes.root.post(path, Token, body={"label": label}, idempotency_key=key), _token_facts
    )


@hang(tokens, "revoke")
def revoke_token(
    desk: Desk,
    tenant_id: TenantArgument,
    *,
    token_id: Annotated[str, typer.Argument(help="The token's id, as `tokens list` shows it.")],
) -> None:
    """End a token."""
    path = route("/v1/tenants/{}/tokens/{}", tenant_id, token_id)
    desk.show(lambda planes: planes.root.delete(path, Token), _token_facts)


def _token_table(page: Page[Token]) -> RenderableType:
    return table_of(
        ("Token", "Ends in", "Label", "Created", "Revoked"),
        ((one.token_id, one.hint, one.label, day(one.created_at), day(one.revoked_at)) for one in page.items),
    )


def _token_facts(one: Token) -> RenderableType:
    return facts_of(
        (
            ("operator token", one.operator_token or f"… {one.hint}"),
            ("id", one.token_id),
            ("label", one.label),
            ("revoked", day(one.revoked_at)),
        )
    )


@hang(clock, "show")
def show_clock(desk: Desk) -> None:
    """What time it is for the tenant."""
    desk.show(lambda planes: planes.control.get("/v1/clock", Clock), _clock_facts)


@hang(clock, "advance")
def advance_clock(
    desk: Desk,
    to: Annotated[
        str, typer.Argument(metavar="TIME", help="The instant to move on to (ISO 8601, UTC unless told).")
    ],
    *,
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Move a sandbox's clock forward; periods that end on the way are closed, billed and collected."""
    body, key = {"to": instant_or_none(to, field="to")}, key_or_new(idempotency_key)
    desk.show(
        lambda planes: planes.control.post("/v1/clock/advance", Clock, body=body, idempotency_key=key),
        _clock_facts,
    )


def _clock_facts(one: Clock) -> RenderableType:
    ahead = f"{one.offset_ms / 1_000:,.0f} s ahead of the real time" if one.offset_ms else "the real time"
    return facts_of((("now", one.now.isoformat()), ("", ahead), ("kind", "sandbox" if one.sandbox else "")))
