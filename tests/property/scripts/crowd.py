"""Many at once: each call on a connection of its own, all sent in one turn before any reply is read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from desk import plain_reply

from lua.loader import SCRIPTS

Call = tuple[str, Sequence[Any], tuple[Any, ...]]
"""Script, keys and arguments."""


async def at_once(url: str, calls: Sequence[Call]) -> list[Any]:
    """The replies in the order of the calls; error replies as their words."""
    clients = [redis.asyncio.Redis.from_url(url) for _ in calls]

    async def send(client: redis.asyncio.Redis, call: Call) -> Any:
        name, keys, args = call
        try:
            return plain_reply(await client.execute_command(*SCRIPTS[name].call(keys, args)))
        except redis.ResponseError as error:
            return str(error)

    try:
        await asyncio.gather(*(client.ping() for client in clients))
        return await asyncio.gather(*(send(*pair) for pair in zip(clients, calls, strict=True)))
    finally:
        await asyncio.gather(*(client.aclose() for client in clients))
