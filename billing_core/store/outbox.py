"""The outbox: what changed in Postgres and has not reached Redis yet.

A row is written in the transaction of the change itself, so there is no change without its row and no row without
its change. The relay reads what is true at that moment, applies it to Redis idempotently, and deletes the row. A
row therefore says only what to look at again, never what to write: two rows for one subject do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from billing_core.store.database import Transaction
from billing_core.store.query import Q

OUTBOX_CHANNEL = "tallygate_outbox"
"""Where Postgres says that rows were added."""


class OutboxKind(StrEnum):
    """What has to be looked at again.

    SNAPSHOT names a customer, GRANT and LAPSE a grant (subject), KEY a credential's digest (subject), METERS only
    the tenant.
    """

    SNAPSHOT = "snapshot"
    GRANT = "grant"
    LAPSE = "lapse"
    KEY = "key"
    METERS = "meters"


class OutboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row, as the relay takes it."""

    outbox_id: int
    kind: OutboxKind
    tenant_id: str
    customer_id: str
    subject: str


class _Patience(msgspec.Struct, frozen=True, kw_only=True):
    lock_timeout: str


class _Waiting(msgspec.Struct, frozen=True, kw_only=True):
    waiting: int


async def push(
    tx: Transaction, kind: OutboxKind, *, tenant_id: str, customer_id: str = "", subject: str = ""
) -> None:
    """Say that something changed; takes effect with the caller's commit."""
    await tx.run(Q["outbox_push"], kind, tenant_id, customer_id, subject)


async def push_snapshots(tx: Transaction, *, tenant_id: str) -> int:
    """Say that every customer of the tenant must be projected anew, in their turn; how many there are."""
    return await tx.run(Q["outbox_push_snapshots"], tenant_id)


async def take(tx: Transaction, *, most: int) -> list[OutboxRow]:
    """Rows that are due, locked until the transaction ends; other relays skip them.

    What was pushed alone comes before what was pushed for all, so that a top-up never waits for a new catalog to
    reach a hundred thousand customers; else the oldest come first.
    """
    return await tx.many(Q["outbox_take"], OutboxRow, most)


async def take_of_customer(tx: Transaction, *, tenant_id: str, customer_id: str, wait_ms: int) -> list[OutboxRow]:
    """All rows of a customer in their order, locked until the transaction ends; what a relay has is waited for.

    Raises: asyncpg's LockNotAvailableError where that takes longer than `wait_ms`.
    """
    await tx.one(Q["patience"], _Patience, f"{wait_ms}ms")
    return await tx.many(Q["outbox_take_of_customer"], OutboxRow, tenant_id, customer_id)


async def delete(tx: Transaction, outbox_ids: Sequence[int]) -> None:
    """Forget what has been applied."""
    await tx.run(Q["outbox_delete"], list(outbox_ids))


async def postpone(tx: Transaction, outbox_ids: Sequence[int], *, delay_ms: int) -> None:
    """Leave rows for later that cannot be applied now, so that they do not stand before others."""
    await tx.run(Q["outbox_postpone"], list(outbox_ids), delay_ms)


async def waiting_rows(tx: Transaction, *, tenant_id: str) -> int:
    """How many changes of a tenant have not reached Redis."""
    return (await tx.one(Q["outbox_waiting"], _Waiting, tenant_id)).waiting
