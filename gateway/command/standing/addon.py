"""Add-ons: what is taken with a subscription, and how many."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
import typer
from rich.console import RenderableType

from gateway.command.client.page import Page, read_pages
from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.option import Limit, instant_or_none
from gateway.command.terminal.table import day, facts_of, table_of

addons = typer.Typer(name="addons", help="What is taken with a subscription.", no_args_is_help=True)

SubscriptionArgument = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="The subscription's id.")]
AddonArgument = Annotated[str, typer.Argument(metavar="ADDON", help="The add-on's code.")]


class _Addon(msgspec.Struct, frozen=True, kw_only=True):
    addon: str
    quantity: int | None = None
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None


class _Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    quantity: int
    effective_at: str | None = None
    expires_at: str | None = None


@hang(addons, "list")
def list_addons(desk: Desk, subscription_id: SubscriptionArgument, *, limit: Limit = 100) -> None:
    """All that was ever taken with a subscription."""
    path = route("/v1/subscriptions/{}/addons", subscription_id)
    desk.show(lambda planes: read_pages(planes.control, path, kind=_Addon, limit=limit), _table)


@hang(addons, "take")
def take_addon(
    desk: Desk,
    subscription_id: SubscriptionArgument,
    *,
    addon: AddonArgument,
    quantity: Annotated[int, typer.Option(min=1, help="How many there shall be.")] = 1,
    effective_at: Annotated[
        str, typer.Option(metavar="TIME", help="From when on (ISO 8601); now if left out.")
    ] = "",
    expires_at: Annotated[
        str, typer.Option(metavar="TIME", help="Until when (ISO 8601); for good if left out.")
    ] = "",
) -> None:
    """Set how many of an add-on a subscription has."""
    path = route("/v1/subscriptions/{}/addons/{}", subscription_id, addon)
    body = _Draft(
        quantity=quantity,
        effective_at=instant_or_none(effective_at, field="effective-at"),
        expires_at=instant_or_none(expires_at, field="expires-at"),
    )
    desk.show(lambda planes: planes.control.put(path, _Addon, body=body), _facts)


@hang(addons, "drop")
def drop_addon(desk: Desk, subscription_id: SubscriptionArgument, *, addon: AddonArgument) -> None:
    """Take an add-on away at once."""
    path = route("/v1/subscriptions/{}/addons/{}", subscription_id, addon)
    desk.show(lambda planes: planes.control.delete(path, _Addon), _facts)


def _table(page: Page[_Addon]) -> RenderableType:
    return table_of(
        ("Add-on", ">Quantity", "From", "Until", "Ended"),
        (
            (one.addon, one.quantity, day(one.effective_at), day(one.expires_at), day(one.ended_at))
            for one in page.items
        ),
    )


def _facts(one: _Addon) -> RenderableType:
    return facts_of(
        (
            ("add-on", one.addon),
            ("quantity", one.quantity),
            ("from", day(one.effective_at)),
            ("until", day(one.expires_at)),
        )
    )
