"""What reconcile reads of Postgres, many shards at a time; and the laws of the books, which must find nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from billing_core.contract.usage_event import StreamPosition
from billing_core.store.database import Transaction
from billing_core.store.query import INVARIANTS, Q


class WalletOwner(msgspec.Struct, frozen=True, kw_only=True):
    """A customer, and the shard that keeps its wallet."""

    shard: int
    tenant_id: str
    customer_id: str


class GrantBalance(msgspec.Struct, frozen=True, kw_only=True):
    """A grant as Postgres has it. `is_applied`: its wallet in Redis knows it."""

    shard: int
    tenant_id: str
    customer_id: str
    grant_id: str
    currency: str
    amount_nanos: int
    spent_nanos: int
    lapsed_nanos: int
    is_applied: bool


class MovedAfter(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken out of a grant behind a place in its stream."""

    tenant_id: str
    grant_id: str
    spent_nanos: int
    lapsed_nanos: int


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """A row that a law says cannot be. `subject` says which thing; `difference_nanos` by how much, or how many."""

    tenant_id: str
    customer_id: str
    subject: str
    currency: str
    difference_nanos: int


class CountedOwner(msgspec.Struct, frozen=True, kw_only=True):
    """A customer, the shard that keeps its counters, and since when it is on its plan."""

    shard: int
    tenant_id: str
    customer_id: str
    started_at: datetime | None


async def counted_owners(tx: Transaction, shards: Sequence[int], *, tenant_id: str) -> list[CountedOwner]:
    """The customers of these shards; of one tenant, or of all where it is empty."""
    return await tx.many(Q["reconcile_counted"], CountedOwner, list(shards), tenant_id)


async def owners(tx: Transaction, shards: Sequence[int], *, tenant_id: str) -> list[WalletOwner]:
    """The customers of these shards; of one tenant, or of all where it is empty."""
    return await tx.many(Q["reconcile_owners"], WalletOwner, list(shards), tenant_id)


async def balances(tx: Transaction, shards: Sequence[int], *, tenant_id: str) -> list[GrantBalance]:
    """The grants of these shards."""
    return await tx.many(Q["reconcile_grants"], GrantBalance, list(shards), tenant_id)


async def moved_after(
    tx: Transaction, positions: Mapping[int, StreamPosition], *, tenant_id: str
) -> list[MovedAfter]:
    """What was written from entries behind these positions."""
    shards = sorted(positions)
    columns = [positions[shard].ms for shard in shards], [positions[shard].seq for shard in shards]
    return await tx.many(Q["reconcile_moved_after"], MovedAfter, shards, *columns, tenant_id)


async def breaches(tx: Transaction, *, tenant_id: str) -> dict[str, list[Breach]]:
    """The law's name and the rows that break it, for every law that is broken; '' asks about all tenants."""
    found = {name: await tx.many(law, Breach, tenant_id) for name, law in INVARIANTS.items()}
    return {name: rows for name, rows in found.items() if rows}
