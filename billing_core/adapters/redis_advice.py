"""What a server's own settings risk: sentences for whoever runs it, told at start and by `/readyz`.

Nothing here is refused: an operator may know better, and a managed server may not tell its settings at all.

    appendonly yes                     else a restart loses everything that was not flushed
    maxmemory-policy noeviction        else wallets are evicted like a cache
    cluster-require-full-coverage no   else one lost primary stops the shards of all others
    cluster-node-timeout 1000..5000    so long a lost primary's shards wait, and so long one that is cut off goes on
                                       deciding for gateways that are cut off with it; all of that is lost then
    min-replicas-to-write 1, min-replicas-max-lag 1..2    with two replicas or more: a primary that is cut off stops
                                       sooner, and what is lost is at most so old; with one replica it would stop
                                       service whenever that one is away
    a replica of each primary          else its loss is an outage until somebody brings it back
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from redis.exceptions import RedisError

from billing_core.adapters.redis_client import NOT_NOW, execute, is_spread, primaries

_ASKED: Final = (
    "appendonly",
    "maxmemory-policy",
    "cluster-require-full-coverage",
    "cluster-node-timeout",
    "min-replicas-to-write",
)
_LONGEST_TIMEOUT_MS: Final = 5_000


async def advice(client: Any) -> list[str]:
    """Each risk once, in words, of all servers that answer."""
    found: set[str] = set()
    for server in await primaries(client):
        pipe = server.pipeline(transaction=False)
        for name in _ASKED:
            pipe.config_get(name)
        pipe.info("replication")
        try:
            *told, replication = await execute(pipe, raise_on_error=False)
        except NOT_NOW:
            continue  # one that is away says nothing; that it is away others say
        if not any(isinstance(one, RedisError) for one in (*told, replication)):
            settings = {_text(name): _text(value) for one in told for name, value in one.items()}
            replicas = int(replication["connected_slaves"])
            found |= set(_risks(settings, replicas=replicas, is_cluster=is_spread(client)))
    return sorted(found)


def _risks(settings: Mapping[str, str], *, replicas: int, is_cluster: bool) -> Iterator[str]:
    if settings.get("appendonly") == "no":
        yield "appendonly is no: a restart of Redis loses what was not flushed"
    if settings.get("maxmemory-policy", "noeviction") != "noeviction":
        yield "maxmemory-policy is not noeviction: Redis may throw wallets away"
    if not is_cluster:
        return
    if settings.get("cluster-require-full-coverage") == "yes":
        yield "cluster-require-full-coverage is yes: one lost primary stops all shards"
    if int(settings.get("cluster-node-timeout", "0")) > _LONGEST_TIMEOUT_MS:
        yield f"cluster-node-timeout is above {_LONGEST_TIMEOUT_MS} ms: so long a lost primary's shards wait"
    if not replicas:
        yield "a primary has no replica: its loss is an outage"
    if replicas > 1 and settings.get("min-replicas-to-write") == "0":
        yield "min-replicas-to-write is 0: a primary that is cut off goes on deciding, and all of that is lost"


def _text(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)
