"""Wallets: how money comes into them, credit that nobody paid for, and what is in them."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from typing import Annotated

import msgspec

from billing_core.api.route import Call, FlowRoute, Retry, Route
from billing_core.api.routes.payment import PaymentView, payment_view
from billing_core.api.wire import Nothing
from billing_core.errors import InvalidInput
from billing_core.flows.money import top_up as top_ups
from billing_core.flows.money.grant import issue
from billing_core.flows.money.top_up import TopUpOrder
from billing_core.flows.setup.publish import clock_of
from billing_core.payments.payment import Method, TopUp
from billing_core.store.database import Transaction
from billing_core.store.money import grant as grants
from billing_core.store.money.grant import GrantRow
from billing_core.store.setup.customer import Collection, customer_of
from billing_core.store.setup.tenant import tenant_of
from billing_core.values.invariant import invariant
from billing_core.values.text import Amount, Instant, Label, Note, grant_nanos, payment_minor
from billing_core.wallets.grant import MAX_PRIORITY, GrantKind, GrantOrder

Priority = Annotated[int, msgspec.Meta(ge=0, le=MAX_PRIORITY)]


class GrantDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Credit to be given. Smaller priorities burn first; no effective instant means at once."""

    amount: Amount
    kind: GrantKind = GrantKind.PROMOTIONAL
    priority: Priority = 0
    effective_at: Instant | None = None
    expires_at: Instant | None = None
    note: Note = ""


class GrantView(msgspec.Struct, frozen=True, kw_only=True):
    """A grant as far as usage has been written down. Times are on the tenant's clock."""

    grant_id: str
    customer_id: str
    currency: str
    kind: GrantKind
    amount_nanos: int
    spent_nanos: int
    lapsed_nanos: int
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    payment_id: str | None
    note: str
    created_at: datetime
    voided_at: datetime | None


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """A balance and the grants that make it. Units: nanos; `balance_nanos` is what is left of the usable ones.

    What was decided and not yet flushed, or is held, is still in the balance; the gateway answers live.
    """

    currency: str
    balance_nanos: int
    grants: tuple[GrantView, ...]


class Wallets(msgspec.Struct, frozen=True, kw_only=True):
    """All wallets of a customer, by currency."""

    customer_id: str
    wallets: tuple[Wallet, ...]


class TopUpDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Money for a wallet. Without a method it comes as the customer's invoices are paid; offline, that is by wire.

    An ACH or wire transfer that names its reference has been seen; without one it is waited for.
    """

    amount: Amount
    method: Method | None = None
    reference: Label = ""
    priority: Priority = 0
    expires_at: Instant | None = None
    note: Note = ""


class ToppedUpView(msgspec.Struct, frozen=True, kw_only=True):
    """The payment, and the grant that it bought once it has succeeded."""

    payment: PaymentView
    grant_id: str | None


async def top_up(call: Call[TopUpDraft, Nothing]) -> ToppedUpView:
    """Money for a wallet; the idempotency key names the payment for good."""
    draft, currency, customer_id = call.body, call.path["currency"], call.path["customer_id"]
    order = TopUpOrder(
        tenant_id=call.tenant_id,
        customer_id=customer_id,
        currency=currency,
        amount_minor=payment_minor(draft.amount, currency, field="amount"),
        method=draft.method or await _usual_method(call),
        top_up=TopUp(priority=draft.priority, expires_at=draft.expires_at, note=draft.note),
        reference=draft.reference,
        request_key=call.idempotency_key,
    )
    done = await top_ups.top_up(call.house.database, call.house.processor, order=order, now=call.now)
    return ToppedUpView(payment=payment_view(done.payment), grant_id=done.grant_id)


async def _usual_method(call: Call[TopUpDraft, Nothing]) -> Method:
    async with call.house.database.transaction() as tx:
        customer = await customer_of(tx, call.tenant_id, customer_id=call.path["customer_id"])
    return Method.STRIPE if customer.collection is Collection.STRIPE else Method.WIRE


async def give(tx: Transaction, call: Call[GrantDraft, Nothing]) -> GrantView:
    """Promotional credit."""
    draft, currency = call.body, call.path["currency"]
    if draft.kind is not GrantKind.PROMOTIONAL:
        raise InvalidInput("a paid grant comes with the payment of a top-up", field="kind")
    order = GrantOrder(
        tenant_id=call.tenant_id,
        customer_id=call.path["customer_id"],
        currency=currency,
        kind=draft.kind,
        amount_nanos=grant_nanos(draft.amount, currency, field="amount"),
        priority=draft.priority,
        effective_at=draft.effective_at,
        expires_at=draft.expires_at,
        note=draft.note,
    )
    grant_id = await issue(tx, order, now=call.now)
    row = await grants.by_id(tx, tenant_id=call.tenant_id, grant_id=grant_id)
    invariant(row is not None, "a grant that was issued is there")
    return _view(row)


async def read(tx: Transaction, call: Call[Nothing, Nothing]) -> Wallets:
    """A customer's wallets."""
    customer = await customer_of(tx, call.tenant_id, customer_id=call.path["customer_id"])
    at = clock_of(await tenant_of(tx, call.tenant_id), now=call.now).now
    rows = await grants.of_customer(tx, tenant_id=call.tenant_id, customer_id=customer.customer_id)
    wallets = [_wallet(currency, tuple(group), at=at) for currency, group in groupby(rows, key=_currency)]
    return Wallets(customer_id=customer.customer_id, wallets=tuple(wallets))


def _currency(row: GrantRow) -> str:
    return row.currency


def _wallet(currency: str, rows: tuple[GrantRow, ...], *, at: datetime) -> Wallet:
    usable = (row.amount_nanos - row.spent_nanos - row.lapsed_nanos for row in rows if _is_usable(row, at=at))
    return Wallet(currency=currency, balance_nanos=sum(usable), grants=tuple(_view(row) for row in rows))


def _is_usable(row: GrantRow, *, at: datetime) -> bool:
    is_expired = row.expires_at is not None and row.expires_at <= at
    return row.voided_at is None and row.effective_at <= at and not is_expired


def _view(row: GrantRow | None) -> GrantView:
    return msgspec.convert(row, GrantView, from_attributes=True)


WALLETS = "/v1/customers/{customer_id}/wallets"

ROUTES = (
    FlowRoute(
        method="POST",
        path=WALLETS + "/{currency}/top-ups",
        summary="Top a wallet up",
        query=Nothing,
        body=TopUpDraft,
        answer=ToppedUpView,
        status=201,
        retry=Retry.REQUIRED,
        act=top_up,
    ),
    Route(
        method="POST",
        path=WALLETS + "/{currency}/grants",
        summary="Give promotional credit",
        query=Nothing,
        body=GrantDraft,
        answer=GrantView,
        status=201,
        retry=Retry.REQUIRED,
        act=give,
    ),
    Route(
        method="GET",
        path=WALLETS,
        summary="A customer's prepaid balances, as far as usage has been written down",
        query=Nothing,
        body=Nothing,
        answer=Wallets,
        act=read,
    ),
)
