"""A closed loop of HTTP/1.1 requests over kept connections, and what it saw.

Run as a process of its own, so that the load does not share an interpreter with what it measures:

    python -m bench.apparatus.load --port 8080 --body '{"...": 1}' --connections 32 --requests 20000

It speaks only as much HTTP as a benchmark needs: one request, one answer with Content-Length, again. Latencies are
measured per request; the answer's status is counted, so that a fast stream of errors is not taken for speed.

With `--rate 500` it is an open loop: so many requests a second at an even pace, whatever the answers take, each
over a connection that is free, or the next that becomes free; a latency is then from the instant at which the
request was due. With `--customers 100` every `#` in the body is a number from 0 to 99, in turn. With `--bodies
FILE` each line of the file is one body, and each is sent once; where a body itself has lines, a record separator
(U+001E) stands between them in the file.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Final, cast

import msgspec
import uvloop

_BETWEEN_LINES: Final = b"\x1e"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one loop saw. Latencies in microseconds."""

    requests: int
    seconds: float
    per_second: float
    p50_us: float
    p99_us: float
    worst_us: float
    statuses: dict[str, int]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, where, how often."""

    port: int
    path: str
    body: str
    token: str
    connections: int
    requests: int
    customers: int
    bodies: str
    media_type: str = "application/json"
    rate: float = 0.0


class Caller(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, sends again until nothing is left to send."""

    def __init__(
        self,
        messages: Iterator[bytes],
        left: list[int],
        seen: list[int],
        statuses: Counter[bytes],
        pace: Pace | None = None,
    ) -> None:
        self._messages, self._left, self._seen, self._statuses = messages, left, seen, statuses
        self._pace = pace
        self._buffer = b""
        self._sent_ns = 0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        if self._transport is None:
            return
        if self._left[0] <= 0:
            self._transport.close()
            return
        if self._pace is None:
            self.ask(time.perf_counter_ns())
        elif self._pace.due_ns:
            self.ask(self._pace.due_ns.popleft())
        else:
            self._pace.free.append(self)

    def ask(self, due_ns: int) -> None:
        """Send one request that was due then."""
        if self._transport is not None:
            self._left[0] -= 1
            self._sent_ns = due_ns
            self._transport.write(next(self._messages))

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        place = head.lower().find(b"content-length:")
        length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(rest) >= length:
            self._seen.append(time.perf_counter_ns() - self._sent_ns)
            self._statuses[head[9:12]] += 1
            self._buffer = b""
            self._send()

    def leave(self) -> None:
        """Nothing is left to ask."""
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Pace:
    """Requests that are due and not sent yet, and connections that are free."""

    def __init__(self) -> None:
        self.due_ns: deque[int] = deque()
        self.free: deque[Caller] = deque()

    async def keep(self, rate: float, requests: int) -> None:
        """Make so many requests due, each in its time; then let go of who is free."""
        began_ns = time.perf_counter_ns()
        for number in range(requests):
            due_ns = began_ns + round(number * 1e9 / rate)
            await asyncio.sleep(max(0.0, (due_ns - time.perf_counter_ns()) / 1e9))
            if self.free:
                self.free.popleft().ask(due_ns)
            else:
                self.due_ns.append(due_ns)
        for one in self.free:
            one.leave()


def messages_of(plan: Plan) -> Sequence[bytes]:
    """All requests that differ, word for word."""
    if plan.bodies:
        return [
            message_of(plan, line.replace(_BETWEEN_LINES, b"\n"))
            for line in Path(plan.bodies).read_bytes().splitlines()
        ]
    texts = [plan.body.replace("#", str(number)) for number in range(plan.customers)] or [plan.body]
    return [message_of(plan, text.encode()) for text in texts]


def message_of(plan: Plan, body: bytes) -> bytes:
    """A request with that body."""
    lines = [
        f"POST {plan.path} HTTP/1.1",
        "Host: bench",
        f"Content-Type: {plan.media_type}",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"Authorization: Bearer {plan.token}"] if plan.token else []
    return "\r\n".join([*lines, "", ""]).encode() + body


async def drive(plan: Plan) -> Report:
    """Send all requests and wait for all answers."""
    loop = asyncio.get_running_loop()
    different = messages_of(plan)
    messages, requests = cycle(different), len(different) if plan.bodies else plan.requests
    left, seen, statuses = [requests], list[int](), Counter[bytes]()
    started = time.perf_counter()
    pace = Pace() if plan.rate else None

    def caller() -> Caller:
        return Caller(messages, left, seen, statuses, pace)

    callers = [(await loop.create_connection(caller, "127.0.0.1", plan.port))[1] for _ in range(plan.connections)]
    if pace is not None:
        await pace.keep(plan.rate, requests)
    await asyncio.gather(*(caller.done for caller in callers))
    return report_of(seen, time.perf_counter() - started, statuses)


def report_of(seen: list[int], seconds: float, statuses: Counter[bytes]) -> Report:
    """Sort the latencies and pick the quantiles."""
    ordered = sorted(seen)
    count = len(ordered)
    return Report(
        requests=count,
        seconds=round(seconds, 4),
        per_second=round(count / seconds, 1),
        p50_us=ordered[count // 2] / 1000,
        p99_us=ordered[min(count - 1, count * 99 // 100)] / 1000,
        worst_us=ordered[-1] / 1000,
        statuses={status.decode(): number for status, number in statuses.items()},
    )


def main() -> None:
    """Read the plan from the command line, print the report as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/check")
    parser.add_argument("--body", default="")
    parser.add_argument("--token", default="")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--customers", type=int, default=0)
    parser.add_argument("--bodies", default="")
    parser.add_argument("--media-type", default="application/json")
    parser.add_argument("--rate", type=float, default=0.0)
    plan = msgspec.convert(vars(parser.parse_args()), Plan)
    report = uvloop.run(drive(plan))
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")


if __name__ == "__main__":
    main()
