"""The traffic on a house that is attacked: callers who ask until they are answered, and note down every answer.

Each lane takes one act after another and sees it to its end: a consume under a key of its own, now and then asked
once more after it was allowed or refused; a hold that is settled, released or forgotten; a top-up. Some customers
are rich, others run dry again and again. Whatever is asked is asked under an idempotency key until it is answered,
so that in the end nothing is unknown. What no fault may ever cause (a known key that is unknown, a second answer
that differs) is a contradiction.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from billing_core.errors import Failure, Unavailable
from gateway.command.chaos.verdict import Notes
from gateway.command.client.bill import TopUp
from gateway.command.client.decision import Decision, HoldEnd
from gateway.command.client.door import Planes
from gateway.command.client.route import route

Reply = TypeVar("Reply")

INPUT: Final = "input_tokens"
OUTPUT: Final = "output_tokens"
CURRENCY: Final = "USD"
_NANOS_PER_CENT: Final = 10_000_000
_PATIENCE_S: Final = 120.0
_PAUSE_S: Final = 0.05
_LONG_MS: Final = 3_600_000
_SHORT_MS: Final = 800
_DRY: Final = "insufficient_balance"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """A customer with a key. One who is dry is topped up by cents and asks for much."""

    customer_id: str
    key: str
    is_dry: bool


class Tally:
    """What was answered so far. A retry is an attempt that got no decision."""

    def __init__(self) -> None:
        self.decided = 0
        self.allowed = 0
        self.refused = 0
        self.retries = 0


class Traffic:
    """Lanes of acts; `go` and `rest` open and close the gate before the next act of each."""

    def __init__(self, planes: Planes, *, run: str, chance: random.Random) -> None:
        self.tally = Tally()
        self.notes = Notes()
        self.callers: list[Caller] = []
        self._planes = planes
        self._run = run
        self._chance = chance
        self._acts = 0
        self._busy = 0
        self._open = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def go(self) -> None:
        """Let the lanes begin new acts."""
        self._open.set()

    async def rest(self) -> None:
        """Wait until every act that has begun is at its end."""
        self._open.clear()
        await self._idle.wait()

    async def lane(self, *, think_s: float) -> None:
        """Act after act until cancelled. Raises: Unavailable where one is not answered for two minutes."""
        kinds = (self._consume, self._settle, self._release, self._forget, self._top_up)
        while True:
            await self._open.wait()
            self._busy += 1
            self._idle.clear()
            try:
                (act,) = self._chance.choices(kinds, weights=(70, 14, 5, 6, 5))
                await act(self._chance.choice(self.callers))
            finally:
                self._busy -= 1
                if not self._busy:
                    self._idle.set()
            await asyncio.sleep(self._chance.uniform(0, 2 * think_s))

    async def consume(self, caller: Caller, quantity: int) -> Decision:
        """One debit of input tokens, seen to its answer and noted."""
        body: dict[str, object] = {
            "key": caller.key,
            "feature": INPUT,
            "quantity": quantity,
            "idempotency_key": self._new_key(),
        }
        decision = await self._decide(body)
        asked = [decision]
        if self._chance.random() < 0.15:  # whoever asks again gets the first answer back
            asked.append(await self._decide(body))
        for one in asked:
            if one.allowed:
                self._note(one, one.cost_nanos)
            if one.reason != decision.reason:
                told = f"{body['idempotency_key']} is {decision.reason}, and then {one.reason}"
                self.notes.contradictions.append(told)
        return decision

    async def _consume(self, caller: Caller) -> None:
        await self.consume(caller, self._quantity(caller))

    async def _settle(self, caller: Caller) -> None:
        placed = await self._hold(caller, ttl_ms=_LONG_MS)
        if placed is not None and placed.hold is not None:
            used = self._quantity(caller)
            body = {"charges": [{"feature": INPUT, "quantity": used}, {"feature": OUTPUT, "quantity": used // 4}]}
            end = await self._end(placed.hold.id, "settle", body=body)
            self._note(placed, end.charged_nanos if end else 0)

    async def _release(self, caller: Caller) -> None:
        placed = await self._hold(caller, ttl_ms=_LONG_MS)
        if placed is not None and placed.hold is not None:
            await self._end(placed.hold.id, "release", body={})
            self._note(placed, 0)

    async def _forget(self, caller: Caller) -> None:
        """A hold whose caller died: it ends by itself, as it was told to."""
        charges = self._chance.random() < 0.5
        placed = await self._hold(caller, ttl_ms=_SHORT_MS, on_expiry="charge" if charges else "release")
        if placed is not None:
            self._note(placed, placed.cost_nanos if charges else 0)

    async def _top_up(self, caller: Caller) -> None:
        key = self._new_key()
        cents = 1 if caller.is_dry else 100
        path = route("/v1/customers/{}/wallets/{}/top-ups", caller.customer_id, CURRENCY)
        body = {"amount": f"{cents // 100}.{cents % 100:02}", "method": "wire", "reference": key}
        await self._until_answered(
            lambda: self._planes.control.post(path, TopUp, body=body, idempotency_key=key), counted=False
        )
        self.notes.granted_nanos += cents * _NANOS_PER_CENT

    async def _hold(self, caller: Caller, *, ttl_ms: int, on_expiry: str = "release") -> Decision | None:
        """The decision, or None where it was refused."""
        quantity = self._quantity(caller)
        charges = [{"feature": INPUT, "quantity": quantity}, {"feature": OUTPUT, "quantity": quantity // 8}]
        body: dict[str, object] = {"key": caller.key, "charges": charges, "idempotency_key": self._new_key()}
        body |= {"mode": "hold", "ttl_ms": ttl_ms, "on_expiry": on_expiry}
        decision = await self._decide(body)
        return decision if decision.allowed else None

    async def _end(self, hold_id: str, how: str, *, body: object) -> HoldEnd | None:
        """The end of a hold; None where it is told to have ended otherwise, which is a contradiction."""
        try:
            answer = await self._until_answered(
                lambda: self._planes.gateway.post(f"/v1/holds/{hold_id}/{how}", HoldEnd, body=body)
            )
        except Unavailable:
            raise
        except Failure as failure:
            self.notes.contradictions.append(f"{how} of {hold_id}: {failure.detail}")
            return None
        return answer.value

    async def _decide(self, body: dict[str, object]) -> Decision:
        answer = await self._until_answered(lambda: self._planes.gateway.post("/v1/check", Decision, body=body))
        decision = answer.value
        if decision.allowed:
            self.tally.allowed += 1
        else:
            self.tally.refused += 1
            if decision.reason != _DRY:
                self.notes.contradictions.append(f"a customer in good standing is refused: {decision.reason}")
        return decision

    def _note(self, decision: Decision, charged_nanos: int) -> None:
        self.notes.note(decision.decision_id or "a decision without id", charged_nanos)

    async def _until_answered(self, attempt: Callable[[], Awaitable[Reply]], *, counted: bool = True) -> Reply:
        """The first answer. Raises: Unavailable when patience is over, Failure where a retry cannot help."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                answer = await attempt()
            except Failure as failure:
                if not failure.retry_is_safe or time.monotonic() > deadline:
                    raise
                self.tally.retries += counted
                await asyncio.sleep(self._chance.uniform(0, 2 * _PAUSE_S))
            else:
                self.tally.decided += counted
                return answer

    def _quantity(self, caller: Caller) -> int:
        return self._chance.randint(100, 900) if caller.is_dry else self._chance.randint(8, 80)

    def _new_key(self) -> str:
        self._acts += 1
        return f"{self._run}-{self._acts}"
