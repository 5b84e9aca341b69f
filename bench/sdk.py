"""Claim: through the SDK a check costs its caller's process at most half as much again as over the bare client.

One gateway process on an embedded Valkey. This process asks it, one check after another, in turn A B A B: through
`AsyncTallygate` and through a bare aiohttp session, which posts the same bytes, reads and decodes the answer; and
through `Tallygate` and through a bare `http.client` connection. `cpu_us` is the processor's time in this process
per check, a median of the rounds; a ratio is of a round. What the SDK does besides: an idempotency key, deadlines,
retries, the answer's failures as types.

    python -m bench.sdk [--rounds 7] [--checks 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from bench.apparatus.customer import KEYS, furnish
from bench.apparatus.ground import middle, spread, tell
from bench.check import a_free_port, start_side
from gateway.command.embedded.valkey import start_valkey
from gateway.edge.wire import CheckAnswer
from gateway.sdk.blocking import Tallygate
from gateway.sdk.client import AsyncTallygate

KEY: Final = KEYS["customer"]
BODY: Final = msgspec.json.encode({"key": KEY, "feature": "calls", "quantity": 1})
TYPED: Final = {"Content-Type": "application/json"}

Cost = dict[str, list[float]]
"""Microseconds of this process' processor per check, a figure a round, by who asked."""


def decoded(status: int, content: bytes) -> None:
    """Read the answer as the SDK does. Raises: SystemExit where it is not what is measured."""
    if status != 200 or not msgspec.json.decode(content, type=CheckAnswer).allowed:
        raise SystemExit(f"the gateway answered {status}: {content[:200]!r}")


async def timed(ask: Callable[[], Awaitable[None]], checks: int) -> float:
    """What one costs."""
    began = time.process_time()
    for _ in range(checks):
        await ask()
    return (time.process_time() - began) * 1e6 / checks


def timed_blocking(ask: Callable[[], None], checks: int) -> float:
    """What one costs."""
    began = time.process_time()
    for _ in range(checks):
        ask()
    return (time.process_time() - began) * 1e6 / checks


async def ask_asynchronously(url: str, *, rounds: int, checks: int) -> Cost:
    """Both clients of the event loop, in turn."""
    async with AsyncTallygate(url, on_outage="refuse") as tallygate, aiohttp.ClientSession() as session:

        async def through_sdk() -> None:
            if not (await tallygate.check(key=KEY, feature="calls", quantity=1)).allowed:
                raise SystemExit("the gateway refused")

        async def bare() -> None:
            async with session.post(f"{url}/v1/check", data=BODY, headers=TYPED) as reply:
                decoded(reply.status, await reply.read())

        cost: Cost = {"sdk": [], "bare": []}
        for number in range(rounds + 1):
            told = {"sdk": await timed(through_sdk, checks), "bare": await timed(bare, checks)}
            for name, us in told.items() if number else ():  # the first round warms up
                cost[name].append(us)
        return cost


def ask_blocking(url: str, *, rounds: int, checks: int) -> Cost:
    """Both clients of a thread, in turn."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    with Tallygate(url, on_outage="refuse") as tallygate:

        def through_sdk() -> None:
            if not tallygate.check(key=KEY, feature="calls", quantity=1).allowed:
                raise SystemExit("the gateway refused")

        def bare() -> None:
            connection.request("POST", "/v1/check", BODY, TYPED)
            reply = connection.getresponse()
            decoded(reply.status, reply.read())

        cost: Cost = {"sdk": [], "bare": []}
        for number in range(rounds + 1):
            told = {"sdk": timed_blocking(through_sdk, checks), "bare": timed_blocking(bare, checks)}
            for name, us in told.items() if number else ():
                cost[name].append(us)
    connection.close()
    return cost


def figures(cost: Cost) -> dict[str, object]:
    """Medians, and the ratio of each round."""
    ratios = [sdk / bare for sdk, bare in zip(cost["sdk"], cost["bare"], strict=True)]
    return {
        "cpu_us": {name: middle(cost[name]) for name in cost},
        "ratio": middle(ratios),
        "ratio_spread": spread(ratios),
    }


def measure(folder: Path, *, rounds: int, checks: int) -> None:
    """Start everything, ask in turn, tell."""
    valkey = start_valkey(folder, appendfsync="no")
    asyncio.run(furnish(valkey.url))
    port = a_free_port()
    told = {"TALLYGATE_GATEWAY_PORT": str(port), "TALLYGATE_GATEWAY_REDIS_URL": valkey.url,
            "TALLYGATE_GATEWAY_DECISION_DEADLINE_MS": "1000"}  # fmt: skip
    gateway = start_side("tallygate", folder, argv=("gateway.edge",), environment=told, port=port)
    url = f"http://127.0.0.1:{port}"
    try:
        asynchronous = asyncio.run(ask_asynchronously(url, rounds=rounds, checks=checks))
        blocking = ask_blocking(url, rounds=rounds, checks=checks)
    finally:
        gateway.child.stop(signal.SIGTERM, timeout_ms=10_000)
        valkey.stop()
    tell((__doc__ or "").split("\n", 1)[0], {
        "async": figures(asynchronous),
        "blocking": figures(blocking),
        "rounds": rounds,
        "checks": checks,
    })  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--checks", type=int, default=2_000)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        measure(Path(folder), rounds=told.rounds, checks=told.checks)


if __name__ == "__main__":
    sys.exit(main())
