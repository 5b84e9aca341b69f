"""The worker's client of Redis: bytes, RESP3, and failures that come through as they are.

The client library would time its writes with `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that
arrives together with the reply: a role that is told to stop would go on. So its own timeouts are off, and pipelines
are executed here under a deadline. Its retries are off too: whether to try again is for the flow to say, which
knows what it did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from billing_core.adapters.redis_cluster import ClusterClient
from billing_core.contract.cluster import is_cluster, process_name, seeds_of
from billing_core.contract.keys import epoch_key, lane_of

_DEADLINE_S: Final = 10.0

REDIS_FAILURES: Final = (OSError, RedisConnectionError, RedisTimeoutError)
"""What a server that is away or hung looks like; a worker waits and tries again."""

NOT_NOW: Final = (
    *REDIS_FAILURES,
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    TryAgainError,
)
"""What a reply of one node of a cluster looks like while it, or a slot of it, is being replaced or moved."""


def connect(url: str) -> Any:
    """A client of the server, or the cluster, at the address; it connects when it is first used.

    Raises: ConfigurationError where a cluster's address cannot be understood.
    """
    if is_cluster(url):
        return ClusterClient(seeds_of(url))
    return redis.asyncio.Redis.from_url(url, protocol=3, socket_timeout=None, retry=Retry(NoBackoff(), 0))


async def execute(pipe: Any, *, raise_on_error: bool = True) -> list[Any]:
    """The replies of a pipeline.

    Raises: TimeoutError (an OSError) where Redis does not answer; the first error reply, unless told not to.
    """
    async with asyncio.timeout(_DEADLINE_S):
        return await pipe.execute(raise_on_error=raise_on_error)


async def at(client: Any, key: str) -> Any:
    """The client of the one server that has the key: for transactions."""
    return await client.at(key) if isinstance(client, ClusterClient) else client


def is_spread(client: Any) -> bool:
    """Whether the shards are spread over the nodes of a cluster."""
    return isinstance(client, ClusterClient)


async def together(client: Any, shards: Iterable[int]) -> list[list[int]]:
    """The shards that are looked at in one step: those of a lane, or in a cluster those of a node."""
    if isinstance(client, ClusterClient):
        return await client.by_node(list(shards), key_of=epoch_key)
    lanes: dict[int, list[int]] = {}
    for shard in shards:
        lanes.setdefault(lane_of(shard), []).append(shard)
    return list(lanes.values())


async def primaries(client: Any) -> list[Any]:
    """A client of each server that decides."""
    return await client.all_primaries() if isinstance(client, ClusterClient) else [client]


async def process_of(server: Any) -> str:
    """Which process this is: a name that changes when it starts anew, and whenever it becomes a primary.

    Raises: what a server that is away makes its client raise.
    """
    pipe = server.pipeline(transaction=False)
    pipe.info("server")
    pipe.info("replication")
    about, replication = await execute(pipe)
    return process_name(str(about["run_id"]), str(replication["master_replid"]))
