"""Claim: one gateway process answers /v1/check faster than a plain application of aiohttp and redis-py.

Both run the same decision script, have one process and one connection each to one embedded Valkey that writes
its log through (`appendfsync always`) unless told otherwise; both are loaded in turn, A B A B, by 32 connections
from a process of its own. Medians of the rounds. CPU is what the kernel charged to the process under test, and to
Valkey, per request.

    python -m bench.check [--rounds 5] [--requests 20000] [--appendfsync always]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bench.apparatus.customer import KEYS, furnish
from bench.apparatus.ground import cpu_seconds, middle, spread, tell
from bench.apparatus.load import Report
from gateway.command.embedded.process import Child, Program, start
from gateway.command.embedded.valkey import Valkey, start_valkey

_READY_MS = 20_000


class Side(msgspec.Struct, kw_only=True):
    """One of the two under test, and what was measured of it."""

    name: str
    port: int
    child: Child
    reports: list[Report]
    cpu_us: list[float]
    valkey_us: list[float]


def a_free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_side(
    name: str, folder: Path, *, argv: tuple[str, ...], environment: Mapping[str, str], port: int
) -> Side:
    """Start one of the two and wait until it listens."""
    program = Program(
        name=name,
        argv=(sys.executable, "-m", *argv),
        log_file=folder / f"{name}.log",
        environment={**os.environ, **environment},
    )
    child = start(program)
    child.wait_ready(lambda: _listens(port), timeout_ms=_READY_MS)
    return Side(name=name, port=port, child=child, reports=[], cpu_us=[], valkey_us=[])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def load_once(side: Side, valkey: Valkey, requests: int) -> None:
    """One round of load on one side."""
    body = msgspec.json.encode({"key": KEYS["customer"], "feature": "calls", "quantity": 1}).decode()
    before = cpu_seconds(side.child.pid), cpu_seconds(valkey.child.pid)
    command = [sys.executable, "-m", "bench.apparatus.load", "--port", str(side.port), "--body", body]
    done = subprocess.run([*command, "--requests", str(requests)], capture_output=True, check=True)
    after = cpu_seconds(side.child.pid), cpu_seconds(valkey.child.pid)
    report = msgspec.json.decode(done.stdout, type=Report)
    if report.statuses != {"200": requests}:
        raise SystemExit(f"{side.name} answered {report.statuses}")
    side.reports.append(report)
    side.cpu_us.append((after[0] - before[0]) * 1e6 / requests)
    side.valkey_us.append((after[1] - before[1]) * 1e6 / requests)


def figures_of(side: Side) -> dict[str, object]:
    """Medians, and the spread of the rate."""
    rates = [report.per_second for report in side.reports]
    return {
        "per_second": middle(rates),
        "per_second_spread": spread(rates),
        "p50_us": middle([report.p50_us for report in side.reports]),
        "p99_us": middle([report.p99_us for report in side.reports]),
        "cpu_us_per_check": middle(side.cpu_us),
        "valkey_cpu_us_per_check": middle(side.valkey_us),
    }


def measure(folder: Path, *, rounds: int, requests: int, appendfsync: str) -> None:
    """Start everything, load both sides in turn, tell."""
    valkey = start_valkey(folder, appendfsync=appendfsync)
    asyncio.run(furnish(valkey.url))
    ports = a_free_port(), a_free_port()
    told = {"TALLYGATE_GATEWAY_PORT": str(ports[0]), "TALLYGATE_GATEWAY_REDIS_URL": valkey.url,
            "TALLYGATE_GATEWAY_DECISION_DEADLINE_MS": "1000"}  # fmt: skip
    sides = [
        start_side("tallygate", folder, argv=("gateway.edge",), environment=told, port=ports[0]),
        start_side(
            "plain",
            folder,
            argv=("bench.apparatus.plain", valkey.url, str(ports[1])),
            environment={},
            port=ports[1],
        ),
    ]
    for side in sides:
        load_once(side, valkey, requests // 10)
    for side in sides:
        side.reports, side.cpu_us, side.valkey_us = [], [], []
    for _ in range(rounds):
        for side in sides:
            load_once(side, valkey, requests)
    ratios = [a.per_second / b.per_second for a, b in zip(sides[0].reports, sides[1].reports, strict=True)]
    figures: dict[str, object] = {side.name: figures_of(side) for side in sides}
    tell("check", {"appendfsync": appendfsync, "rounds": rounds, "requests": requests, "ratio": middle(ratios),
                   "ratio_spread": spread(ratios), **figures})  # fmt: skip
    for side in sides:
        side.child.stop(signal.SIGTERM, timeout_ms=10_000)
    valkey.stop()


def main() -> None:
    """Read the size of the run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--appendfsync", choices=["always", "everysec", "no"], default="always")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        measure(Path(folder), rounds=told.rounds, requests=told.requests, appendfsync=told.appendfsync)


if __name__ == "__main__":
    main()
