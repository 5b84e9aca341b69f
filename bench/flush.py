"""Claim: the flusher writes events to Postgres at more than half the speed of a raw COPY of the same rows.

Both write the same rows of usage and movements into the same tables, with all their indexes and constraints, in the
same run and in turn, round after round, on an embedded Postgres that writes its log through (fsync on). The raw
side sends prepared binary COPY data over one connection in transactions of the flusher's batches: it reads nothing,
decodes nothing and keeps no books. The flusher is a process of its own; it finds the streams full, as after an
outage, and also moves grants and watermarks and trims the streams. CPU is told for the flusher, and for Postgres on
either side. Then the lag: entries at an even rate, each seen by a query of another connection; lag is from the
append of the entry to that query's answer.

    python -m bench.flush [--events 100000] [--rounds 5] [--rate 500]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from bench.apparatus.ground import cpu_seconds, family_cpu_seconds, middle, spread, tell
from bench.apparatus.servers import Ground, flusher, ground, until
from billing_core.contract.keys import SHARD_COUNT, epoch_key, shard_of_customer, stream_key
from billing_core.contract.usage_event import EventBody, encode_body
from billing_core.store.usage import MOVEMENT_COLUMNS, USAGE_COLUMNS

CUSTOMERS = 1_000
LOOK_S = 0.002
END_LOOK_S = 0.01
AT_ONCE = 2_000
SIDES = (("usage_event", USAGE_COLUMNS), ("movement", MOVEMENT_COLUMNS))

SETTING = """
INSERT INTO tenant VALUES ('acme', 'acme', false, 0, now());
INSERT INTO customer (tenant_id, customer_id, name, shard, created_at)
    SELECT 'acme', 'customer-' || n, '', 0, now() FROM generate_series(0, 999) AS n;
INSERT INTO credit_grant (tenant_id, grant_id, customer_id, currency, kind, amount_nanos, effective_at, created_at,
                          applied_at)
    SELECT 'acme', 'gra_01kq00000000000000000' || lpad(n::text, 5, '0'), 'customer-' || n, 'USD', 'promotional',
           9000000000000000, now(), now(), now() FROM generate_series(0, 999) AS n;
"""


def entries(count: int, *, first: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Streams and fields, as consume.lua appends them."""
    at = int(datetime.now(UTC).timestamp() * 1_000)  # noqa: TID251 - a benchmark stands outside the house
    for number in range(first, first + count):
        customer = number % CUSTOMERS
        body = EventBody(
            event_id=f"dec_{number:032x}",
            tenant_id="acme",
            customer_id=f"customer-{customer}",
            features=("input_tokens",),
            key_hint="x7Qd",
        )
        stream = stream_key(shard_of_customer("acme", f"customer-{customer}"))
        grant = f"gra_01kq00000000000000000{customer:05d}"
        charge = {"q": 374, "c": 935_000, "u": 0, "s": 935_000}
        fields = {"k": "debit", "b": encode_body(body), "at": at + number // 80, **charge}
        yield stream, fields | {"m": f"{grant}=935000", "w": "USD", "e": 1}


async def fill(on: Ground, count: int, *, first: int) -> None:
    """Put so many entries into the streams, in the order of decisions."""
    pipe = on.client.pipeline(transaction=False)
    for number, (stream, fields) in enumerate(entries(count, first=first), start=1):
        pipe.xadd(stream, fields)
        if number % AT_ONCE == 0:
            await pipe.execute()
    await pipe.execute()


class Flushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a flusher did that found the streams full. CPU in microseconds an event."""

    per_second: float
    flusher_cpu_us: float
    postgres_cpu_us: float
    batches: int


async def flush(on: Ground, count: int, *, first: int) -> Flushed:
    """Fill the streams, then let a flusher at them, from its first lane to the last event."""
    await on.raw.execute("UPDATE flush_lane SET owner = 'bench', lease_until = 'infinity'")
    await fill(on, count, first=first)
    loop, postgres = asyncio.get_running_loop(), on.postgres.child.pid
    async with flusher(on) as pid:
        before_s, postgres_before_s = cpu_seconds(pid), family_cpu_seconds(postgres)
        await on.raw.execute("UPDATE flush_lane SET owner = '', lease_until = '-infinity'")
        await until(on, "SELECT count(*) > 0 FROM flush_lane WHERE owner <> ''")
        began_s = loop.time()
        spent = f"SELECT sum(spent_nanos) >= {(first + count) * 935_000} FROM credit_grant"
        await until(on, spent, look_s=END_LOOK_S)
        took_s = loop.time() - began_s
        cpu_s, postgres_s = cpu_seconds(pid) - before_s, family_cpu_seconds(postgres) - postgres_before_s
    batches: int = await on.raw.fetchval("SELECT count(DISTINCT recorded_at) FROM usage_event")
    return Flushed(
        per_second=count / took_s,
        flusher_cpu_us=cpu_s / count * 1e6,
        postgres_cpu_us=postgres_s / count * 1e6,
        batches=batches,
    )


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What a raw COPY did. CPU in microseconds an event."""

    per_second: float
    postgres_cpu_us: float


async def copy(on: Ground, count: int, *, batches: int) -> Copied:
    """Copy the rows that are there, after they were taken out."""
    parts = [
        await on.raw.fetchval("SELECT DISTINCT recorded_at FROM usage_event ORDER BY 1 OFFSET $1 LIMIT 1", number)
        for number in range(batches)
    ]
    data: list[list[bytes]] = []
    for at in parts:
        data.append([])
        for table, columns in SIDES:
            out = io.BytesIO()
            query = f"SELECT {', '.join(columns)} FROM {table} WHERE recorded_at = '{at.isoformat()}'"
            await on.raw.copy_from_query(query, output=out, format="binary")
            data[-1].append(out.getvalue())
    await empty(on)
    loop, postgres = asyncio.get_running_loop(), on.postgres.child.pid
    began_s, before_s = loop.time(), family_cpu_seconds(postgres)
    for part in data:
        async with on.raw.transaction():
            for (table, columns), rows in zip(SIDES, part, strict=True):
                await on.raw.copy_to_table(table, source=io.BytesIO(rows), columns=columns, format="binary")
    took_s, cpu_s = loop.time() - began_s, family_cpu_seconds(postgres) - before_s
    return Copied(per_second=count / took_s, postgres_cpu_us=cpu_s / count * 1e6)


async def empty(on: Ground) -> None:
    """Both tables as they were before the round."""
    await on.raw.execute("TRUNCATE usage_event, movement")
    await on.raw.execute("CHECKPOINT")


async def lags(on: Ground, *, rate: int, seconds: int, first: int) -> list[float]:
    """Milliseconds from a decision to the first query that sees its row."""
    loop = asyncio.get_running_loop()
    decided: dict[str, float] = {}
    seen: dict[str, float] = {}

    async def decide() -> None:
        began_s = loop.time()
        for number, (stream, fields) in enumerate(entries(rate * seconds, first=first)):
            await asyncio.sleep(max(0.0, began_s + number / rate - loop.time()))
            await on.client.xadd(stream, fields)
            decided[f"dec_{first + number:032x}"] = loop.time()

    async def look() -> None:
        last = datetime(2000, 1, 1, tzinfo=UTC)
        while len(seen) < rate * seconds:
            rows = await on.raw.fetch("SELECT event_id, recorded_at FROM usage_event WHERE recorded_at > $1", last)
            now_s = loop.time()
            for name, at in rows:
                seen[name], last = now_s, max(last, at)
            await asyncio.sleep(LOOK_S)

    async with flusher(on):
        await asyncio.gather(decide(), look())
    return [(seen[name] - at_s) * 1_000 for name, at_s in decided.items()]


async def run(*, count: int, rounds: int, rate: int) -> None:
    """All rounds, then the lag, then one line."""
    size = 0
    copies: list[Copied] = []
    flushes: list[Flushed] = []
    async with ground() as on:
        await on.raw.execute(SETTING)
        for shard in range(SHARD_COUNT):
            await on.client.set(epoch_key(shard), 1)
        for number in range(rounds):
            flushes.append(await flush(on, count, first=number * count))
            copies.append(await copy(on, count, batches=flushes[-1].batches))
            size = await on.raw.fetchval(
                "SELECT (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits"
                " WHERE inhparent = 'usage_event'::regclass) + pg_total_relation_size('movement')"
            )
            await empty(on)
        late = await lags(on, rate=rate, seconds=6, first=rounds * count)
    ratios = [ours.per_second / theirs.per_second for ours, theirs in zip(flushes, copies, strict=True)]
    tell(
        (__doc__ or "").split("\n", 1)[0],
        {
            "flush_per_second": middle([one.per_second for one in flushes]),
            "flush_spread": spread([one.per_second for one in flushes]),
            "copy_per_second": middle([one.per_second for one in copies]),
            "copy_spread": spread([one.per_second for one in copies]),
            "ratio": middle(ratios),
            "ratio_spread": spread(ratios),
            "flusher_cpu_us_per_event": middle([one.flusher_cpu_us for one in flushes]),
            "postgres_cpu_us_per_event": middle([one.postgres_cpu_us for one in flushes]),
            "copy_postgres_cpu_us_per_event": middle([one.postgres_cpu_us for one in copies]),
            "bytes_per_event": round(size / count),
            "lag_ms_p50": middle(late),
            "lag_ms_p99": float(f"{statistics.quantiles(late, n=100)[98]:.4g}"),
            "events": count,
            "rounds": rounds,
            "rate_per_second": rate,
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=500)
    told = parser.parse_args(arguments)
    asyncio.run(run(count=told.events, rounds=told.rounds, rate=told.rate))


if __name__ == "__main__":
    main()
