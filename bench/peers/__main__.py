"""Claim: one gateway process carries more checks than nginx with LuaJIT does that runs the same decision script.

Peers side by side in one run, interleaved, on the same two processors: nginx+Lua, Fastify, aiohttp and Starlette
as applications; Traefik, Envoy, Caddy and nginx as proxies; redis-benchmark as the limit. One Valkey, one worker
each, 32 connections. Medians and spread of the rounds; ratios are of rounds. A table on the screen, JSON lines and
pictures in bench/results.

    python -m bench.peers --install        what only this bench needs, into .venv/peers
    python -m bench.peers [--quick] [--only tallygate,nginx+lua] [--acts closed,paced,neighbour]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.apparatus.ground import facts, middle
from bench.peers import rounds
from bench.peers.claims import claims_of
from bench.peers.picture import Bar, bars, lines
from bench.peers.roster import PEERS, TALLYGATE, Peer, Role, chosen
from bench.peers.rounds import PROCESSORS, Findings
from bench.peers.scene import Scene, scene
from bench.peers.table import table_of, write_lines
from bench.peers.tools import ROOT, find_tools, install

ACTS: Final = ("closed", "paced", "neighbour")
_TITLES: Final = {
    Role.CHECK: "One check, one decision in Redis",
    Role.PROXY: "A proxy asks before it answers",
    Role.RATELIMIT: "Envoy's rate limit service",
    Role.SCRIPT: "The decision script alone",
}


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int
    seconds: int
    quiet_rate: float
    acts: tuple[str, ...]


def measure(stage: Scene, peers: tuple[Peer, ...], size: Size) -> Findings:
    """The acts in their order; the pace is a part of what the closed loop has shown."""
    seen = rounds.closed(stage, peers, rounds=size.rounds, seconds=size.seconds) if "closed" in size.acts else {}
    rate = rounds.reference_rate(seen)
    paced = (
        rounds.paced(stage, peers, rate=rate, rounds=size.rounds, seconds=size.seconds)
        if "paced" in size.acts and rate
        else []
    )
    beside = (
        rounds.neighbour(stage, peers, quiet_rate=size.quiet_rate, rounds=size.rounds, seconds=size.seconds)
        if "neighbour" in size.acts
        else {}
    )
    return Findings(closed=seen, paced=paced, neighbour=beside)


def draw(folder: Path, findings: Findings) -> None:
    """A picture of each role, and one of latencies."""
    for role, title in _TITLES.items():
        rows: list[Bar] = []
        for peer in PEERS:
            if peer.role is role and peer.name in findings.closed:
                rates = [one.report.per_second for one in findings.closed[peer.name]]
                rows.append(
                    Bar(
                        label=peer.name if peer.is_recorded else f"{peer.name}, no event",
                        value=middle(rates),
                        least=min(rates),
                        most=max(rates),
                        is_ours=TALLYGATE in peer.name,
                    )
                )
        if rows:
            (folder / f"{role.value}.svg").write_text(bars(title, "answers a second", rows=rows), "utf-8")
    series: dict[str, list[tuple[float, float]]] = {}
    for paced in findings.paced:
        for name, samples in paced.samples.items():
            late_ms = middle([one.report.p99_us for one in samples]) / 1_000
            series.setdefault(name, []).append((paced.rate, late_ms))
    if series:
        text = lines("Late answers at a constant arrival rate", "p99 in ms, over requests a second", series=series)
        (folder / "latency.svg").write_text(text, "utf-8")


def busy_s() -> float:
    """Seconds that all processors together were at work since the machine started."""
    fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]
    idle, waiting = fields.pop(3), fields.pop(3)
    del idle, waiting
    return sum(int(field) for field in fields) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """Processor seconds of this process and of all children that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def go_before_others(nice: int) -> None:
    """Change the priority of this run; where the kernel groups processes by session, that of the session."""
    if nice:
        os.nice(nice)
        group = Path("/proc/self/autogroup")
        if group.exists():
            group.write_text(str(nice), "ascii")


def size_of(told: argparse.Namespace) -> Size:
    """The size of the run. Raises: SystemExit for an act that there is not."""
    acts = tuple(str(told.acts).split(","))
    if not set(acts) <= set(ACTS):
        raise SystemExit(f"acts are {', '.join(ACTS)}")
    if told.quick:
        return Size(rounds=3, seconds=1, quiet_rate=told.quiet_rate, acts=acts)
    return Size(rounds=told.rounds, seconds=told.seconds, quiet_rate=told.quiet_rate, acts=acts)


def run(told: argparse.Namespace) -> None:
    """Measure, print, write, draw."""
    tools, peers, size = find_tools(), chosen(told.only), size_of(told)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:PROCESSORS])
    go_before_others(told.nice)
    before = busy_s(), own_s()
    with (
        tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder,
        scene(tools, peers, folder=Path(folder), appendfsync=told.appendfsync) as stage,
    ):
        findings = measure(stage, peers, size)
    busy, own = busy_s() - before[0], own_s() - before[1]
    claims = list(claims_of(findings))
    others = round(max(0.0, 1 - own / busy), 3)
    on: dict[str, object] = {
        **facts(),
        **tools.versions,
        "appendfsync": told.appendfsync,
        "others_share": others,
        "nice": told.nice,
    }
    out = Path(told.out)
    write_lines(out / "peers.jsonl", findings, claims, on=on)
    draw(out, findings)
    print("\n".join(table_of(findings, claims)))
    print(f"\nof the processors' work {others:.0%} was for somebody else; details in {out}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", action="store_true", help="make what is needed, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="three rounds of a second")
    parser.add_argument("--only", default="", help="names of peers, or parts of them")
    parser.add_argument("--acts", default=",".join(ACTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--quiet-rate", type=float, default=200.0)
    parser.add_argument("--appendfsync", choices=["always", "everysec", "no", "off"], default="everysec")
    parser.add_argument("--nice", type=int, default=0, help="below 0: before others on this machine (root only)")
    parser.add_argument("--out", default=str(ROOT / "bench" / "results"))
    told = parser.parse_args(arguments)
    if told.install:
        install()
    else:
        run(told)


if __name__ == "__main__":
    main()
