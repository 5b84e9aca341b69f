"""What the relay and the rebuild read of Postgres, many subjects at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.catalog.catalog import PlanTerms
from billing_core.catalog.document import Aggregation
from billing_core.contract.keys import KeyRecord, Role
from billing_core.contract.snapshot import Status
from billing_core.entitlements.source import Holdings
from billing_core.store.database import Transaction
from billing_core.store.money.grant import GrantRow
from billing_core.store.query import Q
from billing_core.store.setup.entitlement import holdings_of

TEXT_OR_NUMBER = -1
"""The scale of a field that may be text."""


class Owner(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Tenant and customer."""

    tenant_id: str
    customer_id: str


class SnapshotFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A customer with its active subscription, if it has one (all fields of it, or none). Tenant's clock.

    `holdings` is what it has apart from its plan; None for who has nothing, so that many can be told alike.
    """

    tenant_id: str
    customer_id: str
    shard: int
    version: int
    status: Status
    clock_offset_ms: int
    customer_zone: str
    customer_since: datetime
    subscription_id: str | None
    plan_code: str | None
    plan_version: int | None
    anchor_at: datetime | None
    started_at: datetime | None
    time_zone: str | None
    changed_at: datetime | None
    next_plan_code: str | None
    next_plan_version: int | None
    next_anchor_at: datetime | None
    next_at: datetime | None
    ends_at: datetime | None
    holdings: Holdings | None = None


class PlanName(msgspec.Struct, frozen=True, kw_only=True):
    """Which version of which plan."""

    tenant_id: str
    code: str
    version: int


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str
    customer_id: str
    version: int


class _Terms(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str
    code: str
    version: int
    terms: PlanTerms


class _Credential(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    tenant_id: str
    role: Role
    customer_id: str
    hint: str
    path: tuple[str, ...]
    is_live: bool


class _Tenant(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str


class _MeterField(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str
    event: str
    aggregation: Aggregation
    field: str
    scale: int


async def facts_of(tx: Transaction, owners: Sequence[Owner]) -> list[SnapshotFacts]:
    """Lock the customers, give each a fresh snapshot version, then read what its snapshot is made of.

    Several statements: those after the first see what was committed while it waited for its locks, and nothing of
    what is written later, because whoever changes what a snapshot is made of locks the customer first.
    """
    await tx.many(Q["snapshot_versions"], _Version, *_columns(owners))
    return await read_facts(tx, owners)


async def read_facts(tx: Transaction, owners: Sequence[Owner]) -> list[SnapshotFacts]:
    """What the snapshots of these customers are made of."""
    facts = await tx.many(Q["snapshot_facts"], SnapshotFacts, *_columns(owners))
    held = await holdings_of(tx, [(one.tenant_id, one.customer_id) for one in owners])
    return [_holding(one, held.get((one.tenant_id, one.customer_id))) for one in facts]


def _holding(facts: SnapshotFacts, held: Holdings | None) -> SnapshotFacts:
    if held is None:
        return facts
    return msgspec.structs.replace(facts, holdings=held.with_subscription(facts.subscription_id))


def _columns(owners: Sequence[Owner]) -> tuple[list[str], list[str]]:
    return [one.tenant_id for one in owners], [one.customer_id for one in owners]


async def note_staleness(tx: Transaction, stale: Sequence[tuple[Owner, datetime | None]]) -> None:
    """Note when each snapshot must be told again."""
    tenants = [owner.tenant_id for owner, _ in stale]
    customers = [owner.customer_id for owner, _ in stale]
    await tx.run(Q["snapshot_stale_at"], tenants, customers, [at for _, at in stale])


async def push_stale(tx: Transaction, *, now: datetime, most: int) -> int:
    """Ask for snapshots that go stale to be projected again; how many. `now` is real time."""
    return await tx.run(Q["snapshots_going_stale"], now, most)


async def terms_of(tx: Transaction, plans: Sequence[PlanName]) -> dict[PlanName, PlanTerms]:
    """The terms of these plan versions, which never change."""
    columns = [one.tenant_id for one in plans], [one.code for one in plans], [one.version for one in plans]
    rows = await tx.many(Q["plan_terms"], _Terms, *columns)
    return {PlanName(tenant_id=row.tenant_id, code=row.code, version=row.version): row.terms for row in rows}


async def credentials(tx: Transaction, digests: Sequence[str]) -> dict[str, KeyRecord | None]:
    """What stands behind each digest, locked; None for one that is revoked or unknown."""
    rows = await tx.many(Q["credentials_locked"], _Credential, list(digests))
    live: dict[str, KeyRecord | None] = {row.digest: _record(row) for row in rows if row.is_live}
    return {digest: live.get(digest) for digest in digests}


async def credential_page(tx: Transaction, after: str, *, most: int) -> dict[str, KeyRecord | None]:
    """Live credentials in the order of their digests, behind `after`, locked."""
    rows = await tx.many(Q["credential_page"], _Credential, after, most)
    return {row.digest: _record(row) for row in rows}


def _record(row: _Credential) -> KeyRecord:
    return KeyRecord(
        tenant_id=row.tenant_id, role=row.role, customer_id=row.customer_id, hint=row.hint, path=row.path
    )


async def all_tenants(tx: Transaction) -> list[str]:
    """Every tenant."""
    return [row.tenant_id for row in await tx.many(Q["all_tenants"], _Tenant)]


async def meters_of(tx: Transaction, tenant_ids: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Tenant -> event -> field -> digits after the point, as the gateway checks events; tenants are locked."""
    wanted = list(tenant_ids)
    meters: dict[str, dict[str, dict[str, int]]] = {
        row.tenant_id: {} for row in await tx.many(Q["tenants_locked"], _Tenant, wanted)
    }
    for row in await tx.many(Q["meter_fields"], _MeterField, wanted):
        fields = meters[row.tenant_id].setdefault(row.event, {})
        if row.aggregation is Aggregation.UNIQUE:
            fields.setdefault(row.field, TEXT_OR_NUMBER)
        elif row.aggregation is not Aggregation.COUNT:
            known = fields.get(row.field, TEXT_OR_NUMBER)
            fields[row.field] = row.scale if known == TEXT_OR_NUMBER else min(known, row.scale)
    return meters


async def customers_of(tx: Transaction, shards: Sequence[int]) -> list[Owner]:
    """All customers of these shards."""
    return await tx.many(Q["customers_of_shards"], Owner, list(shards))


async def grants_of(tx: Transaction, shards: Sequence[int]) -> list[GrantRow]:
    """All grants of these shards that a wallet must know."""
    return await tx.many(Q["grants_of_shards"], GrantRow, list(shards))
