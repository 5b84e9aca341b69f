"""Claim: at full load a decision can be queried in Postgres within two seconds (p99).

Gateway, Valkey (its log written through), a flusher and Postgres (fsync on) share the machine with the load: 32
connections that ask again as soon as they are answered, for a thousand customers in turn. In some of the shards
every row is watched by a query of another connection. Lag is from the entry's instant in the stream, which is the
decision's, to that query's answer.

    python -m bench.lag [--rounds 3] [--seconds 8]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.apparatus.customer import TENANT, furnish
from bench.apparatus.ground import middle, spread, tell
from bench.apparatus.load import Report
from bench.apparatus.servers import Ground, flusher, ground
from bench.check import a_free_port, start_side
from billing_core.contract.keys import shard_of_customer
from billing_core.values.clock import system_now, to_ms

CUSTOMERS: Final = 1_000
WATCHED: Final = 32
LOOK_S: Final = 0.005
WARM_UP: Final = 5_000
BODY: Final = '{"key":"tgk_#","feature":"calls","quantity":1}'
SETTING: Final = """
INSERT INTO tenant VALUES ('bench', 'bench', false, 0, now());
INSERT INTO customer (tenant_id, customer_id, name, shard, created_at)
    SELECT 'bench', 'customer-' || n, '', 0, now() FROM generate_series(0, 999) AS n;
INSERT INTO credit_grant (tenant_id, grant_id, customer_id, currency, kind, amount_nanos, effective_at, created_at,
                          applied_at)
    SELECT 'bench', 'gra_customer-' || n, 'customer-' || n, 'USD', 'promotional', 9000000000000000, now(), now(),
           now() FROM generate_series(0, 999) AS n;
"""
ROWS: Final = """
SELECT found.shard, found.stream_ms, found.stream_seq
FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS seen (shard, ms, seq)
CROSS JOIN LATERAL (
    SELECT shard, stream_ms, stream_seq FROM usage_event
    WHERE usage_event.shard = seen.shard AND (stream_ms, stream_seq) > (seen.ms, seen.seq)
) AS found
ORDER BY found.shard, found.stream_ms, found.stream_seq
"""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One load, and how late its rows were seen."""

    per_second: float
    lags_ms: Sequence[float]


class Watch:
    """Where the watched shards have been seen up to."""

    def __init__(self, on: Ground) -> None:
        shards = {shard_of_customer(TENANT, f"customer-{number}") for number in range(WATCHED)}
        self._seen = dict.fromkeys(sorted(shards), (0, 0))
        self._on = on

    async def look(self) -> list[float]:
        """Lags of the rows that were not there before."""
        at = list(self._seen.values())
        rows = await self._on.raw.fetch(ROWS, list(self._seen), [ms for ms, _ in at], [seq for _, seq in at])
        now_ms = to_ms(system_now())
        for shard, ms, seq in rows:
            self._seen[shard] = (ms, seq)
        return [float(now_ms - ms) for _, ms, _ in rows]


async def ask(port: int, requests: int) -> Report:
    """One closed loop, in a process of its own. Raises: SystemExit where an answer was no decision."""
    words = ("-m", "bench.apparatus.load", "--port", str(port), "--body", BODY, "--customers", str(CUSTOMERS))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, "--requests", str(requests), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    report = msgspec.json.decode(out, type=Report)
    if report.statuses != {"200": requests}:
        raise SystemExit(f"the gateway answered {report.statuses}")
    return report


async def until_rows(on: Ground, count: int) -> None:
    """Wait until so many events are in Postgres."""
    while await on.raw.fetchval("SELECT count(*) FROM usage_event") < count:  # noqa: ASYNC110 - as in bench.flush
        await asyncio.sleep(LOOK_S)


async def one_round(on: Ground, port: int, *, requests: int, written: int) -> Round:
    """Load, and look on all the while."""
    watch = Watch(on)
    await watch.look()
    asking = asyncio.create_task(ask(port, requests))
    lags: list[float] = []
    while not asking.done():
        lags += await watch.look()
        await asyncio.sleep(LOOK_S)
    report = await asking
    await until_rows(on, written + requests)
    lags += await watch.look()
    return Round(per_second=report.per_second, lags_ms=lags)


async def run(folder: Path, *, rounds: int, seconds: int) -> None:
    """All rounds on the same servers, then one line."""
    async with ground() as on:
        await on.raw.execute(SETTING)
        await furnish(on.valkey.url, {f"customer-{number}": f"tgk_{number}" for number in range(CUSTOMERS)})
        port = a_free_port()
        told = {"TALLYGATE_GATEWAY_PORT": str(port), "TALLYGATE_GATEWAY_REDIS_URL": on.valkey.url,
                "TALLYGATE_GATEWAY_DECISION_DEADLINE_MS": "1000"}  # fmt: skip
        gateway = start_side("tallygate", folder, argv=("gateway.edge",), environment=told, port=port)
        async with flusher(on):
            rate = (await ask(port, WARM_UP)).per_second
            await until_rows(on, WARM_UP)
            requests = max(WARM_UP, int(rate * seconds))
            seen = [
                await one_round(on, port, requests=requests, written=WARM_UP + number * requests)
                for number in range(rounds)
            ]
        gateway.child.stop(signal.SIGTERM, timeout_ms=10_000)
    p99s = [statistics.quantiles(one.lags_ms, n=100)[98] for one in seen]
    tell(
        (__doc__ or "").split("\n", 1)[0],
        {
            "checks_per_second": middle([one.per_second for one in seen]),
            "checks_per_second_spread": spread([one.per_second for one in seen]),
            "rows_watched": sum(len(one.lags_ms) for one in seen),
            "lag_ms_p50": middle([statistics.median(one.lags_ms) for one in seen]),
            "lag_ms_p99": middle(p99s),
            "lag_ms_p99_spread": spread(p99s),
            "lag_ms_worst": max(max(one.lags_ms) for one in seen),
            "rounds": rounds,
            "requests": requests,
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        asyncio.run(run(Path(folder), rounds=told.rounds, seconds=told.seconds))


if __name__ == "__main__":
    main()
