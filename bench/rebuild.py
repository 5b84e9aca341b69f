"""Claim: an emptied Redis has its customers again for a quarter of a millisecond of a builder's time each.

Embedded servers, Postgres writing its log through. Every customer is on a plan with limits and prepaid prices, has
two grants, and has used something. Redis is emptied, and a worker process with the role `relay` finds that out and
builds. Another process watches when each shard comes back: a customer is away for as long as its shard is. Then
single shards are lost, one after another, while all others stand: how long each is away, counted from the loss.
The peer is the time that Valkey itself takes to load the same data from its own log.

    python -m bench.rebuild [--customers 100000] [--single 5]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bench.apparatus.ground import cpu_seconds, tell
from bench.apparatus.servers import Ground, ground, worker
from billing_core.catalog.catalog import canonical_json, catalog_of, document_of_toml
from billing_core.contract.keys import SHARD_COUNT, epoch_key, shard_of_customer
from billing_core.contract.shipped import shipped

LOOK_S = 0.002
BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS_EACH = 3

OWNED = """
INSERT INTO subscription (tenant_id, subscription_id, customer_id, plan_code, plan_version, state, anchor_at,
                          started_at, time_zone, created_at)
    SELECT tenant_id, 'sub_' || customer_id, customer_id, 'team', 1, 'active', created_at, created_at,
           'Europe/Berlin', created_at FROM customer;
INSERT INTO credit_grant (tenant_id, grant_id, customer_id, currency, kind, amount_nanos, spent_nanos, effective_at,
                          created_at, applied_at)
    SELECT tenant_id, 'gra_' || customer_id || '_' || n, customer_id, 'USD', 'promotional', 9000000000, 750000,
           created_at, created_at, created_at FROM customer, generate_series(1, 2) AS n;
INSERT INTO usage_event (shard, stream_ms, stream_seq, part, tenant_id, customer_id, event_id, name, source,
                         event_at, decided_at, recorded_at, quantity, currency, charged_nanos)
    SELECT shard, n, row_number() OVER (), 0, tenant_id, customer_id, 'dec_' || customer_id || '_' || n,
           (ARRAY['input_tokens', 'output_tokens', 'requests'])[1 + n % 3], 'gate', now(), now(), now(), 100,
           'USD', 0
    FROM customer, generate_series(1, $1::integer) AS n;
UPDATE shard SET watermark_ms = 1000;
ANALYZE;
"""


async def settle(raw: Any, *, customers: int) -> None:
    """A tenant, its plan, and everybody with what is theirs."""
    await raw.execute("INSERT INTO tenant VALUES ('acme', 'acme', false, 0, $1)", BEGAN_AT)
    catalog = catalog_of(document_of_toml(shipped("catalogs/language_model.toml").read_text("utf-8")))
    terms = canonical_json(catalog.terms("team")).decode()
    await raw.execute(
        "INSERT INTO plan_version VALUES ('acme', 'team', 1, 'd', $1::text::jsonb, $2)", terms, BEGAN_AT
    )
    names = [f"customer-{number}" for number in range(customers)]
    await raw.copy_records_to_table(
        "customer",
        columns=("tenant_id", "customer_id", "name", "shard", "created_at"),
        records=[("acme", name, "", shard_of_customer("acme", name), BEGAN_AT) for name in names],
    )
    for statement in OWNED.split(";"):
        if statement.strip():
            await raw.execute(statement.replace("$1", str(EVENTS_EACH)))


async def away(on: Ground, shards: Sequence[int], *, since_s: float) -> list[float]:
    """Seconds since then until each of the shards stood again."""
    loop = asyncio.get_running_loop()
    back: dict[int, float] = {}
    names = [epoch_key(shard) for shard in shards]
    while len(back) < len(shards):
        found = await on.client.mget(names)
        now_s = loop.time()
        back |= {
            shard: now_s - since_s
            for shard, epoch in zip(shards, found, strict=True)
            if epoch and shard not in back
        }
        await asyncio.sleep(LOOK_S)
    return [back[shard] for shard in shards]


async def load_again(on: Ground) -> float:
    """Seconds that Valkey takes to start with the same data, from its own log written small."""
    loop = asyncio.get_running_loop()
    await on.client.bgrewriteaof()
    while (await on.client.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110 - in another process
        await asyncio.sleep(LOOK_S)
    await asyncio.to_thread(on.valkey.stop)
    began_s = loop.time()
    on.valkey.begin_again()
    await asyncio.to_thread(on.valkey.wait_ready)
    return loop.time() - began_s


async def run(*, customers: int, single: int) -> None:
    """Lose everything, then single shards, then let Valkey load by itself; one line."""
    loop = asyncio.get_running_loop()
    everybody = list(range(SHARD_COUNT))
    async with ground(appendfsync="everysec") as on:
        await settle(on.raw, customers=customers)
        async with worker(on, roles="relay,flush") as pid:
            await away(on, everybody, since_s=0)
            before_s, began_s = cpu_seconds(pid), loop.time()
            await on.client.flushall()
            times = await away(on, everybody, since_s=began_s)
            cpu_s = cpu_seconds(pid) - before_s
            ones: list[float] = []
            for shard in everybody[:: SHARD_COUNT // single][:single]:
                began_s = loop.time()
                await on.client.delete(epoch_key(shard))
                ones += await away(on, [shard], since_s=began_s)
            size = (await on.client.info("memory"))["used_memory"]
        loaded_s = await load_again(on)
    took_s = max(times)
    cuts = statistics.quantiles(times, n=100)
    tell(
        (__doc__ or "").split("\n", 1)[0],
        {
            "customers": customers,
            "seconds": round(took_s, 2),
            "customers_per_second": round(customers / took_s),
            "builder_cpu_us_per_customer": round(cpu_s / customers * 1e6),
            "shard_away_s_first": round(min(times), 3),
            "shard_away_s_p50": round(cuts[49], 2),
            "shard_away_s_p99": round(cuts[98], 2),
            "single_shard_away_s": [round(one, 3) for one in ones],
            "valkey_loads_its_own_log_s": round(loaded_s, 2),
            "ratio": round(took_s / loaded_s, 1),
            "bytes_per_customer": round(size / customers),
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--single", type=int, default=5)
    told = parser.parse_args(arguments)
    asyncio.run(run(customers=told.customers, single=told.single))


if __name__ == "__main__":
    main()
