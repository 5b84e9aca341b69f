"""Grants at rest: born here, moved by the flusher, looked at by the relay and by people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.store.database import Transaction
from billing_core.store.query import Q
from billing_core.wallets.grant import GrantKind, GrantOrder, Price


class GrantRow(msgspec.Struct, frozen=True, kw_only=True):
    """A grant as Postgres knows it. What is neither spent nor lapsed here may be spent, held or left in Redis."""

    grant_id: str
    tenant_id: str
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
    applied_at: datetime | None
    voided_at: datetime | None
    ended_at: datetime | None
    features: tuple[str, ...] = ()
    price_nanos: int | None = None
    price_currency: str | None = None
    lowered_nanos: int | None = None

    @property
    def price(self) -> Price | None:
        """What the whole of it costs; None where nobody pays for it."""
        if self.price_nanos is None or self.price_currency is None:
            return None
        return Price(currency=self.price_currency, nanos=self.price_nanos)


class _Declared(msgspec.Struct, frozen=True, kw_only=True):
    is_there: bool


class _Code(msgspec.Struct, frozen=True, kw_only=True):
    code: str


class GrantName(msgspec.Struct, frozen=True, kw_only=True):
    """Which grant, and whose."""

    tenant_id: str
    grant_id: str
    customer_id: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's wallet in one currency, before a grant is added, and the tenant's clock."""

    clock_offset_ms: int
    standing_nanos: int


class GrantMove(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch takes out of one grant. `last_at` is the tenant's instant of its last movement."""

    tenant_id: str
    grant_id: str
    spent_nanos: int
    lapsed_nanos: int
    last_at: datetime


async def lock_standing(tx: Transaction, *, tenant_id: str, customer_id: str, currency: str) -> Standing | None:
    """The wallet's standing, the customer locked until the transaction ends; None where there is none."""
    return await tx.maybe(Q["grant_standing"], Standing, tenant_id, customer_id, currency)


async def insert(tx: Transaction, order: GrantOrder, *, grant_id: str, created_at: datetime) -> None:
    """Write a grant that passed its rules."""
    cost = order.cost
    await tx.run(
        Q["grant_insert"],
        grant_id,
        order.tenant_id,
        order.customer_id,
        order.currency,
        order.kind,
        order.amount_nanos,
        order.priority,
        order.effective_at or created_at,
        order.expires_at,
        list(order.features),
        None if cost is None else cost.nanos,
        None if cost is None else cost.currency,
        order.payment_id,
        order.note,
        created_at,
    )


async def by_id(tx: Transaction, *, tenant_id: str, grant_id: str) -> GrantRow | None:
    """One grant."""
    return await tx.maybe(Q["grant_by_id"], GrantRow, tenant_id, grant_id)


async def by_names(tx: Transaction, names: Sequence[GrantName]) -> list[GrantRow]:
    """Those of the named grants that exist."""
    return await tx.many(Q["grants_by_id"], GrantRow, *_columns(names))


async def of_customer(tx: Transaction, *, tenant_id: str, customer_id: str) -> list[GrantRow]:
    """All grants of a customer, by currency and age."""
    return await tx.many(Q["grants_of_customer"], GrantRow, tenant_id, customer_id)


async def mark_applied(tx: Transaction, names: Sequence[GrantName], *, at: datetime) -> None:
    """Note that the wallets in Redis know these grants."""
    await tx.run(Q["grants_applied"], *_columns(names), at)


async def mark_void(tx: Transaction, *, tenant_id: str, grant_id: str, at: datetime) -> bool:
    """Note that a grant must not be spent any more; False where that was known."""
    return await tx.run(Q["grant_void"], tenant_id, grant_id, at) == 1


async def mark_lower(tx: Transaction, *, tenant_id: str, grant_id: str, limit_nanos: int) -> bool:
    """Note the new limit of an overdraft; False where it is void."""
    return await tx.run(Q["grant_lower"], tenant_id, grant_id, limit_nanos) == 1


async def has_unit(tx: Transaction, tenant_id: str, *, code: str) -> bool:
    """Whether the tenant's catalog declares the credit unit."""
    return (await tx.one(Q["unit_is_declared"], _Declared, tenant_id, code)).is_there


async def missing_features(tx: Transaction, tenant_id: str, *, codes: Sequence[str]) -> list[str]:
    """Those of the codes that are no metered feature of the tenant."""
    return [row.code for row in await tx.many(Q["features_missing"], _Code, tenant_id, list(codes))]


async def take_lapsing(tx: Transaction, *, now: datetime, retry_ms: int, most: int) -> list[GrantName]:
    """Grants that still hold what they must not, and were not asked for in the last `retry_ms`.

    That is all of an expired or voided one, and what an overdraft has above its new limit.
    """
    return await tx.many(Q["grants_lapse"], GrantName, now, retry_ms, most)


async def move(tx: Transaction, moves: Sequence[GrantMove]) -> list[GrantName]:
    """Add what a batch took out; the grants that exist and were moved."""
    return await tx.many(
        Q["grants_move"],
        GrantName,
        [one.tenant_id for one in moves],
        [one.grant_id for one in moves],
        [one.spent_nanos for one in moves],
        [one.lapsed_nanos for one in moves],
        [one.last_at for one in moves],
    )


def _columns(names: Sequence[GrantName]) -> tuple[list[str], list[str]]:
    return [name.tenant_id for name in names], [name.grant_id for name in names]
