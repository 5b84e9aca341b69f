"""Customers, their API keys and their subscriptions."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import RenderableType

from gateway.command.client.account import ApiKey, Customer
from gateway.command.client.page import Page, read_pages
from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.option import CustomerArgument, IdempotencyKey, Limit, key_or_new
from gateway.command.terminal.table import day, facts_of, table_of

customers = typer.Typer(name="customers", help="Who is billed.", no_args_is_help=True)
keys = typer.Typer(name="keys", help="API keys of a customer's callers.", no_args_is_help=True)


@hang(customers, "list")
def list_customers(desk: Desk, *, limit: Limit = 100) -> None:
    """All customers of the tenant."""
    desk.show(
        lambda planes: read_pages(planes.control, "/v1/customers", kind=Customer, limit=limit), _customer_table
    )


@hang(customers, "show")
def show_customer(desk: Desk, customer_id: CustomerArgument) -> None:
    """One customer."""
    desk.show(lambda planes: planes.control.get(route("/v1/customers/{}", customer_id), Customer), _customer_facts)


class _Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a new customer is told of; the control plane knows the rest."""

    customer_id: str
    name: str = ""
    time_zone: str = ""
    collection: str = ""
    payment_terms_days: int | None = None
    stripe_customer: str = ""
    stripe_payment_method: str = ""


@hang(customers, "create")
def create_customer(  # noqa: PLR0913 - the options of a command
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    name: Annotated[str, typer.Option(help="What people call them.")] = "",
    time_zone: Annotated[str, typer.Option(help="IANA zone of their days and months.")] = "",
    stripe_customer: Annotated[str, typer.Option(help="Collect by Stripe from this customer.")] = "",
    stripe_payment_method: Annotated[str, typer.Option(help="The payment method to collect from.")] = "",
    payment_terms_days: Annotated[int | None, typer.Option(help="Days until an invoice is due.")] = None,
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Create a customer; without a Stripe customer it pays offline, by ACH or wire."""
    draft = _Draft(
        customer_id=customer_id,
        name=name,
        time_zone=time_zone,
        collection="stripe" if stripe_customer else "",
        payment_terms_days=payment_terms_days,
        stripe_customer=stripe_customer,
        stripe_payment_method=stripe_payment_method,
    )
    key = key_or_new(idempotency_key)
    desk.show(
        lambda planes: planes.control.post("/v1/customers", Customer, body=draft, idempotency_key=key),
        _customer_facts,
    )


@hang(customers, "suspend")
def suspend(desk: Desk, customer_id: CustomerArgument) -> None:
    """Stop serving a customer: every check is refused as `suspended`."""
    _act(desk, customer_id, act="suspend")


@hang(customers, "resume")
def resume(desk: Desk, customer_id: CustomerArgument) -> None:
    """Serve a suspended customer again; one whom dunning has suspended must have paid too."""
    _act(desk, customer_id, act="resume")


def _act(desk: Desk, customer_id: str, *, act: str) -> None:
    path, key = route("/v1/customers/{}/{}", customer_id, act), key_or_new("")
    desk.show(lambda planes: planes.control.post(path, Customer, idempotency_key=key), _customer_facts)


def _customer_table(page: Page[Customer]) -> RenderableType:
    return table_of(
        ("Customer", "Name", "Status", "Collection", "Time zone", "Since"),
        (
            (one.customer_id, one.name, one.status, one.collection, one.time_zone, day(one.created_at))
            for one in page.items
        ),
    )


def _customer_facts(one: Customer) -> RenderableType:
    return facts_of(
        (
            ("customer", one.customer_id),
            ("name", one.name),
            ("status", one.status),
            ("suspended by you", day(one.operator_suspended_at)),
            ("suspended by dunning", day(one.dunning_suspended_at)),
            ("collection", one.collection),
            ("terms", f"{one.payment_terms_days} days"),
            ("time zone", one.time_zone),
            ("stripe", f"{one.stripe_customer} {one.stripe_payment_method}".strip()),
            ("since", day(one.created_at)),
        )
    )


@hang(keys, "list")
def list_keys(desk: Desk, customer_id: CustomerArgument, *, limit: Limit = 100) -> None:
    """A customer's keys; only their last characters are known."""
    path = route("/v1/customers/{}/keys", customer_id)
    desk.show(lambda planes: read_pages(planes.control, path, kind=ApiKey, limit=limit), _key_table)


@hang(keys, "create")
def create_key(
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    path: Annotated[str, typer.Option(help="Whose budgets it draws on, as team:ml/project:chat.")] = "",
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Issue a key. It is shown this once."""
    body = {"label": label, "path": path}
    key = key_or_new(idempotency_key)
    where = route("/v1/customers/{}/keys", customer_id)
    desk.show(lambda planes: planes.control.post(where, ApiKey, body=body, idempotency_key=key), _key_facts)


@hang(keys, "revoke")
def revoke_key(
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    key_id: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")],
) -> None:
    """End a key: from now on it is unknown."""
    path = route("/v1/customers/{}/keys/{}", customer_id, key_id)
    desk.show(lambda planes: planes.control.delete(path, ApiKey), _key_facts)


def _key_table(page: Page[ApiKey]) -> RenderableType:
    return table_of(
        ("Key", "Ends in", "Label", "Path", "Created", "Revoked"),
        (
            (one.key_id, one.hint, one.label, one.path, day(one.created_at), day(one.revoked_at))
            for one in page.items
        ),
    )


def _key_facts(one: ApiKey) -> RenderableType:
    return facts_of(
        (
            ("key", one.key or f"… {one.hint}"),
            ("id", one.key_id),
            ("customer", one.customer_id),
            ("label", one.label),
            ("path", one.path),
            ("created", day(one.created_at)),
            ("revoked", day(one.revoked_at)),
        )
    )
