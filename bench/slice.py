"""Claim: a hot key is answered faster and costs Redis next to nothing where its plan lets workers decide in slices.

One gateway process that asks Redis for every check, and one that decides out of slices of so many units, before
one embedded Valkey each that writes its log through (`appendfsync always`) unless told otherwise. One customer, one
key, one feature with a limit and a price; both are loaded in turn, A B A B, by wrk with 32 connections. Medians of
the rounds; ratios are of rounds. CPU is what the kernel charged to the gateway and to its Valkey, per check. At the
end the stream is held against what was allowed: nothing may be missing, and nothing be there twice.

    python -m bench.peers --install     once, for wrk
    python -m bench.slice [--rounds 5] [--seconds 3] [--units 1000] [--appendfsync always]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import urllib.request
from pathlib import Path
from typing import cast

import msgspec
import redis.asyncio

from bench.apparatus.customer import KEYS, TENANT, furnish
from bench.apparatus.ground import cpu_seconds, middle, spread, tell
from bench.check import a_free_port, start_side
from bench.peers.load import Request, closed_loop
from bench.peers.tools import Tools, find_tools
from billing_core.contract.keys import customer_keys
from billing_core.contract.usage_event import decode_entry
from gateway.command.embedded.process import Child
from gateway.command.embedded.valkey import Valkey, start_valkey

_PAGE = 10_000
_Page = list[tuple[bytes, dict[bytes, bytes]]]
CHECK = Request(
    method="POST",
    path="/v1/check",
    body=msgspec.json.encode({"key": KEYS["customer"], "feature": "calls", "quantity": 1}).decode(),
)


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One side under load. Units: checks per second; microseconds of latency, and of CPU per check."""

    per_second: float
    p50_us: float
    p99_us: float
    gateway_us: float
    valkey_us: float


class Side(msgspec.Struct, kw_only=True):
    """A gateway, its Valkey, and what was measured."""

    name: str
    port: int
    child: Child
    valkey: Valkey
    allowed: int = 0
    rounds: list[Round] = []


def open_side(name: str, folder: Path, *, units: int, appendfsync: str) -> Side:
    """Start a Valkey and a gateway; with units it decides in slices of so many."""
    place = folder / name
    place.mkdir()
    valkey, port = start_valkey(place, appendfsync=appendfsync), a_free_port()
    asyncio.run(furnish(valkey.url, {"customer": KEYS["customer"]}, slice_units=units))
    told = {
        "TALLYGATE_GATEWAY_PORT": str(port),
        "TALLYGATE_GATEWAY_REDIS_URL": valkey.url,
        "TALLYGATE_GATEWAY_DECISION_DEADLINE_MS": "1000",
    }
    if units:
        told["TALLYGATE_GATEWAY_JOURNAL_DIR"] = str(place / "journal")
    child = start_side(name, place, argv=("gateway.edge",), environment=told, port=port).child
    return Side(name=name, port=port, child=child, valkey=valkey)


def load(side: Side, tools: Tools, *, seconds: int) -> None:
    """One round."""
    before = cpu_seconds(side.child.pid), cpu_seconds(side.valkey.child.pid)
    seen = closed_loop(tools, CHECK, port=side.port, seconds=seconds)
    after = cpu_seconds(side.child.pid), cpu_seconds(side.valkey.child.pid)
    if seen.not_allowed or seen.lost:
        raise SystemExit(f"{side.name}: {seen.not_allowed} refused, {seen.lost} lost")
    side.allowed += seen.requests
    side.rounds.append(
        Round(
            per_second=seen.per_second,
            p50_us=seen.p50_us,
            p99_us=seen.p99_us,
            gateway_us=(after[0] - before[0]) * 1e6 / seen.requests,
            valkey_us=(after[1] - before[1]) * 1e6 / seen.requests,
        )
    )


def told_of(side: Side, name: str) -> int:
    """What the gateway has counted under this name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{side.port}/metrics") as page:
        lines = [line.split() for line in page.read().decode().splitlines()]
    return int(sum(float(words[1]) for words in lines if words[0].startswith(f"tallygate_{name}_total")))


async def counted(url: str) -> tuple[int, int]:
    """Usage entries in the stream, and the units that they tell of."""
    stream, start, entries, units = customer_keys(TENANT, "customer").stream, "-", 0, 0
    async with redis.asyncio.Redis.from_url(url) as client:
        while page := cast("_Page", await client.xrange(stream, start, count=_PAGE)):
            for place, fields in page:
                told = decode_entry(place, fields)
                entries, units = entries + 1, units + sum(charge.quantity for charge in told.charges)
            start = f"({page[-1][0].decode()}"
    return entries, units


def figures_of(side: Side, *, entries: int, units: int) -> dict[str, object]:
    """Medians, and what the stream says; of what wrk hung up on, at most one for each connection is more."""
    return {
        **{name: middle([getattr(one, name) for one in side.rounds]) for name in Round.__struct_fields__},
        "per_second_spread": spread([one.per_second for one in side.rounds]),
        "allowed": side.allowed,
        "charged_units": units,
        "usage_entries": entries,
    }


def measure(folder: Path, *, rounds: int, seconds: int, units: int, appendfsync: str) -> None:
    """Start both, load them in turn, stop them, hold streams against answers, tell."""
    tools = find_tools()
    asked = open_side("asked", folder, units=0, appendfsync=appendfsync)
    sliced = open_side("sliced", folder, units=units, appendfsync=appendfsync)
    for side in (asked, sliced):
        load(side, tools, seconds=1)
    for side in (asked, sliced):
        side.rounds = []
    for _ in range(rounds):
        for side in (asked, sliced):
            load(side, tools, seconds=seconds)
    figures: dict[str, object] = {}
    decided, taken = told_of(sliced, "sliced_decisions"), told_of(sliced, "slices_taken")
    for side in (asked, sliced):
        side.child.stop(signal.SIGTERM, timeout_ms=20_000)
        entries, charged = asyncio.run(counted(side.valkey.url))
        if not side.allowed <= charged <= side.allowed + (rounds + 1) * 32:
            raise SystemExit(f"{side.name}: {side.allowed} answered and {charged} charged")
        figures[side.name] = figures_of(side, entries=entries, units=charged)
        side.valkey.stop()
    pairs = list(zip(sliced.rounds, asked.rounds, strict=True))
    rates = [one.per_second / other.per_second for one, other in pairs]
    tell("slice", {"appendfsync": appendfsync, "rounds": rounds, "seconds": seconds, "units": units,
                   "rate_ratio": middle(rates), "rate_ratio_spread": spread(rates),
                   "gateway_cpu_ratio": middle([one.gateway_us / other.gateway_us for one, other in pairs]),
                   "valkey_cpu_ratio": middle([one.valkey_us / other.valkey_us for one, other in pairs]),
                   "decided_in_slices": decided, "slices_taken": taken, **figures})  # fmt: skip


def main() -> None:
    """Read the size of the run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--units", type=int, default=1_000)
    parser.add_argument("--appendfsync", choices=["always", "everysec", "no"], default="always")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        measure(
            Path(folder),
            rounds=told.rounds,
            seconds=told.seconds,
            units=told.units,
            appendfsync=told.appendfsync,
        )


if __name__ == "__main__":
    main()
