"""The customers of a bench: a limit, a price and a balance that will not run out, and a key for each.

The scripts that project and grant are run as they are shipped, so that what is measured is what a relay would have
put there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
import redis.asyncio

from billing_core.adapters.projection import Projection
from billing_core.contract import keys
from billing_core.contract.snapshot import (
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Snapshot,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.values.clock import to_ms
from lua.loader import LIBRARY, SCRIPTS

TENANT: Final = "bench"
KEYS: Final[Mapping[str, str]] = {"customer": "tgk_bench", "noisy": "tgk_noisy"}
"""Whose key is which."""

_FOREVER: Final = Window(kind=WindowKind.LIFETIME)


async def furnish(url: str, callers: Mapping[str, str] = KEYS, *, slice_units: int = 0) -> None:
    """Put these customers there, each as it would stand after its plan was entitled and its wallet topped up."""
    tariff = Tariff(
        price_id="calls",
        currency="USD",
        package_units=1,
        batch=3,
        tiers=(Tier(upto=0, nanos_per_batch=1000),),
        window=_FOREVER,
    )
    limit = Limit(counter="calls@lifetime", units=10**12, ceiling=10**12, window=_FOREVER)
    feature = Entitlement(
        kind=FeatureKind.METERED,
        enabled=True,
        guard=Guard(limits=(limit,)),
        tariffs=(tariff,),
        slice_units=slice_units,
    )
    snapshot = Snapshot(version=1, status=Status.ACTIVE, clock_offset_ms=0, features={"calls": feature})
    async with redis.asyncio.Redis.from_url(url) as client:
        async with client.pipeline(transaction=False) as pipe:
            for shard in range(keys.SHARD_COUNT):
                pipe.set(keys.epoch_key(shard), 1)
            pipe.script_load(keys.vouched_script(await Projection(client).run_id()))
            pipe.function_load(LIBRARY.text, replace=True)
            await pipe.execute()
        for name, key in callers.items():
            await _enter(client, name, key=key, snapshot=snapshot)


async def _enter(client: redis.asyncio.Redis, name: str, *, key: str, snapshot: Snapshot) -> None:
    names = keys.customer_keys(TENANT, name)
    record = keys.KeyRecord(tenant_id=TENANT, role=keys.Role.CALLER, customer_id=name, hint=key[-3:])
    now_ms = to_ms(datetime(2026, 1, 1, tzinfo=UTC))
    await client.set(keys.api_key_name(keys.digest_of(key)), msgspec.msgpack.encode(record))
    fields = snapshot_fields(snapshot)
    await client.fcall(SCRIPTS["project"].function, 2, names.epoch, names.snapshot, "1", "active", "0", *fields)
    grant = ("USD", f"gra_{name}", str(9 * 10**15), "0", str(now_ms), "0", "1", str(now_ms), "", "unread")
    places = names.epoch, names.snapshot, names.wallet, names.stream
    await client.fcall(SCRIPTS["grant"].function, 4, *places, *grant)
