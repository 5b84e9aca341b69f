"""Publish: a catalog comes into force, a sandbox's clock moves on.

A document is applied whole: afterwards it is what the tenant offers, and plans that it does not name are
offered to nobody new. Each plan whose terms differ from its newest version gets the next version; who
subscribed to an older one stays there. Applying the same document twice changes nothing, so a deployment may do
it every time.

Only a sandbox has a clock of its own, and it only moves forward: what a period's end has closed cannot be opened
again. The new offset reaches the gateway with each customer's snapshot.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from billing_core.catalog.catalog import Catalog, PlanVersion, terms_digest
from billing_core.errors import InvalidInput, Unprocessable
from billing_core.store.database import Transaction
from billing_core.store.outbox import OutboxKind, push, push_snapshots
from billing_core.store.setup.catalog import LatestVersion, add_version, latest_versions, replace_catalog
from billing_core.store.setup.tenant import Tenant, set_clock, tenant_of
from billing_core.values.text import check_instant

_MILLISECOND = timedelta(milliseconds=1)


class PublishedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The version that the plan has now, and whether it is new."""

    code: str
    version: int
    changed: bool


class TenantClock(msgspec.Struct, frozen=True, kw_only=True):
    """What time it is for the tenant. Units: `offset_ms` is how far that is ahead of the real time."""

    now: datetime
    offset_ms: int
    sandbox: bool


async def publish(tx: Transaction, tenant_id: str, *, catalog: Catalog, now: datetime) -> list[PublishedPlan]:
    """Bring the catalog into force; what became of each plan, in the document's order."""
    tenant = await tenant_of(tx, tenant_id, lock=True)
    at = clock_of(tenant, now=now).now
    known = await latest_versions(tx, tenant_id)
    await replace_catalog(tx, tenant_id, document=catalog.document, now=at)
    plans: list[PublishedPlan] = []
    for plan in catalog.document.plans:
        terms = catalog.terms(plan.code)
        digest = terms_digest(terms)
        published = _next_version(plan.code, digest, latest=known.get(plan.code))
        if published.changed:
            version = PlanVersion(version=published.version, terms=terms)
            await add_version(tx, tenant_id, version=version, digest=digest, now=at)
        plans.append(published)
    await push(tx, OutboxKind.METERS, tenant_id=tenant_id)
    return plans


def _next_version(code: str, digest: str, *, latest: LatestVersion | None) -> PublishedPlan:
    if latest is not None and latest.digest == digest:
        return PublishedPlan(code=code, version=latest.version, changed=False)
    return PublishedPlan(code=code, version=latest.version + 1 if latest else 1, changed=True)


def clock_of(tenant: Tenant, *, now: datetime) -> TenantClock:
    """The tenant's time at the real instant `now`."""
    offset = timedelta(milliseconds=tenant.clock_offset_ms)
    return TenantClock(now=now + offset, offset_ms=tenant.clock_offset_ms, sandbox=tenant.sandbox)


def offset_to(instant: datetime, *, now: datetime, field: str) -> int:
    """Milliseconds from the real time to the instant, rounded up so that it has been reached.

    Raises: InvalidInput where the instant is out of bounds.
    """
    check_instant(instant, field=field)
    return -((now - instant) // _MILLISECOND)


async def advance(tx: Transaction, tenant_id: str, *, to: datetime, now: datetime) -> TenantClock:
    """Move a sandbox's clock forward.

    Raises: Unprocessable where the tenant is no sandbox; InvalidInput where the instant is not ahead.
    """
    tenant = await tenant_of(tx, tenant_id, lock=True)
    if not tenant.sandbox:
        raise Unprocessable("only a sandbox has a clock of its own")
    offset_ms = offset_to(to, now=now, field="to")
    if offset_ms <= tenant.clock_offset_ms:
        at = clock_of(tenant, now=now).now.isoformat()
        raise InvalidInput(f"a clock only moves forward, and it is {at} already", field="to")
    await set_clock(tx, tenant_id, offset_ms=offset_ms)
    await push_snapshots(tx, tenant_id=tenant_id)
    return clock_of(msgspec.structs.replace(tenant, clock_offset_ms=offset_ms), now=now)
