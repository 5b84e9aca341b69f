"""What a customer may do: trials and overrides of its own, and what comes of all its sources."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from gateway.command.client.page import Page, read_pages
from gateway.command.client.route import route
from gateway.command.standing.guard import BudgetView, GuardView, guard_rows, node_table
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.document import read_toml
from gateway.command.terminal.option import CustomerArgument, IdempotencyKey, Limit, instant_or_none, key_or_new
from gateway.command.terminal.table import day, facts_of, table_of

entitlements = typer.Typer(
    name="entitlements", help="What a customer may do, and where it comes from.", no_args_is_help=True
)


class Kind(StrEnum):
    """A trial widens until its end; an override replaces everything else."""

    TRIAL = "trial"
    OVERRIDE = "override"


class _Terms(msgspec.Struct, frozen=True, kw_only=True):
    feature: str = ""
    enabled: bool = True
    value: str = ""


class _Own(msgspec.Struct, frozen=True, kw_only=True):
    entitlement_id: str
    kind: str = ""
    terms: _Terms = _Terms()
    note: str = ""
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None


class _Source(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    code: str = ""
    version: int | None = None
    quantity: int | None = None
    expires_at: datetime | None = None


class _Feature(msgspec.Struct, frozen=True, kw_only=True):
    feature: str
    kind: str = ""
    enabled: bool = True
    value: str = ""
    slice_units: int = 0
    shadow: bool = False
    guard: GuardView = GuardView()
    sources: tuple[_Source, ...] = ()


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    version: int
    since_at: datetime | None = None


class _Resolved(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str
    status: str = ""
    at: datetime | None = None
    stale_at: datetime | None = None
    plan: _Plan | None = None
    features: tuple[_Feature, ...] = ()
    budgets: tuple[BudgetView, ...] = ()


class Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is given, as the control plane takes it."""

    kind: str
    terms: dict[str, object]
    effective_at: str | None = None
    expires_at: str | None = None
    note: str = ""


def draft(  # noqa: PLR0913 - the options of a command
    *,
    feature: Annotated[str, typer.Argument(help="The feature's code.")],
    kind: Annotated[Kind, typer.Option(help="A trial widens until its end; an override replaces all else.")],
    terms: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The terms in TOML, in a catalog's words: limits, rates, levels."),
    ] = None,
    value: Annotated[str, typer.Option(help="Of a static feature.")] = "",
    deny: Annotated[bool, typer.Option("--deny", help="Nothing is allowed (an override).")] = False,
    effective_at: Annotated[
        str, typer.Option(metavar="TIME", help="From when on (ISO 8601); now if left out.")
    ] = "",
    expires_at: Annotated[str, typer.Option(metavar="TIME", help="Until when (ISO 8601); a trial needs it.")] = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> Draft:
    """The options of something given. Raises: InvalidInput where a time is none, or the file is no TOML."""
    told = read_toml(terms) if terms else {}
    told |= {"feature": feature} | ({"value": value} if value else {}) | ({"enabled": False} if deny else {})
    return Draft(
        kind=kind.value,
        terms=told,
        effective_at=instant_or_none(effective_at, field="effective-at"),
        expires_at=instant_or_none(expires_at, field="expires-at"),
        note=note,
    )


@hang(entitlements, "show")
def show_resolved(desk: Desk, customer_id: CustomerArgument) -> None:
    """What a customer may do now, and which sources say so."""
    path = route("/v1/customers/{}/entitlements/resolved", customer_id)
    desk.show(lambda planes: planes.control.get(path, _Resolved), _resolved)


@hang(entitlements, "list")
def list_entitlements(desk: Desk, customer_id: CustomerArgument, *, limit: Limit = 100) -> None:
    """A customer's trials and overrides, ended ones among them."""
    path = route("/v1/customers/{}/entitlements", customer_id)
    desk.show(lambda planes: read_pages(planes.control, path, kind=_Own, limit=limit), _table)


@hang(entitlements, "give", draft=draft)
def give(desk: Desk, customer_id: CustomerArgument, *, draft: Draft, idempotency_key: IdempotencyKey = "") -> None:
    """Give a customer a trial or an override of one feature."""
    path, key = route("/v1/customers/{}/entitlements", customer_id), key_or_new(idempotency_key)
    desk.show(lambda planes: planes.control.post(path, _Own, body=draft, idempotency_key=key), _facts)


@hang(entitlements, "end")
def end(
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    entitlement_id: Annotated[str, typer.Argument(help="As `entitlements list` shows it.")],
) -> None:
    """End a trial or an override at once."""
    path = route("/v1/customers/{}/entitlements/{}", customer_id, entitlement_id)
    desk.show(lambda planes: planes.control.delete(path, _Own), _facts)


def _table(page: Page[_Own]) -> RenderableType:
    return table_of(
        ("Entitlement", "Kind", "Feature", "From", "Until", "Ended", "Note"),
        (
            (
                one.entitlement_id,
                one.kind,
                _word(one.terms),
                day(one.effective_at),
                day(one.expires_at),
                day(one.ended_at),
                one.note,
            )
            for one in page.items
        ),
    )


def _facts(one: _Own) -> RenderableType:
    return facts_of(
        (
            ("entitlement", one.entitlement_id),
            ("kind", one.kind),
            ("feature", _word(one.terms)),
            ("from", day(one.effective_at)),
            ("until", day(one.expires_at)),
            ("ended", day(one.ended_at)),
            ("note", one.note),
        )
    )


def _word(terms: _Terms) -> str:
    return terms.feature + (f" = {terms.value}" if terms.value else "") + ("" if terms.enabled else " (denied)")


def _resolved(shown: _Resolved) -> RenderableType:
    plan = (
        f"{shown.plan.code}, version {shown.plan.version}, since {day(shown.plan.since_at)}" if shown.plan else ""
    )
    head = facts_of(
        (("customer", shown.customer_id), ("status", shown.status), ("at", day(shown.at)), ("plan", plan))
    )
    features = table_of(
        ("Feature", "Kind", "May", "Bounds", "From"),
        (
            (
                one.feature,
                one.kind,
                _may(one),
                "; ".join(guard_rows(one.guard)),
                ", ".join(map(_source, one.sources)),
            )
            for one in shown.features
        ),
        title="Features",
    )
    return Group(head, "", features, *(("", node_table(shown.budgets)) if shown.budgets else ()))


def _may(one: _Feature) -> str:
    told = one.value or "yes" if one.enabled else "no"
    told += f" (in slices of {one.slice_units})" if one.slice_units else ""
    return f"{told} (watched only)" if one.shadow else told


def _source(one: _Source) -> str:
    told = f"{one.source} {one.code}"
    told += f" v{one.version}" if one.version is not None else ""
    told += f" x{one.quantity}" if one.quantity is not None else ""
    return told + (f" until {day(one.expires_at)}" if one.expires_at else "")
