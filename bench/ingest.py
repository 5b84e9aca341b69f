"""Claim: client-sent events are taken once each, and are in Postgres at an eighth of the speed of a raw COPY.

Arrays of 500 events come over eight connections as fast as they are answered, to one gateway process; a flusher
writes what they leave in the streams (Valkey's log written through, fsync on), all on the same processors. The rate
is from the first event's instant in its stream to the query that sees the last row. Then the same rows are written
by a raw COPY over one connection, in the flusher's batches. `answer_ms` is what a sender waits for its 500.

    python -m bench.ingest [--rounds 3] [--events 50000]
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.apparatus.customer import TENANT, furnish
from bench.apparatus.ground import cpu_seconds, middle, spread, tell
from bench.apparatus.load import Report
from bench.apparatus.servers import Ground, flusher, ground
from bench.check import a_free_port, start_side
from bench.flush import copy, empty
from bench.lag import SETTING
from billing_core.contract import keys
from billing_core.values.clock import system_now, to_ms
from gateway.state.directory import meters_key

CUSTOMERS: Final = 100
AT_ONCE: Final = 500
CONNECTIONS: Final = 8
LOOK_S: Final = 0.02
TOKEN: Final = "tgo_bench"


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One load: what it carried, what a sender waited, and what COPY made of the same rows."""

    per_second: float
    copied_per_second: float
    answer_p50_ms: float
    answer_p99_ms: float
    gateway_cpu_us: float


async def admit(on: Ground) -> None:
    """The operator whose events they are, and the meter that reads them."""
    record = keys.KeyRecord(tenant_id=TENANT, role=keys.Role.OPERATOR, hint="nch")
    await on.client.set(keys.api_key_name(keys.digest_of(TOKEN)), msgspec.msgpack.encode(record))
    await on.client.set(meters_key(TENANT), msgspec.msgpack.encode({"llm": {"input": 0}}))


def write_bodies(file: Path, count: int) -> None:
    """Events that nobody has sent before, an array a line."""
    now_ms, name = to_ms(system_now()), secrets.token_hex(6)
    fields = {"input": 374, "model": "small"}
    with file.open("wb") as out:
        for first in range(0, count, AT_ONCE):
            events = [
                {"id": f"{name}-{number}", "event": "llm", "time": now_ms, "fields": fields,
                 "customer": f"customer-{number % CUSTOMERS}"}
                for number in range(first, min(first + AT_ONCE, count))
            ]  # fmt: skip
            out.write(msgspec.json.encode(events) + b"\n")


async def send(port: int, bodies: Path) -> Report:
    """All bodies, once each. Raises: SystemExit where one was not taken."""
    words = ("-m", "bench.apparatus.load", "--port", str(port), "--path", "/v1/events", "--token", TOKEN)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words, "--connections", str(CONNECTIONS), "--bodies", str(bodies)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    report = msgspec.json.decode(out, type=Report)
    if set(report.statuses) != {"200"}:
        raise SystemExit(f"the gateway answered {report.statuses}")
    return report


async def one_round(on: Ground, *, port: int, pid: int, bodies: Path, count: int) -> Round:
    """Send all, wait for the last row, then copy the same rows."""
    write_bodies(bodies, count)
    before_s = cpu_seconds(pid)
    async with flusher(on):
        report = await send(port, bodies)
        spent_s = cpu_seconds(pid) - before_s
        while await on.raw.fetchval("SELECT count(*) FROM usage_event") < count:  # noqa: ASYNC110 - as in bench.flush
            await asyncio.sleep(LOOK_S)
        now_ms = to_ms(system_now())
    began_ms = int(await on.raw.fetchval("SELECT min(stream_ms) FROM usage_event"))
    batches = int(await on.raw.fetchval("SELECT count(DISTINCT recorded_at) FROM usage_event"))
    copied = await copy(on, count, batches=batches)
    await empty(on)
    return Round(
        per_second=count * 1_000 / (now_ms - began_ms),
        copied_per_second=copied,
        answer_p50_ms=report.p50_us / 1_000,
        answer_p99_ms=report.p99_us / 1_000,
        gateway_cpu_us=spent_s * 1e6 / count,
    )


async def run(folder: Path, *, rounds: int, count: int) -> None:
    """All rounds on the same servers, then one line."""
    async with ground() as on:
        await on.raw.execute(SETTING)
        await furnish(on.valkey.url, {f"customer-{number}": f"tgk_{number}" for number in range(CUSTOMERS)})
        await admit(on)
        port = a_free_port()
        told = {"TALLYGATE_GATEWAY_PORT": str(port), "TALLYGATE_GATEWAY_REDIS_URL": on.valkey.url,
                "TALLYGATE_GATEWAY_BULK_DEADLINE_MS": "20000"}  # fmt: skip
        gateway = start_side("tallygate", folder, argv=("gateway.edge",), environment=told, port=port)
        size = {"port": port, "pid": gateway.child.pid}
        await one_round(on, **size, bodies=folder / "bodies", count=10 * AT_ONCE)
        seen = [await one_round(on, **size, bodies=folder / "bodies", count=count) for _ in range(rounds)]
        gateway.child.stop(signal.SIGTERM, timeout_ms=10_000)
    tell(
        (__doc__ or "").split("\n", 1)[0],
        {
            "events_per_second": middle([one.per_second for one in seen]),
            "events_per_second_spread": spread([one.per_second for one in seen]),
            "copy_per_second": middle([one.copied_per_second for one in seen]),
            "ratio": middle([one.per_second / one.copied_per_second for one in seen]),
            "ratio_spread": spread([one.per_second / one.copied_per_second for one in seen]),
            "answer_ms_p50": middle([one.answer_p50_ms for one in seen]),
            "answer_ms_p99": middle([one.answer_p99_ms for one in seen]),
            "gateway_cpu_us_per_event": middle([one.gateway_cpu_us for one in seen]),
            "events": count,
            "events_per_request": AT_ONCE,
            "rounds": rounds,
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=50_000)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        asyncio.run(run(Path(folder), rounds=told.rounds, count=told.events))


if __name__ == "__main__":
    main()
