"""Push: Redis tells a gateway what to forget.

One pub/sub connection of the `redis` library, apart from the link. Before it is subscribed, and whenever it breaks
or falls silent, the directory is told that it is deaf. A ping that is not answered counts as broken: a server that
hangs sends no error, and a listener that waits for ever would trust old entries for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from billing_core.contract.keys import INVALIDATION_CHANNEL
from gateway.state.directory import Directory

_PING_S: Final = 1.0
_RETRY_S: Final = 0.25
_FAULTS: Final = (RedisError, OSError, TimeoutError)


class InvalidationListener:
    """Keeps a directory told; `listen` runs until it is cancelled."""

    def __init__(self, redis_url: str, directory: Directory) -> None:
        self._redis_url = redis_url
        self._directory = directory
        self.heard = 0
        self.is_up = False

    async def listen(self) -> None:
        """Subscribe, forward every message, and begin anew whenever the connection is lost."""
        while True:
            client = Redis.from_url(self._redis_url, socket_connect_timeout=_PING_S, socket_timeout=None)
            pubsub = client.pubsub()
            try:
                await self._subscribed(pubsub)
            except _FAULTS:
                self._tell(push_is_up=False)
            finally:
                with contextlib.suppress(*_FAULTS):  # it is broken already; only its socket is wanted back
                    await pubsub.aclose()
                    await client.aclose()
            await asyncio.sleep(_RETRY_S)

    async def _subscribed(self, pubsub: PubSub) -> None:
        """One connection's life; returns never, raises when it is over."""
        async with asyncio.timeout(_PING_S):
            await pubsub.subscribe(INVALIDATION_CHANNEL)
        pinged = True
        while True:
            message = cast("dict[str, Any] | None", await pubsub.get_message(timeout=_PING_S))
            if message is None and pinged:
                raise TimeoutError
            if message is None:
                await pubsub.ping()
            pinged = message is None
            if message is not None:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._tell(push_is_up=True)
        elif message["type"] == "message":
            self.heard += 1
            self._directory.invalidate(bytes(message["data"]).decode(errors="replace"))

    def _tell(self, *, push_is_up: bool) -> None:
        if self.is_up != push_is_up:
            self.is_up = push_is_up
            self._directory.hear(push_is_up=push_is_up)
