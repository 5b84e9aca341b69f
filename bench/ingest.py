"""Claim: client-sent events are taken once each; how fast they are in Postgres, beside a raw COPY of the same rows.

Arrays of 500 events come over eight connections as fast as they are answered, to one gateway process; a flusher
writes what they leave in the streams (Valkey's log written through, fsync on), all on the same processors. The rate
is from the first event's instant in its stream to the watermark that has the last one. Then the same rows are
written by a raw COPY over one connection, in the flusher's batches, into the same tables with the same indexes.
Then half of that rate comes at an even pace: `half_load_answer_ms` is what a sender waits for its 500 then, from
the instant at which the request was due. `cpu_us_per_event` is what an event costs each part at full load. Each
round also brings as many events as lines (NDJSON) and as CloudEvents: `form_cpu_us` is what an event costs the
gateway in each form, `form_ratio` that beside the array of the same round.

    python -m bench.ingest [--rounds 5] [--events 100000]
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
from typing import Final, cast

import msgspec

from bench.apparatus.customer import TENANT, furnish
from bench.apparatus.ground import family_cpu_seconds, middle, peak_memory_kib, spread, tell
from bench.apparatus.load import Report
from bench.apparatus.servers import Ground, flusher, ground
from bench.check import a_free_port, start_side
from bench.flush import copy, empty
from bench.lag import SETTING
from billing_core.adapters.usage_stream import UsageStream
from billing_core.contract import keys
from billing_core.values.clock import from_ms, system_now, to_ms
from gateway.edge.message import JSON
from gateway.edge.route.event import CLOUD_EVENTS, NDJSON
from gateway.state.directory import meters_key

CUSTOMERS: Final = 100
AT_ONCE: Final = 500
CONNECTIONS: Final = 8
LOOK_S: Final = 0.02
TOKEN: Final = "tgo_bench"
FORMS: Final = {"array": JSON, "lines": NDJSON, "cloud_events": CLOUD_EVENTS}
BEHIND: Final = """
SELECT count(*) FROM shard JOIN unnest($1::int[], $2::bigint[], $3::bigint[]) AS last (shard, ms, seq) USING (shard)
WHERE (watermark_ms, watermark_seq) < (last.ms, last.seq)
"""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One load: what it carried, what a sender waited, what COPY made of the same rows; then half of it."""

    per_second: float
    copied_per_second: float
    full: Report
    half: Report
    cpu_us: dict[str, float]
    form_cpu_us: dict[str, float]


class Parts:
    """The processes that an event passes through, and what they have cost so far."""

    def __init__(self, on: Ground, *, gateway: int, flusher: int) -> None:
        self._pids = {
            "gateway": gateway,
            "valkey": on.valkey.child.pid,
            "flusher": flusher,
            "postgres": on.postgres.child.pid,
        }
        self._before = self._seconds()

    def _seconds(self) -> dict[str, float]:
        return {name: family_cpu_seconds(pid) for name, pid in self._pids.items()}

    def us_per_event(self, count: int) -> dict[str, float]:
        """Since this was made. Units: microseconds."""
        now = self._seconds()
        return {name: round((now[name] - self._before[name]) * 1e6 / count, 2) for name in now}


async def admit(on: Ground) -> None:
    """The operator whose events they are, and the meter that reads them."""
    record = keys.KeyRecord(tenant_id=TENANT, role=keys.Role.OPERATOR, hint="nch")
    await on.client.set(keys.api_key_name(keys.digest_of(TOKEN)), msgspec.msgpack.encode(record))
    await on.client.set(meters_key(TENANT), msgspec.msgpack.encode({"llm": {"input": 0}}))


def as_cloud_event(event: dict[str, object]) -> dict[str, object]:
    """The same event in other words."""
    told = {"specversion": "1.0", "source": "/bench", "id": event["id"], "type": event["event"]}
    time = from_ms(cast("int", event["time"])).isoformat()
    return told | {"subject": event["customer"], "time": time, "data": event["fields"]}


def write_bodies(file: Path, count: int, *, form: str = "array") -> None:
    """Events that nobody has sent before, a request's a line."""
    now_ms, name = to_ms(system_now()), secrets.token_hex(6)
    fields = {"input": 374, "model": "small"}
    with file.open("wb") as out:
        for first in range(0, count, AT_ONCE):
            events: list[dict[str, object]] = [
                {"id": f"{name}-{number}", "event": "llm", "time": now_ms - number % 60_000, "fields": fields,
                 "customer": f"customer-{number % CUSTOMERS}"}
                for number in range(first, min(first + AT_ONCE, count))
            ]  # fmt: skip
            if form == "lines":
                out.write(b"\x1e".join(msgspec.json.encode(one) for one in events) + b"\n")
            else:
                told = [as_cloud_event(one) for one in events] if form == "cloud_events" else events
                out.write(msgspec.json.encode(told) + b"\n")


async def send(port: int, bodies: Path, *, rate: float = 0, form: str = "array") -> Report:
    """All bodies, once each, as fast as may be or so many a second. Raises: SystemExit where one was not taken."""
    words = ("-m", "bench.apparatus.load", "--port", str(port), "--path", "/v1/events", "--token", TOKEN)
    words += ("--media-type", FORMS[form])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words, "--connections", str(CONNECTIONS), "--bodies", str(bodies), "--rate", str(rate)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    report = msgspec.json.decode(out, type=Report)
    if set(report.statuses) != {"200"}:
        raise SystemExit(f"the gateway answered {report.statuses}")
    return report


async def until_written(on: Ground, count: int) -> int:
    """Wait until Postgres has all that the streams ever held; when that was, in ms.

    Raises: SystemExit where that is not all that was sent.
    """
    shards = keys.shards_of_events(TENANT)
    lasts = await UsageStream(on.client).last_ids(shards)
    places = list(shards), [one.ms for one in lasts], [one.seq for one in lasts]
    while await on.raw.fetchval(BEHIND, *places):  # noqa: ASYNC110 - as in bench.flush
        await asyncio.sleep(LOOK_S)
    now_ms = to_ms(system_now())
    if await on.raw.fetchval("SELECT count(*) FROM usage_event") != count:
        raise SystemExit("there are not as many rows as events")
    return now_ms


async def one_round(on: Ground, *, port: int, gateway: int, bodies: Path, count: int) -> Round:
    """Send all, wait for the last row, copy the same rows; then send at half the rate."""
    write_bodies(bodies, count)
    async with flusher(on) as pid:
        parts = Parts(on, gateway=gateway, flusher=pid)
        full = await send(port, bodies)
        now_ms = await until_written(on, count)
        cpu_us = parts.us_per_event(count)
    began_ms = int(await on.raw.fetchval("SELECT min(stream_ms) FROM usage_event"))
    per_second = count * 1_000 / (now_ms - began_ms)
    batches = int(await on.raw.fetchval("SELECT count(DISTINCT recorded_at) FROM usage_event"))
    copied = (await copy(on, count, batches=batches)).per_second
    await empty(on)
    form_cpu_us = {"array": cpu_us["gateway"]}
    for form in ("lines", "cloud_events"):
        write_bodies(bodies, count, form=form)
        async with flusher(on) as pid:
            parts = Parts(on, gateway=gateway, flusher=pid)
            await send(port, bodies, form=form)
            await until_written(on, count)
            form_cpu_us[form] = parts.us_per_event(count)["gateway"]
        await empty(on)
    write_bodies(bodies, count)
    async with flusher(on):
        half = await send(port, bodies, rate=per_second / 2 / AT_ONCE)
        await until_written(on, count)
    await empty(on)
    return Round(
        per_second=per_second,
        copied_per_second=copied,
        full=full,
        half=half,
        cpu_us=cpu_us,
        form_cpu_us=form_cpu_us,
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
        size = {"port": port, "gateway": gateway.child.pid}
        await one_round(on, **size, bodies=folder / "bodies", count=10 * AT_ONCE)
        seen = [await one_round(on, **size, bodies=folder / "bodies", count=count) for _ in range(rounds)]
        peak_kib = peak_memory_kib(gateway.child.pid)
        gateway.child.stop(signal.SIGTERM, timeout_ms=10_000)
    tell((__doc__ or "").split("\n", 1)[0], figures(seen) | {
        "gateway_peak_mib": round(peak_kib / 1_024),
        "events": count,
        "events_per_request": AT_ONCE,
        "rounds": rounds,
    })  # fmt: skip


def figures(seen: Sequence[Round]) -> dict[str, object]:
    """Medians over the rounds, and how far they lie apart."""
    ratios = [one.per_second / one.copied_per_second for one in seen]
    return {
        "events_per_second": middle([one.per_second for one in seen]),
        "events_per_second_spread": spread([one.per_second for one in seen]),
        "copy_per_second": middle([one.copied_per_second for one in seen]),
        "copy_per_second_spread": spread([one.copied_per_second for one in seen]),
        "ratio": middle(ratios),
        "ratio_spread": spread(ratios),
        "cpu_us_per_event": {name: middle([one.cpu_us[name] for one in seen]) for name in seen[0].cpu_us},
        "form_cpu_us": {form: middle([one.form_cpu_us[form] for one in seen]) for form in FORMS},
        "form_ratio": {form: middle(ratios_of(seen, form)) for form in FORMS},
        "form_ratio_spread": {form: spread(ratios_of(seen, form)) for form in FORMS},
        "full_load_answer_ms": answers([one.full for one in seen]),
        "half_load_answer_ms": answers([one.half for one in seen]),
    }


def ratios_of(seen: Sequence[Round], form: str) -> list[float]:
    """What an event in that form costs the gateway, by what one in an array costs."""
    return [one.form_cpu_us[form] / one.form_cpu_us["array"] for one in seen]


def answers(reports: Sequence[Report]) -> dict[str, object]:
    """What senders waited."""
    p99s = [one.p99_us / 1_000 for one in reports]
    return {
        "requests_per_second": middle([one.per_second for one in reports]),
        "p50": middle([one.p50_us / 1_000 for one in reports]),
        "p99": middle(p99s),
        "p99_spread": spread(p99s),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=100_000)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        asyncio.run(run(Path(folder), rounds=told.rounds, count=told.events))


if __name__ == "__main__":
    main()
