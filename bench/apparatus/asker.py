"""Callers at an even pace, and every answer that they got: when it was asked, how long it took, what it said.

Run as a process of its own, so that whoever hurts a server does not hold up who measures:

    python -m bench.apparatus.asker --port 8080 --body '{"...": 1}' --seconds 5 --connections 8 --pause-ms 10

Each request carries an idempotency key of its own. Instants are of the machine's monotonic clock, which all
processes share. One JSON document comes out when the time is over.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import secrets
import sys
import time

import msgspec
import uvloop

_END_OF_HEAD = b"\r\n\r\n"


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One answer. Units: seconds of the monotonic clock, milliseconds."""

    asked_s: float
    took_ms: float
    status: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask, where, for how long."""

    port: int
    body: str
    seconds: float
    connections: int
    pause_ms: float


class Pacer:
    """One connection; it asks, reads the answer, pauses."""

    def __init__(self, plan: Plan, samples: list[Sample]) -> None:
        self._plan = plan
        self._samples = samples
        self._body = msgspec.json.decode(plan.body, type=dict[str, object])
        self._name = secrets.token_hex(4)

    async def ask(self, until_s: float) -> None:
        """Ask until the instant."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._plan.port)
        number = 0
        while time.monotonic() < until_s:
            number += 1
            message = self._message(number)
            asked_s = time.monotonic()
            writer.write(message)
            head = await reader.readuntil(_END_OF_HEAD)
            place = head.lower().index(b"content-length:")
            await reader.readexactly(int(head[place + 15 :].split(b"\r\n", 1)[0]))
            took_ms = (time.monotonic() - asked_s) * 1_000
            self._samples.append(Sample(asked_s, round(took_ms, 3), int(head[9:12])))
            await asyncio.sleep(self._plan.pause_ms / 1_000)
        writer.close()

    def _message(self, number: int) -> bytes:
        body = msgspec.json.encode(self._body | {"idempotency_key": f"{self._name}-{number}"})
        lines = ("POST /v1/check HTTP/1.1", "Host: bench", "Content-Type: application/json")
        return "\r\n".join((*lines, f"Content-Length: {len(body)}", "", "")).encode() + body


async def ask_all(plan: Plan) -> list[Sample]:
    """All connections at once; the samples in the order of their answers."""
    samples: list[Sample] = []
    until_s = time.monotonic() + plan.seconds
    await asyncio.gather(*(Pacer(plan, samples).ask(until_s) for _ in range(plan.connections)))
    return samples


def main() -> None:
    """Read the plan from the command line, print the samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--pause-ms", type=float, default=10.0)
    plan = msgspec.convert(vars(parser.parse_args()), Plan)
    gc.freeze()
    samples = uvloop.run(ask_all(plan))
    sys.stdout.buffer.write(msgspec.json.encode(samples))


if __name__ == "__main__":
    main()
