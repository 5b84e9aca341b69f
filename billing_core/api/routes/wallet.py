"""Wallets: how money comes into them, credit that nobody paid for, limits to overdraw, and what is in them.

A wallet's name is a currency, or a credit unit of the catalog. Whatever changes one answers when the gateway knows
of it, so that the next check counts it; `applied` is false where Redis is away, and then it follows later.
"""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from typing import Annotated

import msgspec

from billing_core.api.route import Call, FlowRoute, Retry, Route
from billing_core.api.routes.payment import PaymentView, payment_view
from billing_core.api.wire import Nothing
from billing_core.errors import InvalidInput, NotFound
from billing_core.flows.money import grant as credit
from billing_core.flows.money import top_up as top_ups
from billing_core.flows.money.top_up import TopUpOrder
from billing_core.flows.setup.publish import clock_of
from billing_core.payments.payment import Method, TopUp
from billing_core.store.database import Transaction
from billing_core.store.money import grant as grants
from billing_core.store.money.grant import GrantRow
from billing_core.store.setup.customer import Collection, customer_of
from billing_core.store.setup.tenant import tenant_of
from billing_core.values.ids import Code
from billing_core.values.invariant import invariant
from billing_core.values.money import is_unit
from billing_core.values.text import Amount, Instant, Label, Note, grant_nanos, limit_nanos, payment_minor
from billing_core.wallets.grant import MAX_FEATURES, MAX_PRIORITY, GrantKind, GrantOrder, Price

Priority = Annotated[int, msgspec.Meta(ge=0, le=MAX_PRIORITY)]
Features = Annotated[tuple[Code, ...], msgspec.Meta(max_length=MAX_FEATURES)]


class PriceDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all of the credits cost, in money."""

    currency: str
    amount: Amount


class BlockDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A credit block. Smaller priorities burn first; no effective instant means at once.

    `features` are those that it may pay for; none means all. Credits have a price; money costs what it is.
    """

    amount: Amount
    price: PriceDraft | None = None
    priority: Priority = 0
    effective_at: Instant | None = None
    expires_at: Instant | None = None
    features: Features = ()
    note: Note = ""


class GrantDraft(BlockDraft, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Credit to be given, or a limit to be overdrawn."""

    kind: GrantKind = GrantKind.PROMOTIONAL


class LimitDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The new limit of an overdraft; 0 lets nothing more be drawn."""

    amount: Amount


class PriceView(msgspec.Struct, frozen=True, kw_only=True):
    """What all of a grant costs."""

    currency: str
    nanos: int


class GrantView(msgspec.Struct, frozen=True, kw_only=True):
    """A grant as far as usage has been written down. Times are on the tenant's clock.

    Of an overdraft, `spent_nanos` is what is drawn and not repaid, and `lowered_nanos` its limit if it was lowered.
    """

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
    features: tuple[str, ...]
    price: PriceView | None
    lowered_nanos: int | None
    payment_id: str | None
    note: str
    created_at: datetime
    voided_at: datetime | None


class ToldGrant(GrantView, frozen=True, kw_only=True):
    """A grant that was changed, and whether the gateway knows it."""

    applied: bool = False


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """A balance and the grants that make it. Units: nanos; `balance_nanos` is what is left of the usable ones.

    A limit to be overdrawn is no balance: `overdraft_nanos` can be drawn yet, `owed_nanos` is drawn and not repaid.
    What was decided and not yet flushed, or is held, is still in the balance; the gateway answers live.
    """

    currency: str
    balance_nanos: int
    overdraft_nanos: int
    owed_nanos: int
    grants: tuple[GrantView, ...]


class Wallets(msgspec.Struct, frozen=True, kw_only=True):
    """All wallets of a customer, by currency."""

    customer_id: str
    wallets: tuple[Wallet, ...]


class TopUpDraft(BlockDraft, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Money for a wallet. Without a method it comes as the customer's invoices are paid; offline, that is by wire.

    An ACH or wire transfer that names its reference has been seen; without one it is waited for.
    """

    method: Method | None = None
    reference: Label = ""


class ToppedUpView(msgspec.Struct, frozen=True, kw_only=True):
    """The payment, the grant that it bought once it has succeeded, and whether the gateway knows it."""

    payment: PaymentView
    grant_id: str | None
    applied: bool = False


async def top_up(call: Call[TopUpDraft, Nothing]) -> ToppedUpView:
    """Money for a wallet; the idempotency key names the payment for good."""
    draft, wallet, customer_id = call.body, call.path["currency"], call.path["customer_id"]
    async with call.house.database.transaction() as tx:
        await credit.check_wallet(tx, call.tenant_id, currency=wallet)
    money = _money(draft, wallet)
    order = TopUpOrder(
        tenant_id=call.tenant_id,
        customer_id=customer_id,
        currency=money.currency,
        amount_minor=payment_minor(
            money.amount, money.currency, field="price.amount" if money is draft.price else "amount"
        ),
        method=draft.method or await _usual_method(call),
        top_up=_bought(draft, wallet),
        reference=draft.reference,
        request_key=call.idempotency_key,
    )
    done = await top_ups.top_up(call.house.database, call.house.processor, order=order, now=call.now)
    return ToppedUpView(payment=payment_view(done.payment), grant_id=done.grant_id)


async def _usual_method(call: Call[TopUpDraft, Nothing]) -> Method:
    async with call.house.database.transaction() as tx:
        customer = await customer_of(tx, call.tenant_id, customer_id=call.path["customer_id"])
    return Method.STRIPE if customer.collection is Collection.STRIPE else Method.WIRE


async def give(tx: Transaction, call: Call[GrantDraft, Nothing]) -> ToldGrant:
    """Promotional credit, or a limit to be overdrawn."""
    draft, currency = call.body, call.path["currency"]
    if draft.kind is GrantKind.PAID:
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
        features=draft.features,
        price=_price(draft),
        note=draft.note,
    )
    await credit.check_names(tx, order)
    grant_id = await credit.issue(tx, order, now=call.now)
    row = await grants.by_id(tx, tenant_id=call.tenant_id, grant_id=grant_id)
    invariant(row is not None, "a grant that was issued is there")
    return _told(row)


async def void(tx: Transaction, call: Call[Nothing, Nothing]) -> ToldGrant:
    """Take what is left of a grant out of its wallet. Voiding twice changes nothing."""
    row = await _grant_of(tx, call)
    await credit.void(tx, tenant_id=call.tenant_id, grant_id=row.grant_id, now=call.now)
    return _told(await _grant_of(tx, call))


async def lower(tx: Transaction, call: Call[LimitDraft, Nothing]) -> ToldGrant:
    """Give an overdraft a lower limit."""
    row = await _grant_of(tx, call)
    limit = limit_nanos(call.body.amount, row.currency, field="amount")
    await credit.lower(tx, tenant_id=call.tenant_id, grant_id=row.grant_id, limit_nanos=limit)
    return _told(await _grant_of(tx, call))


async def _grant_of(tx: Transaction, call: Call[LimitDraft, Nothing] | Call[Nothing, Nothing]) -> GrantRow:
    grant_id = call.path["grant_id"]
    row = await grants.by_id(tx, tenant_id=call.tenant_id, grant_id=grant_id)
    if row is None or row.customer_id != call.path["customer_id"]:
        raise NotFound(f"the customer has no grant {grant_id!r}", field="grant_id")
    return row


def _money(draft: BlockDraft, wallet: str) -> PriceDraft:
    """The money that is paid for it, as it was written."""
    if not is_unit(wallet):
        if draft.price is not None:
            raise InvalidInput("money costs what it is; only credits have a price", field="price")
        return PriceDraft(currency=wallet, amount=draft.amount)
    if draft.price is None:
        raise InvalidInput(f"{wallet} is no money: say what the credits cost", field="price")
    return draft.price


def _bought(draft: TopUpDraft, wallet: str) -> TopUp:
    return TopUp(
        priority=draft.priority,
        effective_at=draft.effective_at,
        expires_at=draft.expires_at,
        features=draft.features,
        note=draft.note,
        unit=wallet if is_unit(wallet) else "",
        unit_nanos=grant_nanos(draft.amount, wallet, field="amount") if is_unit(wallet) else 0,
    )


def _price(draft: GrantDraft) -> Price | None:
    if draft.price is None:
        return None
    money = draft.price
    return Price(currency=money.currency, nanos=grant_nanos(money.amount, money.currency, field="price.amount"))


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
    left = {False: 0, True: 0}
    for row in rows:
        if _is_usable(row, at=at):
            left[row.kind is GrantKind.OVERDRAFT] += row.amount_nanos - row.spent_nanos - row.lapsed_nanos
    return Wallet(
        currency=currency,
        balance_nanos=left[False],
        overdraft_nanos=left[True],
        owed_nanos=sum(row.spent_nanos for row in rows if row.kind is GrantKind.OVERDRAFT),
        grants=tuple(_view(row) for row in rows),
    )


def _is_usable(row: GrantRow, *, at: datetime) -> bool:
    is_expired = row.expires_at is not None and row.expires_at <= at
    return row.voided_at is None and row.effective_at <= at and not is_expired


def _view(row: GrantRow) -> GrantView:
    return msgspec.convert(row, GrantView, from_attributes=True)


def _told(row: GrantRow | None) -> ToldGrant:
    return msgspec.convert(row, ToldGrant, from_attributes=True)


WALLETS, GRANT = "/v1/customers/{customer_id}/wallets", "/v1/customers/{customer_id}/grants/{grant_id}"

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
        tells=lambda answer: answer.payment.customer_id,
        act=top_up,
    ),
    Route(
        method="POST",
        path=WALLETS + "/{currency}/grants",
        summary="Give promotional credit, or a limit to be overdrawn",
        query=Nothing,
        body=GrantDraft,
        answer=ToldGrant,
        status=201,
        retry=Retry.REQUIRED,
        tells=lambda answer: answer.customer_id,
        act=give,
    ),
    Route(
        method="POST",
        path=GRANT + "/void",
        summary="Take what is left of a grant out of its wallet",
        query=Nothing,
        body=Nothing,
        answer=ToldGrant,
        tells=lambda answer: answer.customer_id,
        act=void,
    ),
    Route(
        method="POST",
        path=GRANT + "/lower",
        summary="Lower the limit of an overdraft",
        query=Nothing,
        body=LimitDraft,
        answer=ToldGrant,
        tells=lambda answer: answer.customer_id,
        act=lower,
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
