"""The traffic: every request of the trace as a hold, then a settle, through the real gate.

The input tokens of a request are known when it comes, the output tokens only when it is answered. So a hold sets
aside the price of the input and of an estimate of the output, and the settle says what it really was, above the
estimate or below. Each act is sent until it is answered. The hold's idempotency key is the run's name with the
row's number, and the hold itself makes its settle unique: whatever breaks in between, nothing is charged twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import msgspec

from billing_core.errors import Conflict, NotFound
from gateway.command.client.answer import told
from gateway.command.client.decision import Decision, HoldEnd
from gateway.command.client.persistence import Persistence, Window, persist
from gateway.command.client.plane import Plane
from gateway.command.replay.cast import player_of
from gateway.command.replay.list_price import INPUT, OUTPUT
from gateway.command.replay.trace import Request, Trace

Reply = TypeVar("Reply")


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How the trace is driven. `speed` 1 is the trace's own time, 0 as fast as answers come.

    At most `concurrency` requests are open at once, and as few as the gate needs to answer in time.
    """

    speed: float = 0.0
    concurrency: int = 64
    estimate_units: int = 512
    hold_ttl_ms: int = 3_600_000
    patience_s: float = 120.0


class Tally:
    """What has happened so far; one writer, so that a progress bar may look at any time."""

    def __init__(self, customers: int) -> None:
        self.settled = 0
        self.retries = 0
        self.refused: Counter[str] = Counter()
        self.charged_nanos = [0] * customers
        self.uncollected_nanos = 0
        self.hold_ns: list[int] = []
        self.settle_ns: list[int] = []

    @property
    def done(self) -> int:
        """Requests that were seen through, settled or not."""
        return self.settled + self.refused.total()


class Traffic:
    """The trace on its way. `keys` are the customers' API keys, in the order of the cast."""

    def __init__(self, gateway: Plane, trace: Trace, *, keys: tuple[str, ...], run: str, pace: Pace) -> None:
        self.tally = Tally(len(keys))
        self.seconds = 0.0
        self._gateway = gateway
        self._trace = trace
        self._keys = keys
        self._run = run
        self._pace = pace
        self._window = Window(pace.concurrency)
        self._persistence = Persistence(patience_s=pace.patience_s, on_retry=self._on_retry)

    async def drive(self) -> None:
        """See every request through.

        Raises: Failure where an act is refused for its form, or got no answer for as long as patience lasts.
        """
        line = iter(enumerate(self._trace.requests))
        begun = time.monotonic()
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(self._pace.concurrency):
                    lanes.create_task(self._work(line, begun=begun))
        except ExceptionGroup as group:  # the first lane's failure speaks for all
            raise group.exceptions[0] from None
        self.seconds = time.monotonic() - begun

    async def _work(self, line: Iterator[tuple[int, Request]], *, begun: float) -> None:
        """One lane: take the next request of the line, wait for its time, see it through."""
        first_at = self._trace.requests[0].at
        for place, request in line:
            if self._pace.speed > 0:
                due = begun + (request.at - first_at).total_seconds() / self._pace.speed
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            async with self._window:
                await self._play(place, request)

    def _on_retry(self) -> None:
        self.tally.retries += 1
        self._window.shrink()

    async def _play(self, place: int, request: Request) -> None:
        player = player_of(place, len(self._keys))
        hold_id = await self._hold(request, key=self._keys[player])
        if not hold_id:
            return
        body = {"charges": _charges(request.input_units, request.output_units)}
        path = f"/v1/holds/{hold_id}/settle"
        try:
            end = await self._until_answered(
                self.tally.settle_ns, lambda: self._gateway.post(path, HoldEnd, body=body)
            )
        except (Conflict, NotFound) as failure:
            self.tally.refused[told(failure)] += 1
            return
        self.tally.settled += 1
        self.tally.charged_nanos[player] += end.value.charged_nanos
        self.tally.uncollected_nanos += end.value.uncollected_nanos

    async def _hold(self, request: Request, *, key: str) -> str:
        """The hold's id, or "" where the gate refused."""
        body = {
            "key": key,
            "mode": "hold",
            "ttl_ms": self._pace.hold_ttl_ms,
            "idempotency_key": f"{self._run}-{request.row}",
            "charges": _charges(request.input_units, self._pace.estimate_units),
        }
        decision = await self._until_answered(
            self.tally.hold_ns, lambda: self._gateway.post("/v1/check", Decision, body=body)
        )
        if decision.value.allowed:
            return "" if decision.value.hold is None else decision.value.hold.id
        self.tally.refused[decision.value.reason] += 1
        return ""

    async def _until_answered(self, latencies_ns: list[int], attempt: Callable[[], Awaitable[Reply]]) -> Reply:
        """The answer, and how long it took from the first attempt on."""
        asked_ns = time.monotonic_ns()
        answer = await persist(attempt, self._persistence)
        latencies_ns.append(time.monotonic_ns() - asked_ns)
        return answer


def _charges(input_units: int, output_units: int) -> list[dict[str, object]]:
    return [{"feature": INPUT, "quantity": input_units}, {"feature": OUTPUT, "quantity": output_units}]
