"""Subscriptions: who is on what plan, from when to when."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import RenderableType

from gateway.command.client.account import Subscription
from gateway.command.client.page import Page, read_pages
from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.option import (
    CustomerArgument,
    CustomerFilter,
    IdempotencyKey,
    Limit,
    instant_or_none,
    key_or_new,
)
from gateway.command.terminal.table import day, facts_of, table_of

subscriptions = typer.Typer(name="subscriptions", help="Who is on what plan.", no_args_is_help=True)

SubscriptionArgument = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="The subscription's id.")]


@hang(subscriptions, "list")
def list_subscriptions(desk: Desk, *, customer: CustomerFilter = "", limit: Limit = 100) -> None:
    """All subscriptions, or one customer's."""
    query = {"customer_id": customer}
    desk.show(
        lambda planes: read_pages(planes.control, "/v1/subscriptions", kind=Subscription, query=query, limit=limit),
        _table,
    )


@hang(subscriptions, "show")
def show_subscription(desk: Desk, subscription_id: SubscriptionArgument) -> None:
    """One subscription and its open period."""
    path = route("/v1/subscriptions/{}", subscription_id)
    desk.show(lambda planes: planes.control.get(path, Subscription), _facts)


@hang(subscriptions, "create")
def create_subscription(
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    plan: Annotated[str, typer.Argument(help="The plan's code.")],
    start_at: Annotated[str, typer.Option(metavar="TIME", help="From when on (ISO 8601); now if left out.")] = "",
    draft_invoice: Annotated[bool, typer.Option("--draft-invoice", help="Leave the first bill a draft.")] = False,
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Put a customer on the newest version of a plan."""
    body: dict[str, object] = {"customer_id": customer_id, "plan": plan}
    body |= {"draft_invoice": True} if draft_invoice else {}
    start = instant_or_none(start_at, field="start-at")
    body |= {"start_at": start} if start else {}
    key = key_or_new(idempotency_key)
    desk.show(
        lambda planes: planes.control.post("/v1/subscriptions", Subscription, body=body, idempotency_key=key),
        _facts,
    )


@hang(subscriptions, "cancel")
def cancel_subscription(
    desk: Desk, subscription_id: SubscriptionArgument, *, idempotency_key: IdempotencyKey = ""
) -> None:
    """Let a subscription end with its open period."""
    path, key = route("/v1/subscriptions/{}/cancel", subscription_id), key_or_new(idempotency_key)
    desk.show(
        lambda planes: planes.control.post(path, Subscription, body={"at": "end"}, idempotency_key=key), _facts
    )


class ChangeAt(StrEnum):
    """At once, or with the end of the open period."""

    NOW = "now"
    END = "end"


@hang(subscriptions, "change")
def change_subscription(
    desk: Desk,
    subscription_id: SubscriptionArgument,
    *,
    plan: Annotated[str, typer.Argument(help="The plan's code; its own code means the newest version.")],
    at: Annotated[ChangeAt, typer.Option(help="At once, or with the end of the open period.")],
    idempotency_key: IdempotencyKey = "",
) -> None:
    """Put a subscription on another plan, or on the newest version of its own."""
    path, key = route("/v1/subscriptions/{}/change", subscription_id), key_or_new(idempotency_key)
    body = {"plan": plan, "at": at.value}
    desk.show(lambda planes: planes.control.post(path, Subscription, body=body, idempotency_key=key), _facts)


def _table(page: Page[Subscription]) -> RenderableType:
    return table_of(
        ("Subscription", "Customer", "Plan", ">Version", "State", "Started", "Open period"),
        (
            (
                one.subscription_id,
                one.customer_id,
                one.plan_code,
                one.plan_version,
                _state(one),
                day(one.started_at),
                _period(one),
            )
            for one in page.items
        ),
    )


def _facts(one: Subscription) -> RenderableType:
    return facts_of(
        (
            ("subscription", one.subscription_id),
            ("customer", one.customer_id),
            ("plan", f"{one.plan_code}, version {one.plan_version}"),
            ("state", _state(one)),
            ("changes to", _change(one)),
            ("started", day(one.started_at)),
            ("open period", _period(one)),
            ("ended", day(one.ended_at)),
        )
    )


def _state(one: Subscription) -> str:
    return f"{one.state}, ends with its period" if one.cancel_at_end and one.state == "active" else one.state


def _change(one: Subscription) -> str:
    if one.change is None:
        return ""
    return f"{one.change.plan_code}, version {one.change.plan_version}, from {day(one.change.at)}"


def _period(one: Subscription) -> str:
    return "" if one.period is None else f"{day(one.period.start_at)} to {day(one.period.end_at)}"
