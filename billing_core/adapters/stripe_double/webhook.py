"""Webhooks: every event is posted, signed, until it is taken.

An event that was journalled and not delivered is posted again after a restart. Deliveries run beside each other, so
they arrive in any order, as Stripe's do; a receiver that needs an order has to make its own.

Source: docs.stripe.com/webhooks#verify-manually.
"""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec
from stripe import WebhookSignature

from billing_core.adapters.stripe_double.answer import Change, Json
from billing_core.adapters.stripe_double.state import DELIVERIES, EVENTS, State

FIRST_WAIT_MS = 50
LONGEST_WAIT_MS = 30_000
CALL_TIMEOUT_S = 10


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """Where webhooks go and what signs them; without an address they go nowhere."""

    url: str = ""
    secret: str = ""


class Postman:
    """Posts events, each until somebody answers 2xx."""

    def __init__(self, hook: Hook, state: State) -> None:
        self._hook = hook
        self._state = state
        self._rounds: set[asyncio.Task[None]] = set()
        self._held: list[Json] = []
        self._session: aiohttp.ClientSession | None = None

    async def begin(self) -> None:
        """Take up what an earlier process left undelivered."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S))
        for event in self._state.all_of(EVENTS):
            if self._state.get(DELIVERIES, event["id"]) is None:
                self.post(event)

    async def end(self) -> None:
        """Stop posting; what is not delivered stays in the journal."""
        for task in self._rounds:
            task.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def post(self, event: Json, *, copies: int = 1) -> None:
        """Begin to deliver an event, so many times."""
        if self._hook.url:
            for _ in range(copies):
                task = asyncio.create_task(self._deliver(event))
                self._rounds.add(task)
                task.add_done_callback(self._rounds.discard)

    def hold(self, event: Json) -> None:
        """Keep an event back until `release`."""
        self._held.append(event)

    def release(self) -> None:
        """Post what was held back, the last first."""
        held, self._held = self._held, []
        for event in reversed(held):
            self.post(event)

    @property
    def waiting(self) -> int:
        """How many deliveries are under way or held back."""
        return len(self._rounds) + len(self._held)

    async def _deliver(self, event: Json) -> None:
        payload = msgspec.json.encode(event)
        wait_ms = FIRST_WAIT_MS
        while not await self._is_taken(payload):
            await asyncio.sleep(wait_ms / 1000)
            wait_ms = min(2 * wait_ms, LONGEST_WAIT_MS)
        self._state.commit((Change(kind=DELIVERIES, id=event["id"], value={"taken": True}),))

    async def _is_taken(self, payload: bytes) -> bool:
        if self._session is None:
            return False
        signature = WebhookSignature.generate_signature_header(payload.decode(), self._hook.secret)
        headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
        try:
            async with self._session.post(self._hook.url, data=payload, headers=headers) as answer:
                return answer.ok
        except (aiohttp.ClientError, TimeoutError):
            return False
