"""The catalog: what is sold, applied from a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from gateway.command.client.account import Published
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.document import read_toml
from gateway.command.terminal.table import table_of

catalog = typer.Typer(
    name="catalog", help="What is sold: meters, features, plans and prices.", no_args_is_help=True
)


class _Meter(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    event: str = ""
    aggregation: str = ""
    field: str = ""


class _Feature(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    kind: str = ""
    meter: str = ""
    name: str = ""


class _Entitlement(msgspec.Struct, frozen=True, kw_only=True):
    feature: str


class _Tier(msgspec.Struct, frozen=True, kw_only=True):
    upto: int | str | None = None
    unit_amount: str = "0"
    flat_amount: str = "0"


class _Price(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    meter: str = ""
    model: str = ""
    unit_amount: str = ""
    flat_amount: str = ""
    per: int | str = 1
    package_units: int = 1
    tiers: tuple[_Tier, ...] = ()
    pay: str = "arrears"


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    currency: str = ""
    interval: str = "month"
    fee_amount: str = "0"
    prices: tuple[_Price, ...] = ()


class _Addon(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    name: str = ""
    entitlements: tuple[_Entitlement, ...] = ()


class _Catalog(msgspec.Struct, frozen=True, kw_only=True):
    meters: tuple[_Meter, ...] = ()
    features: tuple[_Feature, ...] = ()
    plans: tuple[_Plan, ...] = ()
    addons: tuple[_Addon, ...] = ()


@hang(catalog, "show")
def show_catalog(desk: Desk) -> None:
    """What is sold now."""
    desk.show(lambda planes: planes.control.get("/v1/catalog", _Catalog), _catalog_page)


@hang(catalog, "apply")
def apply_catalog(
    desk: Desk, file: Annotated[Path, typer.Argument(metavar="FILE", help="A catalog in TOML.")]
) -> None:
    """Put a catalog into force, whole; plans whose terms changed get a new version."""
    desk.show(lambda planes: planes.control.put("/v1/catalog", Published, body=read_toml(file)), _published)


def _published(published: Published) -> RenderableType:
    return table_of(
        ("Plan", ">Version", ""),
        ((one.code, one.version, "new" if one.changed else "as it was") for one in published.plans),
    )


def _catalog_page(shown: _Catalog) -> RenderableType:
    meters = table_of(
        ("Meter", "Event", "Aggregation", "Field"),
        ((one.code, one.event, one.aggregation, one.field) for one in shown.meters),
        title="Meters",
    )
    features = table_of(
        ("Feature", "Kind", "Meter", "Name"),
        ((one.code, one.kind, one.meter, one.name) for one in shown.features),
        title="Features",
    )
    prices = table_of(
        ("Plan", "Fee", "Price", "Meter", "Model", "Paid", "Rate"),
        (row for plan in shown.plans for row in _price_rows(plan)),
        title="Plans and prices",
    )
    addons = table_of(
        ("Add-on", "Name", "Adds to"),
        ((one.code, one.name, ", ".join(what.feature for what in one.entitlements)) for one in shown.addons),
        title="Add-ons",
    )
    return Group(meters, "", features, "", prices, *(("", addons) if shown.addons else ()))


def _price_rows(plan: _Plan) -> list[tuple[str, ...]]:
    fee = f"{plan.fee_amount} {plan.currency} a {plan.interval}"
    if not plan.prices:
        return [(plan.code, fee, "", "", "", "", "")]
    return [
        (plan.code, fee, price.code, price.meter, price.model, price.pay, _rate(price, plan.currency))
        for price in plan.prices
    ]


def _rate(price: _Price, currency: str) -> str:
    """A price in one line: `2.50 USD per 1000000`, or its tiers."""
    if price.tiers:
        return "; ".join(_tier(tier) for tier in price.tiers) + f" ({currency})"
    parts = [f"{price.flat_amount} {currency} flat"] if price.flat_amount else []
    if price.unit_amount:
        package = f" package of {price.package_units}" if price.package_units > 1 else ""
        per = f" per {price.per}" if price.per != 1 else ""
        parts.append(f"{price.unit_amount} {currency}{package}{per}")
    return " + ".join(parts)


def _tier(tier: _Tier) -> str:
    bound = "beyond" if tier.upto is None else f"up to {tier.upto}"
    flat = "" if tier.flat_amount == "0" else f" + {tier.flat_amount}"
    return f"{bound} {tier.unit_amount}{flat}"
