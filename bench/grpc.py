"""Claim: the gateway answers Envoy's rate limit service at least five times as often as grpc.aio does.

Measured twice: what a responder costs by itself (the request is read, the answer is always the same), and with the
complete decision in Redis, both sides running the same script. One process each, in turn A B A B on the same
processors, loaded by h2load over 4 connections with 8 streams each, as a proxy has them. Medians and spread of the
rounds; a ratio is of a round. Beside the rate stands what a call costs the processor, which depends less on who
else works on the machine. The official client asks first and must be told what is claimed; every decision must be
found in Redis.

    python -m bench.peers --install        what the peers need, into .venv/peers
    python -m bench.grpc [--rounds 5] [--seconds 3] [--appendfsync no]
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import grpc
import msgspec

from bench.apparatus.customer import KEYS
from bench.apparatus.ground import cpu_seconds, middle, spread, tell
from bench.check import a_free_port
from bench.peers import rounds
from bench.peers.call import RATE_LIMIT, rate_limit_message
from bench.peers.load import Report, rpc_loop
from bench.peers.roster import GRPC_AIO, PEERS, RATE_LIMITER, Peer
from bench.peers.scene import Scene, listens, scene
from bench.peers.tools import SERVERS, Tools, find_tools
from gateway.command.embedded.process import Child, Program, start
from gateway.edge.envoy.protobuf import NUMBER, fields_of, tag
from gateway.edge.envoy.reply import OK, Counted, limited

ANSWER: Final = limited([Counted(is_over=False, limit_units=1_000, remaining_units=999, name="calls")], ())
_MESSAGE: Final = rate_limit_message(KEYS["customer"])
_READY_MS: Final = 20_000


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one side. Processor microseconds of the server, and of Valkey where it is asked, per call."""

    report: Report
    cpu_us: float


class Constant(msgspec.Struct, frozen=True, kw_only=True):
    """A server that always says the same."""

    name: str
    port: int
    child: Child


def start_constant(name: str, words: Sequence[str], *, folder: Path) -> Constant:
    """Start one and wait until it listens."""
    port = a_free_port()
    argv = (*words, ANSWER.hex(), str(port))
    child = start(Program(name=name, argv=argv, log_file=folder / f"{name}.log"))
    child.wait_ready(lambda: listens(port), timeout_ms=_READY_MS)
    return Constant(name=name, port=port, child=child)


def asked(port: int) -> bytes:
    """What the official client is told."""
    with cast("Any", grpc).insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary(RATE_LIMIT)(_MESSAGE, timeout=10)


def check_constant(side: Constant) -> None:
    """Raises: SystemExit where the answer is another one."""
    if asked(side.port) != ANSWER:
        raise SystemExit(f"{side.name} says something else")


def check_decision(stage: Scene, peer: Peer) -> None:
    """Raises: SystemExit where the answer does not let through."""
    if (tag(1, NUMBER), b"", OK) not in fields_of(asked(stage.ports[peer.port])):
        raise SystemExit(f"{peer.name} lets nobody through")


def constant_rounds(tools: Tools, folder: Path, *, count: int, seconds: int) -> dict[str, list[Cost]]:
    """Both constant servers in turn."""
    peer = (str(tools.programs["python-grpc"]), str(SERVERS / "grpc_constant.py"))
    sides = [
        start_constant(RATE_LIMITER, (sys.executable, "-m", "bench.apparatus.constant"), folder=folder),
        start_constant("grpc.aio", peer, folder=folder),
    ]
    try:
        for side in sides:
            check_constant(side)
            rpc_loop(tools, _MESSAGE, method=RATE_LIMIT, port=side.port, seconds=1, folder=folder)
        seen: dict[str, list[Cost]] = {side.name: [] for side in sides}
        for number in range(count):
            for side in sides:
                rounds.say(f"constant {number + 1}/{count} {side.name}")
                before_s = cpu_seconds(side.child.pid)
                report = rpc_loop(
                    tools, _MESSAGE, method=RATE_LIMIT, port=side.port, seconds=seconds, folder=folder
                )
                cpu_us = (cpu_seconds(side.child.pid) - before_s) * 1e6 / report.requests
                seen[side.name].append(Cost(report=report, cpu_us=cpu_us))
        return seen
    finally:
        for side in sides:
            side.child.stop(signal.SIGTERM, timeout_ms=5_000)


def decision_rounds(
    tools: Tools, folder: Path, *, count: int, seconds: int, appendfsync: str
) -> dict[str, list[Cost]]:
    """Both with the complete decision, in turn."""
    sides = tuple(peer for name in (RATE_LIMITER, GRPC_AIO) for peer in PEERS if peer.name == name)
    with scene(tools, sides, folder=folder, appendfsync=appendfsync) as stage:
        for peer in sides:
            check_decision(stage, peer)
        seen = rounds.closed(stage, sides, rounds=count, seconds=seconds)
    return {
        name: [Cost(report=one.report, cpu_us=one.servers_cpu_us + one.valkey_cpu_us) for one in samples]
        for name, samples in seen.items()
    }


def figures_of(seen: Mapping[str, Sequence[Cost]]) -> dict[str, object]:
    """Each side, and ours against theirs."""
    ours, theirs = seen.values()
    pairs = list(zip(ours, theirs, strict=True))
    rates = [a.report.per_second / b.report.per_second for a, b in pairs]
    costs = [b.cpu_us / a.cpu_us for a, b in pairs]
    figures: dict[str, object] = {name: _figures(samples) for name, samples in seen.items()}
    return {
        "ratio": middle(rates),
        "ratio_spread": spread(rates),
        "cpu_ratio": middle(costs),
        "cpu_ratio_spread": spread(costs),
        **figures,
    }


def _figures(samples: Sequence[Cost]) -> dict[str, object]:
    rates, costs = [one.report.per_second for one in samples], [one.cpu_us for one in samples]
    return {
        "per_second": middle(rates),
        "per_second_spread": spread(rates),
        "p50_us": middle([one.report.p50_us for one in samples]),
        "p99_us": middle([one.report.p99_us for one in samples]),
        "cpu_us_per_call": middle(costs),
        "cpu_us_per_call_spread": spread(costs),
    }


def main() -> None:
    """Read the size of the run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--appendfsync", choices=["always", "everysec", "no", "off"], default="no")
    told = parser.parse_args()
    tools = find_tools()
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        constant = constant_rounds(tools, Path(folder), count=told.rounds, seconds=told.seconds)
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        decision = decision_rounds(
            tools, Path(folder), count=told.rounds, seconds=told.seconds, appendfsync=told.appendfsync
        )
    tell("grpc", {"rounds": told.rounds, "seconds": told.seconds, "appendfsync": told.appendfsync,
                  "constant": figures_of(constant), "decision": figures_of(decision)})  # fmt: skip


if __name__ == "__main__":
    main()
