"""Asking until there is an answer.

A process that is killed, a connection that breaks, a time-out: the act may have happened or not, and nobody can
know from here. So the same act is sent again, under the same idempotency key, until the answer arrives; whoever
decided the first time answers the same again. Pauses double up to a bound, with some chance in them, so that many
who wait do not come back at the same instant.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import msgspec

from billing_core.errors import Failure, Unavailable
from gateway.command.client.page import read_pages
from gateway.command.client.plane import Plane

Value = TypeVar("Value")

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0
_FIRST_WINDOW: Final = 8
_TOGETHER_S: Final = 0.1
_SHRINK: Final = 0.7


def _nothing() -> None:
    """Nobody wants to know."""


class Persistence(msgspec.Struct, frozen=True, kw_only=True):
    """For how long to ask, and whom to tell of every time that it was in vain."""

    patience_s: float = 60.0
    on_retry: Callable[[], None] = _nothing


async def persist(attempt: Callable[[], Awaitable[Value]], persistence: Persistence) -> Value:
    """The first answer of the attempt, made again for as long as a retry is safe.

    Raises: Failure where a retry cannot help; Unavailable when patience is over.
    """
    deadline = time.monotonic() + persistence.patience_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await attempt()
        except Failure as failure:
            if not failure.retry_is_safe:
                raise
            if time.monotonic() + pause_s > deadline:
                raise Unavailable(f"no answer within {persistence.patience_s:.0f} s: {failure.detail}") from failure
        persistence.on_retry()
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class Window:
    """How much may be under way at once: a little more with every success, a good part less with every refusal.

    A gate that is asked for more than it can decide in time says so, and what it left undone is asked again on top.
    So the window is found by trying, as TCP finds it. Refusals that come together count as one.

    Worked example: 8.0 is open; 8 successes later 9.0; a refusal makes it 6.3.
    """

    def __init__(self, most: int) -> None:
        self.size = float(min(_FIRST_WINDOW, most))
        self._most = most
        self._under_way = 0
        self._shrunk_at = 0.0
        self._room = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._room:
            await self._room.wait_for(lambda: self._under_way < int(self.size))
            self._under_way += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._room:
            self._under_way -= 1
            self.size = min(float(self._most), self.size + 1 / self.size)
            self._room.notify(2)

    def shrink(self) -> None:
        """Something was refused because there was too much."""
        if time.monotonic() - self._shrunk_at > _TOGETHER_S:
            self._shrunk_at = time.monotonic()
            self.size = max(1.0, self.size * _SHRINK)


class PatientPlane:
    """A plane that is asked until it answers. Acts must carry an idempotency key, or change nothing twice."""

    def __init__(self, plane: Plane, persistence: Persistence) -> None:
        self._plane = plane
        self._persistence = persistence

    async def get(self, path: str, kind: type[Value], *, query: Mapping[str, str] | None = None) -> Value:
        """What stands at the path. Raises: as `persist`."""
        return (await persist(lambda: self._plane.get(path, kind, query=query), self._persistence)).value

    async def put(self, path: str, kind: type[Value], *, body: object) -> Value:
        """Replace what stands at the path. Raises: as `persist`."""
        return (await persist(lambda: self._plane.put(path, kind, body=body), self._persistence)).value

    async def post(self, path: str, kind: type[Value], *, body: object = None, idempotency_key: str) -> Value:
        """Do something once. Raises: as `persist`."""
        return (
            await persist(
                lambda: self._plane.post(path, kind, body=body, idempotency_key=idempotency_key), self._persistence
            )
        ).value

    async def pages(
        self, path: str, kind: type[Value], *, query: Mapping[str, str] | None = None
    ) -> tuple[Value, ...]:
        """All items of a list. Raises: as `persist`."""
        return (
            await persist(lambda: read_pages(self._plane, path, kind=kind, query=query), self._persistence)
        ).value.items
