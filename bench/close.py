"""Claim: the time of a close grows in proportion to its customers and events, whatever their periods.

The plain SQL aggregate over the same events is measured in the same run, to tell what reading them costs. It is no
peer: it only adds them up per customer, while the close also makes a digest of them, prices, numbers and writes
invoices with their lines, books, schedules and payments, and opens the next periods. With a hundred events a
customer most of the time goes into writing. Each scale has a database of its own. Postgres is durable (fsync on).
`--anchored` gives every customer a period of its own instead of the calendar's. Bytes are what the close added to
its tables and indexes. CPU is of the worker and of all of Postgres' processes. `worker_peak_mib` is the most memory
that the worker had during the close, `worker_rest_mib` what it had before. `close_growth` is the time of the last
scale over that of the first, to be held against `work_growth`.

    python -m bench.close [--customers 1000] [--events 100000] [--scales 1,10] [--anchored]
    python -m bench.close --events 1000000          the same customers with 1,000 events each: up to 10,000,000
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg
import msgspec

from bench.apparatus.ground import cpu_seconds, family_cpu_seconds, middle, peak_memory_kib, spread, tell
from billing_core.catalog.catalog import catalog_of
from billing_core.catalog.document import CatalogDocument
from billing_core.flows.billing.close import close_due
from billing_core.flows.setup.enroll import TenantDraft, found_tenant
from billing_core.flows.setup.publish import publish
from billing_core.store.database import Database
from billing_core.store.migration import migrate
from gateway.command.embedded.postgres import Postgres, start_postgres

START = datetime(2026, 3, 1, tzinfo=UTC)
END = datetime(2026, 4, 1, tzinfo=UTC)
CUT_SHORT = timedelta(days=40)
TENANT = "acme"
ROUNDS = 3
WRITTEN = (
    "invoice",
    "invoice_line",
    "billing_period",
    "ledger_transfer",
    "ledger_entry",
    "revenue_schedule",
    "payment",
)

CATALOG: dict[str, Any] = {
    "meters": [{"code": "calls", "event": "call", "aggregation": "sum", "field": "quantity"}],
    "plans": [
        {
            "code": "plan",
            "currency": "USD",
            "fee_amount": "20.00",
            "prices": [
                {
                    "code": "calls",
                    "meter": "calls",
                    "model": "graduated",
                    "tiers": [{"upto": 100, "unit_amount": "0.02"}, {"unit_amount": "0.0083"}],
                }
            ],
        }
    ],
}

CUSTOMERS = """
INSERT INTO customer (tenant_id, customer_id, name, shard, created_at)
SELECT 'acme', 'c' || n, 'c', n % 1024, $2 FROM generate_series(0, $1 - 1) AS n"""
SUBSCRIPTIONS = """
INSERT INTO subscription (tenant_id, subscription_id, customer_id, plan_code, plan_version, state, started_at,
    anchor_at, time_zone, created_at)
SELECT 'acme', 'sub_' || n, 'c' || n, 'plan', 1, 'active', at, at, 'UTC', at FROM generate_series(0, $1 - 1) AS n,
    LATERAL (SELECT $2::timestamptz + CASE WHEN $3 THEN n % 86400 ELSE 0 END * interval '1 second' AS at)"""
PERIODS = """
INSERT INTO billing_period (tenant_id, subscription_id, customer_id, start_at, end_at, plan_code, plan_version,
    anchor_at)
SELECT tenant_id, subscription_id, customer_id, anchor_at, anchor_at + interval '1 month', 'plan', 1, anchor_at
FROM subscription"""
EVENTS = """
INSERT INTO usage_event (shard, stream_ms, stream_seq, part, tenant_id, customer_id, event_id, name, source,
    event_at, decided_at, recorded_at, quantity, properties)
SELECT (n % $2) % 1024, n, 0, 0, 'acme', 'c' || n % $2, 'evt_' || n, 'call', 'gate',
    at, at, clock_timestamp(), 1 + n % 5, '{}'
FROM generate_series(0, $1 - 1) AS n,
    LATERAL (SELECT $3::timestamptz + interval '2 days' + (n * 27.0 / $1) * interval '1 day' AS at)"""
PLAIN = """
SELECT customer_id, sum(quantity), count(*) FROM usage_event
WHERE tenant_id = 'acme' AND name = 'call' AND event_at >= $1 AND event_at < $2 GROUP BY customer_id"""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    customers: int
    events: int
    scales: tuple[int, ...]
    anchored: bool


@asynccontextmanager
async def ground(url: str, name: str) -> AsyncGenerator[tuple[Database, Any]]:
    """A fresh, migrated database, and a plain connection to it."""
    keeper = cast("Any", await asyncpg.connect(url.format("postgres")))
    await keeper.execute(f"CREATE DATABASE {name}")
    raw = cast("Any", await asyncpg.connect(url.format(name)))
    await migrate(raw)
    db = await Database.connect(url.format(name), size=2)
    try:
        yield db, raw
    finally:
        await db.close()
        await raw.close()
        await keeper.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await keeper.close()


async def furnish(db: Database, raw: Any, words: Words) -> None:
    """A tenant, its customers with open periods, and a month of events, as flushed."""
    async with db.transaction() as tx:
        await found_tenant(tx, TenantDraft(tenant_id=TENANT), now=START)
        catalog = catalog_of(msgspec.convert(CATALOG, CatalogDocument))
        await publish(tx, TENANT, catalog=catalog, now=START)
    await raw.execute("SELECT ensure_usage_month($1), ensure_usage_month($2)", START, END)
    await raw.execute(CUSTOMERS, words.customers, START)
    await raw.execute(SUBSCRIPTIONS, words.customers, START, words.anchored)
    await raw.execute(PERIODS)
    await raw.execute(EVENTS, words.events, words.customers, START)
    await raw.execute("UPDATE flush_lane SET drained_at = 'infinity'")
    await raw.execute("VACUUM ANALYZE")


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """The aggregate alone, once."""

    took_s: float
    cpu_s: float


async def plain(raw: Any, postgres: int) -> list[Plain]:
    """The aggregate alone, some times."""
    seen: list[Plain] = []
    for _ in range(ROUNDS):
        begun_s, cpu_s = time.perf_counter(), family_cpu_seconds(postgres)
        await raw.fetch(PLAIN, START, START + CUT_SHORT)
        took_s = time.perf_counter() - begun_s
        seen.append(Plain(took_s=took_s, cpu_s=family_cpu_seconds(postgres) - cpu_s))
    return seen


def forget_peak() -> None:
    """Let the peak of this process' memory count from now on."""
    Path("/proc/self/clear_refs").write_text("5")


async def weight(raw: Any) -> int:
    """Bytes of the tables that a close writes, with their indexes."""
    return await raw.fetchval(
        "SELECT sum(pg_total_relation_size(name::regclass))::bigint FROM unnest($1::text[]) AS name", list(WRITTEN)
    )


async def measure(server: Postgres, words: Words, *, scale: int) -> dict[str, object]:
    """One scale: the aggregate, the close, the aggregate again."""
    words = msgspec.structs.replace(words, customers=words.customers * scale, events=words.events * scale)
    postgres, worker = server.child.pid, os.getpid()
    async with ground(server.url("{}"), f"bench_close_{scale}") as (db, raw):
        await furnish(db, raw, words)
        seen, before = await plain(raw, postgres), await weight(raw)
        forget_peak()
        rest_kib, cpu_s, postgres_s = peak_memory_kib(worker), cpu_seconds(worker), family_cpu_seconds(postgres)
        begun_s = time.perf_counter()
        closed = await close_due(db, now=END + timedelta(days=2))
        took_s, cpu_s = time.perf_counter() - begun_s, cpu_seconds(worker) - cpu_s
        postgres_s, peak_kib = family_cpu_seconds(postgres) - postgres_s, peak_memory_kib(worker)
        seen += await plain(raw, postgres)
        billed = await raw.fetchval("SELECT sum(event_count)::bigint FROM invoice_line")
        added = await weight(raw) - before
    if (closed, billed) != (words.customers, words.events):
        raise SystemExit(f"closed {closed} of {words.customers} periods, billed {billed} of {words.events} events")
    times, plain_cpu_s = [one.took_s for one in seen], middle([one.cpu_s for one in seen])
    return {
        "scale": scale,
        "customers": words.customers,
        "events": words.events,
        "close_s": float(f"{took_s:.4g}"),
        "plain_s": middle(times),
        "plain_spread_s": spread(times),
        "close_over_plain": float(f"{took_s / middle(times):.4g}"),
        "invoices_per_s": round(closed / took_s),
        "worker_cpu_s": float(f"{cpu_s:.4g}"),
        "postgres_cpu_s": float(f"{postgres_s:.4g}"),
        "plain_cpu_s": plain_cpu_s,
        "worker_rest_mib": rest_kib // 1024,
        "worker_peak_mib": peak_kib // 1024,
        "bytes_per_invoice": round(added / closed),
    }


def main() -> None:
    """Measure each scale and tell one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--scales", default="1,10")
    parser.add_argument("--anchored", action="store_true")
    told = parser.parse_args()
    words = Words(
        customers=told.customers,
        events=told.events,
        scales=tuple(int(scale) for scale in told.scales.split(",")),
        anchored=told.anchored,
    )
    folder = Path(tempfile.mkdtemp(prefix="tallygate-bench-"))
    server = start_postgres(folder)
    try:
        runs = [asyncio.run(measure(server, words, scale=scale)) for scale in words.scales]
    finally:
        server.stop()
        shutil.rmtree(folder)
    first, last = runs[0], runs[-1]
    growth = {
        "work_growth": words.scales[-1] / words.scales[0],
        "close_growth": float(f"{float(str(last['close_s'])) / float(str(first['close_s'])):.4g}"),
    }
    tell("the close grows with its work", {"anchored": words.anchored, **growth, "runs": runs})


if __name__ == "__main__":
    main()
