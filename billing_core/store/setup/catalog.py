"""What is sold: the document as it was last applied, meters, and the versions of plans."""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.catalog.catalog import PlanVersion
from billing_core.catalog.document import CatalogDocument, Feature, Meter
from billing_core.errors import NotFound
from billing_core.store.database import Transaction
from billing_core.store.query import Q


class AppliedCatalog(msgspec.Struct, frozen=True, kw_only=True):
    """The document and when it was applied."""

    document: CatalogDocument
    applied_at: datetime


class LatestVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version of a plan, by its digest."""

    code: str
    version: int
    digest: str


async def applied_catalog(tx: Transaction, tenant_id: str) -> AppliedCatalog | None:
    """The catalog of today; None before the first."""
    return await tx.maybe(Q["catalog_of_tenant"], AppliedCatalog, tenant_id)


async def replace_catalog(tx: Transaction, tenant_id: str, *, document: CatalogDocument, now: datetime) -> None:
    """Keep the document, its meters and its features. Meters of old plan versions stay."""
    for meter in document.meters:
        values = (meter.code, meter.event, meter.aggregation.value, meter.field, meter.scale, list(meter.group_by))
        await tx.run(Q["meter_put"], tenant_id, *values, now)
    for feature in document.features:
        await tx.run(Q["feature_put"], tenant_id, feature.code, feature.kind.value, _meter_of(feature), now)
    await tx.run(Q["catalog_replace"], tenant_id, document, now)


def _meter_of(feature: Feature) -> str | None:
    return feature.meter or None


async def meters_of(tx: Transaction, tenant_id: str) -> list[Meter]:
    """All meters that the tenant ever had, in the order of their codes."""
    return await tx.many(Q["meters_of_tenant"], Meter, tenant_id)


async def meter_of(tx: Transaction, tenant_id: str, *, code: str) -> Meter:
    """The meter of that code.

    Raises: NotFound.
    """
    meter = await tx.maybe(Q["meter_by_code"], Meter, tenant_id, code)
    if meter is None:
        raise NotFound(f"there is no meter {code!r}", field="meter")
    return meter


async def latest_versions(tx: Transaction, tenant_id: str) -> dict[str, LatestVersion]:
    """The newest version of every plan that ever was, by code."""
    rows = await tx.many(Q["plan_versions_latest"], LatestVersion, tenant_id)
    return {row.code: row for row in rows}


async def add_version(tx: Transaction, tenant_id: str, *, version: PlanVersion, digest: str, now: datetime) -> None:
    """A new version of a plan."""
    values = (version.terms.plan.code, version.version, digest, version.terms, now)
    await tx.run(Q["plan_version_insert"], tenant_id, *values)


async def offered_version(tx: Transaction, tenant_id: str, *, plan_code: str) -> PlanVersion:
    """The version that a new subscription to the plan gets.

    Raises: NotFound for a plan that is not in today's catalog.
    """
    version = await tx.maybe(Q["plan_version_offered"], PlanVersion, tenant_id, plan_code)
    if version is None:
        raise NotFound(f"there is no plan {plan_code!r}", field="plan")
    return version


async def plan_version(tx: Transaction, tenant_id: str, *, plan_code: str, version: int) -> PlanVersion:
    """One version of a plan, offered or not.

    Raises: NotFound.
    """
    found = await tx.maybe(Q["plan_version_by_number"], PlanVersion, tenant_id, plan_code, version)
    if found is None:
        raise NotFound(f"there is no version {version} of plan {plan_code!r}", field="plan")
    return found
