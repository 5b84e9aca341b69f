"""A shard's image: all that Redis keeps of its customers, written from nothing.

Only for rebuilding. A shard that is being rebuilt has no epoch, so no script touches it; and every part is written
in one WATCH/MULTI/EXEC on the builder's token, so that a builder who was replaced while it slept writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import WatchError

from billing_core.adapters.redis_client import at, execute, primaries
from billing_core.contract.keys import (
    build_key,
    customer_keys,
    epoch_key,
    hold_key,
    node_key,
    shard_holds_key,
    stream_key,
    tag,
    told_key,
)
from billing_core.contract.snapshot import Snapshot, snapshot_fields
from billing_core.contract.usage_event import StreamPosition
from billing_core.wallets.burn import Block, in_burn_order

LIFE_FIELD = "x"
"""Until when anything in a node's hash counts, on the tenant's clock."""

FOR_EVER_MS = 2**53 - 1

_CUSTOMERS_AT_ONCE = 200
_KEYS_AT_ONCE = 10_000
_TAG_LENGTH = len(tag(0))
_ENCODER = msgspec.msgpack.Encoder()


class CustomerImage(msgspec.Struct, frozen=True, kw_only=True):
    """One customer: its snapshot, its grants by currency, and its counters by node ("" the customer itself)."""

    tenant_id: str
    customer_id: str
    snapshot: Snapshot
    blocks: Mapping[str, Sequence[Block]]
    counters: Mapping[str, Mapping[str, bytes | int]]


class ShardOpening(msgspec.Struct, frozen=True, kw_only=True):
    """What opens a rebuilt shard: its epoch, how often it was told, and where every new entry must be beyond."""

    shard: int
    epoch: int
    told: int = 0
    watermark: StreamPosition
    last: StreamPosition


class ShardImages:
    """Writes images through one client of Redis, under one token."""

    def __init__(self, client: Any, *, token: str) -> None:
        self._client = client
        self._token = token
        self._nodes: dict[int, list[str]] = {}

    async def fence(self, shards: Sequence[int]) -> None:
        """Claim the shards and stop all that is decided there."""
        pipe = self._client.pipeline(transaction=False)
        for shard in shards:
            pipe.set(build_key(shard), self._token)
            pipe.delete(epoch_key(shard))
        if shards:
            await execute(pipe)

    async def find_nodes(self, shards: Sequence[int]) -> None:
        """Find what these fenced shards still have of nodes below customers: only Redis knows all their names."""
        wanted = {tag(shard): shard for shard in shards}
        for name in await node_keys(self._client):
            shard = wanted.get(name[:_TAG_LENGTH])
            if shard is not None:
                self._nodes.setdefault(shard, []).append(name)

    async def write(self, shard: int, customers: Sequence[CustomerImage]) -> bool:
        """Replace these customers and drop the shard's holds; False where another builder has taken over."""
        pipe = self._client.pipeline(transaction=False)
        pipe.zrange(shard_holds_key(shard), 0, -1)
        held: list[bytes] = (await execute(pipe))[0]
        dropped = [hold_key(hold_id.decode(), shard) for hold_id in held]
        if not await self._under_token(
            shard, [("DEL", shard_holds_key(shard), *dropped, *self._nodes.get(shard, ()))]
        ):
            return False
        for first in range(0, len(customers), _CUSTOMERS_AT_ONCE):
            part = customers[first : first + _CUSTOMERS_AT_ONCE]
            if not await self._under_token(shard, [command for one in part for command in _commands(one)]):
                return False
        return True

    async def open(self, opening: ShardOpening) -> bool:
        """Let the shard be served again; False where another builder has taken over."""
        shard, mark = opening.shard, opening.watermark
        stream = stream_key(shard)
        commands: list[tuple[Any, ...]] = []
        if opening.last < mark:
            commands += [("XADD", stream, str(mark), "k", "rebuilt"), ("XTRIM", stream, "MAXLEN", 0)]
        if opening.told:
            commands.append(("SET", told_key(shard), opening.told))
        commands += [("SET", epoch_key(shard), opening.epoch), ("DEL", build_key(shard))]
        return await self._under_token(shard, commands)

    async def _under_token(self, shard: int, commands: Iterable[tuple[Any, ...]]) -> bool:
        server = await at(self._client, build_key(shard))
        async with server.pipeline(transaction=True) as pipe:
            await pipe.watch(build_key(shard), epoch_key(shard))
            if await pipe.get(build_key(shard)) != self._token.encode():
                return False
            pipe.multi()
            for command in commands:
                pipe.execute_command(*command)
            try:
                await execute(pipe)
            except WatchError:
                return False
        return True


def _commands(image: CustomerImage) -> list[tuple[Any, ...]]:
    keys = customer_keys(image.tenant_id, image.customer_id)
    snapshot = image.snapshot
    head = ("v", snapshot.version, "st", snapshot.status.value, "off", snapshot.clock_offset_ms)
    nodes = [node_key(keys.counters, node) for node in image.counters if node]
    commands: list[tuple[Any, ...]] = [
        ("DEL", keys.snapshot, keys.counters, keys.wallet, keys.holds, *nodes),
        ("HSET", keys.snapshot, *head, *snapshot_fields(snapshot)),
    ]
    for node, fields in image.counters.items():
        name = node_key(keys.counters, node)
        commands.append(("HSET", name, *_flat(fields)))
        until_ms = int(fields.get(LIFE_FIELD, FOR_EVER_MS))
        if until_ms < FOR_EVER_MS:
            commands.append(("PEXPIREAT", name, until_ms - snapshot.clock_offset_ms))
    if image.blocks:
        commands.append(("HSET", keys.wallet, *_flat(_wallet_fields(image.blocks))))
    return commands


def _wallet_fields(blocks: Mapping[str, Sequence[Block]]) -> dict[str, bytes | int]:
    """The wallet as the scripts keep it: who burns when, and what each has left."""
    fields: dict[str, bytes | int] = {}
    for currency, listed in blocks.items():
        order = [_place(one) for one in in_burn_order(listed) if one.remaining_nanos or one.is_overdraft]
        if order:
            fields[f"o:{currency}"] = _ENCODER.encode(order)
        for one in listed:
            fields[f"r:{one.grant_id}"] = one.remaining_nanos
            fields[f"h:{one.grant_id}"] = 0
            if one.is_overdraft:
                fields[f"a:{one.grant_id}"] = one.granted_nanos
    return fields


def _place(block: Block) -> tuple[str | int, ...]:
    """What the burn order says of a grant, as `lua/lib/money/wallet.lua` reads it."""
    paid = 2 if block.is_overdraft else int(block.is_paid)
    times = block.effective_ms, block.expires_ms, block.priority, paid, block.created_ms
    return (block.grant_id, *times, " ".join(block.features))


def _flat(fields: Mapping[str, bytes | int]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]


async def node_keys(client: Any) -> list[str]:
    """The names of all counters that belong to nodes below customers, wherever they are."""
    found: list[str] = []
    for server in await primaries(client):
        cursor = b"0"
        while True:
            pipe = server.pipeline(transaction=False)
            pipe.execute_command("SCAN", cursor, "MATCH", "{s*}:use:*/*", "COUNT", _KEYS_AT_ONCE)
            ((cursor, names),) = await execute(pipe)
            found += [name.decode() for name in names]
            if int(cursor) == 0:
                break
    return found
