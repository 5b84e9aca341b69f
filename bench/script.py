"""Claim: what each script costs the server, against the smallest script there can be, in the same run.

Two yardsticks: `read` gets one key and returns; `debit` compares a hash field with an amount, takes it off and
appends an entry, which is the least that a debit with a usage event can do. Both are functions of the server, as
the scripts are. And each act has its floor: the commands that it runs, alone (`apparatus/floor.py`); what is
above it is the script's own reading and deciding. All acts run in turn on one embedded Valkey without a log, each
with its floor, round after round, each round many calls in pipelines. The cost is the processor time of the
server's main thread, reading the call and writing the reply included; it does not grow because somebody else
works on the machine. Medians of the rounds, and their spread.

    python -m bench.script [--rounds 7] [--calls 1000]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import redis

from bench.apparatus.counter import CUSTOMERS, Counter, furnish_counter
from bench.apparatus.floor import floors
from bench.apparatus.ground import middle, spread, tell
from gateway.command.embedded.valkey import start_valkey

READ = "return redis.call('GET', KEYS[1])"
DEBIT = """
local amount = tonumber(ARGV[1])
if tonumber(redis.call('HGET', KEYS[1], 'r') or '0') < amount then return 0 end
redis.call('HINCRBY', KEYS[1], 'r', -amount)
redis.call('XADD', KEYS[2], '*', 'b', ARGV[2])
return 1
"""
YARDSTICKS = f"""#!lua name=yardsticks
redis.register_function('read', function(KEYS, ARGV) {READ} end)
redis.register_function('debit', function(KEYS, ARGV) {DEBIT} end)
"""
AT_ONCE = 100

Words = tuple[Any, ...]


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is measured: how a round is prepared, and what its calls are."""

    name: str
    calls: Callable[[int], list[Words]]


def acts(counter: Counter) -> Iterator[Act]:
    """The yardsticks, then every script in the shapes that matter."""
    client, body = counter.client, counter.body
    client.function_load(YARDSTICKS)
    client.set("{bench}:read", "1")
    client.hset("{bench}:debit", "r", 10**15)
    yield Act(name="read", calls=lambda n: [("FCALL", "read", 1, "{bench}:read")] * n)
    yield Act(
        name="debit",
        calls=lambda n: [("FCALL", "debit", 2, "{bench}:debit", "{bench}:usage", 7, body)] * n,
    )
    yield Act(name="peek", calls=lambda n: [counter.call("peek", "price and limit")] * n)
    for shape in CUSTOMERS:
        yield Act(name=f"consume, {shape}", calls=_each(counter, "consume", shape))
    yield Act(name="consume, with a key", calls=_keyed(counter, "price and limit"))
    yield Act(name="consume, replayed", calls=_replayed(counter))
    yield Act(name="consume, refused", calls=lambda n: [counter.call("consume", "refused")] * n)
    yield Act(name="consume, refused with a key", calls=_keyed(counter, "refused"))
    yield Act(name="record", calls=_each(counter, "record", "price and limit"))
    yield Act(name="hold", calls=lambda n: [counter.hold() for _ in range(n)])
    for end in ("extend", "part", "settle", "release"):
        yield Act(name=end, calls=_ends(counter, end))
    yield Act(name="ingest", calls=lambda n: [counter.ingest() for _ in range(n)])


def _each(counter: Counter, script: str, shape: str) -> Callable[[int], list[Words]]:
    return lambda n: [counter.call(script, shape)] * n


def _keyed(counter: Counter, shape: str) -> Callable[[int], list[Words]]:
    return lambda n: [counter.keyed(shape=shape) for _ in range(n)]


def _replayed(counter: Counter) -> Callable[[int], list[Words]]:
    def calls(n: int) -> list[Words]:
        call = counter.keyed()
        counter.client.execute_command(*call)
        return [call] * n

    return calls


def _ends(counter: Counter, script: str) -> Callable[[int], list[Words]]:
    def calls(n: int) -> list[Words]:
        placed = [counter.hold() for _ in range(n)]
        run_all(counter.client, placed)
        return [counter.on_hold(script, call) for call in placed]

    return calls


def run_all(client: redis.Redis, calls: list[Words]) -> None:
    """All calls in pipelines. Raises: redis.ResponseError, the first."""
    for start in range(0, len(calls), AT_ONCE):
        pipe = client.pipeline(transaction=False)
        for call in calls[start : start + AT_ONCE]:
            pipe.execute_command(*call)
        pipe.execute()


def microseconds(client: redis.Redis, calls: list[Words]) -> float:
    """What one of these calls costs the server's main thread."""
    before_s = spent_s(client)
    run_all(client, calls)
    return (spent_s(client) - before_s) * 1e6 / len(calls)


def spent_s(client: redis.Redis) -> float:
    """Processor time of the main thread so far."""
    spent = cast("dict[str, float]", client.info("cpu"))
    return spent["used_cpu_user_main_thread"] + spent["used_cpu_sys_main_thread"]


def measure(folder: Path, *, rounds: int, calls: int) -> None:
    """Round after round, every act in turn."""
    server = start_valkey(folder, appendfsync="no", options=("--appendonly", "no"))
    client = redis.Redis.from_url(server.url)
    counter = furnish_counter(client)
    measured = list(acts(counter))
    seen: dict[str, list[float]] = {act.name: [] for act in measured}
    for act in measured:
        run_all(client, act.calls(AT_ONCE))
    below = floors(client, {act.name: act.calls(1)[0] for act in measured})
    alone: dict[str, list[float]] = {act.name: [] for act in measured}
    for _ in range(rounds):
        for act in measured:
            seen[act.name].append(microseconds(client, act.calls(calls)))
            alone[act.name].append(microseconds(client, [below[act.name]] * calls))
        counter.tidy()
    tell(
        "script",
        {
            "rounds": rounds,
            "calls": calls,
            "unit": "us of the server's processor per call",
            "acts": figures_of(seen, alone),
        },
    )
    server.stop()


def figures_of(seen: dict[str, list[float]], alone: dict[str, list[float]]) -> dict[str, object]:
    """Median, spread, and how many times the yardsticks and the floor of the same round."""
    return {
        name: {
            "us": middle(times),
            "spread": spread(times),
            "times_read": middle([one / least for one, least in zip(times, seen["read"], strict=True)]),
            "times_debit": middle([one / least for one, least in zip(times, seen["debit"], strict=True)]),
            "floor_us": middle(alone[name]),
            "times_floor": middle([one / least for one, least in zip(times, alone[name], strict=True)]),
        }
        for name, times in seen.items()
    }


def main() -> None:
    """Read the size of the run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=1_000)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        measure(Path(folder), rounds=told.rounds, calls=told.calls)


if __name__ == "__main__":
    main()
