"""Push: Redis tells a gateway what to forget.

One pub/sub connection of the `redis` library, apart from the link. Before it is subscribed, and whenever it breaks
or falls silent, the directory is told that it is deaf. A ping that is not answered counts as broken: a server that
hangs sends no error, and a listener that waits for ever would trust old entries for ever.

In a cluster every node repeats what is published on any, so one node is listened to, whichever; it must say that it
is with the majority as often as it is pinged, because one that is cut off hears nothing and answers all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, RedisError

from billing_core.contract.keys import INVALIDATION_CHANNEL
from gateway.state.cluster import ClusterLink
from gateway.state.directory import Directory
from gateway.state.endpoint import Endpoint
from gateway.state.link import Link

_PING_S: Final = 1.0
_RETRY_S: Final = 0.25
_FAULTS: Final = (RedisError, OSError, TimeoutError)
_CHANCE: Final = random.SystemRandom()


class InvalidationListener:
    """Keeps a directory told; `listen` runs until it is cancelled."""

    def __init__(self, link: Link, directory: Directory, *, also: Callable[[str], None]) -> None:
        """`also` is told every message too."""
        self._link = link
        self._is_cluster = isinstance(link, ClusterLink)
        self._directory = directory
        self._also = also
        self.heard = 0
        self.is_up = False

    async def listen(self) -> None:
        """Subscribe, forward every message, and begin anew whenever the connection is lost."""
        while True:
            client = _client(_CHANCE.choice(self._link.places()))
            pubsub = client.pubsub()
            try:
                await self._subscribed(client, pubsub)
            except _FAULTS:
                self._tell(push_is_up=False)
            finally:
                for part in (pubsub, client):
                    with contextlib.suppress(*_FAULTS):  # it is broken already; only its socket is wanted back
                        await part.aclose()
            await asyncio.sleep(_RETRY_S)

    async def _subscribed(self, client: Redis, pubsub: PubSub) -> None:
        """One connection's life; returns never, raises when it is over."""
        await self._check_majority(client)
        async with asyncio.timeout(_PING_S):
            await pubsub.subscribe(INVALIDATION_CHANNEL)
        pinged = True
        while True:
            message = cast("dict[str, Any] | None", await pubsub.get_message(timeout=_PING_S))
            if message is None and pinged:
                raise TimeoutError
            if message is None:
                await pubsub.ping()
                await self._check_majority(client)
            pinged = message is None
            if message is not None:
                self._take(message)

    async def _check_majority(self, client: Redis) -> None:
        """Raises: ClusterDownError where this node of a cluster is cut off."""
        if self._is_cluster:
            async with asyncio.timeout(_PING_S):
                about = cast("bytes", await client.execute_command("CLUSTER", "INFO"))
            if b"cluster_state:ok" not in about:
                raise ClusterDownError("this node is cut off")

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._tell(push_is_up=True)
        elif message["type"] == "message":
            self.heard += 1
            payload = bytes(message["data"]).decode(errors="replace")
            self._directory.invalidate(payload)
            self._also(payload)

    def _tell(self, *, push_is_up: bool) -> None:
        if self.is_up != push_is_up:
            self.is_up = push_is_up
            self._directory.hear(push_is_up=push_is_up)


def _client(place: Endpoint) -> Redis:
    """A client of the server at this place, not yet connected."""
    return Redis(
        host=place.host,
        port=place.port,
        unix_socket_path=place.path or None,
        username=place.user or None,
        password=place.password or None,
        db=place.database,
        socket_connect_timeout=_PING_S,
        socket_timeout=None,
        retry=Retry(NoBackoff(), 0),  # a connection that mends itself would hide what was missed
    )
