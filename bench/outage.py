"""Claim: while Redis hangs, refuses, is slow or is cut off, every decision is answered by its deadline plus 5 ms.

One gateway process with the default deadline of 15 ms, and a wire between it and an embedded Valkey that writes its
log through. Callers ask at an even pace, before, during and after the outage; each answer's time is told, and after
what time from the end of the outage a decision is made again, and none of half a second is `unavailable`. What
takes longer than the bound is counted; callers and gateway share the machine's processors with everything else that
runs, so the same figures in calm, from the same run, say how late the machine itself is.

    python -m bench.outage [--rounds 3] [--outage-s 2]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.apparatus.asker import Sample
from bench.apparatus.customer import KEYS, furnish
from bench.apparatus.ground import middle, spread, tell
from bench.check import a_free_port, start_side
from billing_core.adapters.projection import Projection
from billing_core.adapters.redis_client import connect
from gateway.command.embedded.valkey import Valkey, start_valkey

DEADLINE_MS, GRACE_MS = 15, 5
CALM_S, AFTER_S = 1.0, 2.5
NORMAL_S = 0.5
NEVER_S = float("inf")


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What can be hurt."""

    valkey: Valkey
    wire: subprocess.Popen[bytes]
    port: int


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one round saw: answers before and during the outage, and how soon service was back."""

    calm: list[Sample]
    during: list[Sample]
    first_decision_ms: float
    normal_ms: float


def order(scene: Scene, word: str) -> None:
    """Tell the wire what to do, and wait until it does."""
    if scene.wire.stdin is None or scene.wire.stdout is None:
        raise SystemExit("the wire cannot be spoken to")
    scene.wire.stdin.write(f"{word}\n".encode())
    scene.wire.stdin.flush()
    scene.wire.stdout.readline()


@contextmanager
def hung(scene: Scene) -> Generator[None]:
    """SIGSTOP, then SIGCONT."""
    os.kill(scene.valkey.child.pid, signal.SIGSTOP)
    yield
    os.kill(scene.valkey.child.pid, signal.SIGCONT)


@contextmanager
def refused(scene: Scene) -> Generator[None]:
    """Killed; at the end started again, and vouched for, as a relay does that looks four times a second."""
    scene.valkey.kill()
    yield
    scene.valkey.begin_again()
    scene.valkey.wait_ready()
    asyncio.run(vouch(scene.valkey.url))


async def vouch(redis_url: str) -> None:
    """Say of a server that it has all that Postgres has; here there is no Postgres to be behind of."""
    async with connect(redis_url) as client:
        redis = Projection(client)
        await redis.vouch(await redis.run_id())


@contextmanager
def slow(scene: Scene) -> Generator[None]:
    """Every byte comes 40 ms later, each way."""
    order(scene, "delay 40")
    yield
    order(scene, "flow")


@contextmanager
def stalled(scene: Scene) -> Generator[None]:
    """No byte comes through."""
    order(scene, "stall")
    yield
    order(scene, "flow")


OUTAGES = {"hung": hung, "refused": refused, "slow": slow, "stalled": stalled}


def one_round(scene: Scene, outage: str, *, outage_s: float) -> Seen:
    """Calm, the outage, and what comes after."""
    seconds = CALM_S + outage_s + AFTER_S
    body = msgspec.json.encode({"key": KEYS["customer"], "feature": "calls", "quantity": 1}).decode()
    command = [sys.executable, "-m", "bench.apparatus.asker", "--port", str(scene.port), "--body", body]
    asker = subprocess.Popen([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE)
    time.sleep(CALM_S)
    with OUTAGES[outage](scene):
        begun_s = time.monotonic()
        time.sleep(outage_s)
        ended_s = time.monotonic()
    raw, _ = asker.communicate()
    return seen_of(msgspec.json.decode(raw, type=list[Sample]), begun_s, ended_s=ended_s)


def seen_of(samples: list[Sample], begun_s: float, *, ended_s: float) -> Seen:
    """Sort answers by when they were asked."""
    after = [one for one in samples if one.asked_s + one.took_ms / 1_000 > ended_s]
    decided = sorted(one.asked_s + one.took_ms / 1_000 for one in after if one.status == 200)
    failed = [one.asked_s + one.took_ms / 1_000 for one in after if one.status != 200]
    normal = (at for at in decided if not any(at < fault <= at + NORMAL_S for fault in failed))
    return Seen(
        calm=[one for one in samples if one.asked_s + one.took_ms / 1_000 < begun_s],
        during=[one for one in samples if begun_s <= one.asked_s and one.asked_s + one.took_ms / 1_000 < ended_s],
        first_decision_ms=(next(iter(decided), NEVER_S) - ended_s) * 1_000,
        normal_ms=(next(normal, NEVER_S) - ended_s) * 1_000,
    )


def times_of(samples: list[Sample]) -> dict[str, object]:
    """Quantiles of the time to an answer, and what said what."""
    ordered = sorted(one.took_ms for one in samples)
    statuses = sorted({one.status for one in samples})
    return {
        "answers": len(ordered),
        "statuses": {str(status): sum(one.status == status for one in samples) for status in statuses},
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[len(ordered) * 99 // 100],
        "worst_ms": ordered[-1],
        "later_than_20_ms": sum(took_ms > DEADLINE_MS + GRACE_MS for took_ms in ordered),
    }


def figures_of(rounds: list[Seen]) -> dict[str, object]:
    """All rounds of one outage together."""
    return {
        "calm": times_of([one for seen in rounds for one in seen.calm]),
        "during": times_of([one for seen in rounds for one in seen.during]),
        "first_decision_ms": middle([seen.first_decision_ms for seen in rounds]),
        "normal_ms": middle([seen.normal_ms for seen in rounds]),
        "normal_ms_spread": spread([seen.normal_ms for seen in rounds]),
    }


def measure(folder: Path, *, rounds: int, outage_s: float) -> None:
    """Start everything, hurt it in turn, tell."""
    valkey = start_valkey(folder, appendfsync="always")
    asyncio.run(furnish(valkey.url))
    wire_port, port = a_free_port(), a_free_port()
    wire = subprocess.Popen(
        [sys.executable, "-m", "gateway.command.chaos.wire", str(wire_port), str(valkey.socket_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    if wire.stdout is not None:
        wire.stdout.readline()
    told = {
        "TALLYGATE_GATEWAY_PORT": str(port),
        "TALLYGATE_GATEWAY_REDIS_URL": f"redis://127.0.0.1:{wire_port}",
        "TALLYGATE_GATEWAY_DECISION_DEADLINE_MS": str(DEADLINE_MS),
    }
    gateway = start_side("tallygate", folder, argv=("gateway.edge",), environment=told, port=port)
    scene = Scene(valkey=valkey, wire=wire, port=port)
    for outage in OUTAGES:
        seen = [one_round(scene, outage, outage_s=outage_s) for _ in range(rounds)]
        tell("outage", {"outage": outage, "rounds": rounds, "outage_s": outage_s, **figures_of(seen)})
    gateway.child.stop(signal.SIGTERM, timeout_ms=10_000)
    wire.kill()
    wire.wait()
    valkey.stop()


def main() -> None:
    """Read the size of the run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--outage-s", type=float, default=2.0)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        measure(Path(folder), rounds=told.rounds, outage_s=told.outage_s)


if __name__ == "__main__":
    main()
