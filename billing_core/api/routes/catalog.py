"""The catalog: apply one, read the one that is in force."""

from __future__ import annotations

import msgspec

from billing_core.api.route import Call, Route
from billing_core.api.wire import Nothing
from billing_core.catalog.catalog import catalog_of
from billing_core.catalog.document import Addon, CatalogDocument, Feature, Meter, Plan, Unit
from billing_core.flows.setup.publish import PublishedPlan, publish
from billing_core.store.database import Transaction
from billing_core.store.setup.catalog import applied_catalog, latest_versions


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each plan."""

    plans: tuple[PublishedPlan, ...]


class OfferedCatalog(msgspec.Struct, frozen=True, kw_only=True):
    """What is offered today, and the version under which each plan is sold."""

    units: tuple[Unit, ...] = ()
    meters: tuple[Meter, ...] = ()
    features: tuple[Feature, ...] = ()
    plans: tuple[Plan, ...] = ()
    addons: tuple[Addon, ...] = ()
    versions: dict[str, int] = {}


async def apply(tx: Transaction, call: Call[CatalogDocument, Nothing]) -> Published:
    """Bring a catalog into force."""
    catalog = catalog_of(call.body)
    return Published(plans=tuple(await publish(tx, call.tenant_id, catalog=catalog, now=call.now)))


async def read(tx: Transaction, call: Call[Nothing, Nothing]) -> OfferedCatalog:
    """What is offered today; empty before the first catalog."""
    applied = await applied_catalog(tx, call.tenant_id)
    if applied is None:
        return OfferedCatalog()
    versions = await latest_versions(tx, call.tenant_id)
    document = applied.document
    return OfferedCatalog(
        units=document.units,
        meters=document.meters,
        features=document.features,
        plans=document.plans,
        addons=document.addons,
        versions={plan.code: versions[plan.code].version for plan in document.plans},
    )


ROUTES = (
    Route(
        method="PUT",
        path="/v1/catalog",
        summary="Bring a catalog into force",
        query=Nothing,
        body=CatalogDocument,
        answer=Published,
        act=apply,
    ),
    Route(
        method="GET",
        path="/v1/catalog",
        summary="Read the catalog in force",
        query=Nothing,
        body=Nothing,
        answer=OfferedCatalog,
        act=read,
    ),
)
