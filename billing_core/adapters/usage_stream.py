"""The shards' streams, as the worker reads them.

A stream is read from the last id that Postgres has, never by consumer groups: where reading continues is a fact of
the database, not of Redis. What has been committed is trimmed afterwards; a crash in between leaves entries that
stand behind the watermark and are never read again.

The streams of one lane are asked for in one command, and the lanes of a flusher in one round trip. Who finds
nothing for a while waits in one command on all of them, and costs nothing until something comes. Where shards are
spread over nodes, `_ask` and `wait` are the only places that have to know it.

A **capture** is one shard at one instant: its wallets, its whole stream and the stream's last id, taken in one
MULTI/EXEC. Whatever stands in it adds up; that is what reconcile compares with Postgres.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from billing_core.adapters.redis_client import NOT_NOW, at, execute, is_spread, together
from billing_core.contract.keys import SHARD_COUNT, customer_keys, epoch_key, stream_key
from billing_core.contract.usage_event import StreamPosition
from billing_core.values.clock import EPOCH

RawEntry = Sequence[Any]
"""A stream entry as it comes off the wire: its id, and a flat list of names and values; all bytes."""

Positions = Mapping[int, StreamPosition]

_LEAST_COUNT = 16
_STREAMS_FULL = 64
_SPREAD_LOOK_MS = 50
_LOOK = """#!lua flags=no-writes,allow-cross-slot-keys
local found, half = { 0 }, (#ARGV - 1) / 2
for index = 1, half do
  local entries = redis.pcall('XRANGE', ARGV[1 + index], '(' .. ARGV[1 + half + index], '+', 'COUNT', ARGV[1])
  if entries.err then
    found[1] = found[1] + 1
  elseif #entries > 0 then
    found[#found + 1], found[#found + 2] = ARGV[1 + index], entries
  end
end
return found
"""
"""Entries behind positions of many streams of one node; first of all, how many streams are not there any more."""
_STREAMS = [stream_key(shard).encode() for shard in range(SHARD_COUNT)]
_SHARD_OF = {name: shard for shard, name in enumerate(_STREAMS)}


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What one shard's stream held after a position, oldest first."""

    shard: int
    after: StreamPosition
    entries: Sequence[RawEntry]

    @property
    def last(self) -> StreamPosition:
        """The position of the last entry."""
        return StreamPosition.parse(self.entries[-1][0].decode())

    def cut(self, count: int) -> tuple[Reading, Reading]:
        """The first so many entries, and the others behind them; one of the two may be empty."""
        here, there = self.entries[:count], self.entries[count:]
        first = Reading(shard=self.shard, after=self.after, entries=here)
        middle = first.last if here else self.after
        return first, Reading(shard=self.shard, after=middle, entries=there)


class Harvest(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of some streams. Complete: nothing that stood there at `asked_at` (Redis time) is missing."""

    readings: Sequence[Reading]
    asked_at: datetime
    is_complete: bool

    @property
    def entry_count(self) -> int:
        """How many entries were read."""
        return sum(len(reading.entries) for reading in self.readings)


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """One shard at one instant. `wallets` are the raw hashes, in the order of the customers asked for."""

    shard: int
    is_built: bool
    last: StreamPosition
    entries: Sequence[RawEntry]
    wallets: Sequence[Mapping[bytes, bytes]]


class Hashes(msgspec.Struct, frozen=True, kw_only=True):
    """Some hashes of one shard at one instant of Redis, and the last id that its stream had given by then."""

    at: datetime
    is_built: bool
    last: StreamPosition
    by_name: Mapping[str, Mapping[bytes, bytes]]


class UsageStream:
    """The streams behind one client of Redis, which must speak RESP3 and bytes."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._words: dict[int, tuple[StreamPosition, bytes]] = {}
        self._read_all = False
        self._turn: int | None = None
        for command in ("XREAD", "XRANGE", "XINFO STREAM"):
            client.set_response_callback(command, _as_it_came)

    async def now(self) -> datetime:
        """Redis time."""
        pipe = self._client.pipeline(transaction=False)
        pipe.execute_command("TIME")
        return _instant((await execute(pipe))[0])

    async def read(self, after: Positions, *, most: int) -> Harvest:
        """About `most` entries behind these positions; full streams are asked again while there is room.

        All lanes at once, unless the last read had no room for everything: then one after the other, and the next
        read goes on where this one stopped. So a batch of what has piled up moves few marks and few grants.
        """
        found: dict[int, list[RawEntry]] = {}
        room, asked_at, is_whole = most, None, True
        groups = self._in_turn(await together(self._client, after))
        while groups and room > 0:
            width = len(groups) if self._read_all else 1
            asked = {shard: after[shard] for group in groups[:width] for shard in group}
            groups = groups[width:]
            self._turn = groups[0][0] if groups else None
            while asked and room > 0:
                count = max(1, min(_LEAST_COUNT, most // _STREAMS_FULL), room // len(asked))
                replied_at, replies, none_away = await self._ask(asked, count)
                asked_at = asked_at or replied_at
                is_whole = is_whole and none_away
                room -= sum(map(len, replies.values()))
                for shard, entries in replies.items():
                    found.setdefault(shard, []).extend(entries)
                full = {shard: entries[-1][0] for shard, entries in replies.items() if len(entries) >= count}
                asked = {shard: StreamPosition.parse(last.decode()) for shard, last in full.items()}
            is_whole = is_whole and not asked
        self._read_all = is_whole and not groups
        readings = [Reading(shard=shard, after=after[shard], entries=found[shard]) for shard in sorted(found)]
        return Harvest(readings=readings, asked_at=asked_at or await self.now(), is_complete=self._read_all)

    def _in_turn(self, groups: list[list[int]]) -> list[list[int]]:
        """Those that the last read did not come to, then the others."""
        first = next((number for number, group in enumerate(groups) if group[0] == self._turn), 0)
        return groups[first:] + groups[:first]

    async def wait(self, after: Positions, *, most_ms: int) -> Harvest | None:
        """Wait until something stands behind a position; a complete harvest of nothing where that takes longer.

        None: it is time to read. Nobody can wait on several nodes at once, so in a cluster that is after a moment.
        """
        if is_spread(self._client):
            await asyncio.sleep(min(most_ms, _SPREAD_LOOK_MS) / 1_000)
            return None
        pipe = self._client.pipeline(transaction=False)
        pipe.execute_command("TIME")
        pipe.execute_command("XREAD", "COUNT", 1, "BLOCK", most_ms, "STREAMS", *self._names(after))
        asked_at, found = await execute(pipe)
        return None if found else Harvest(readings=[], asked_at=_instant(asked_at), is_complete=True)

    def _names(self, after: Positions) -> list[bytes]:
        """The streams, then where to read on in each; bytes are made once for as long as a place stays the same."""
        places: list[bytes] = []
        for shard, position in after.items():
            known = self._words.get(shard)
            if known is None or known[0] is not position:
                known = self._words[shard] = position, str(position).encode()
            places.append(known[1])
        return [_STREAMS[shard] for shard in after] + places

    async def _ask(self, after: Positions, count: int) -> tuple[datetime, dict[int, list[RawEntry]], bool]:
        """The time before any of it is read, what each stream holds, and whether nobody was away."""
        pipe, is_spread_out = self._client.pipeline(transaction=False), is_spread(self._client)
        pipe.execute_command("TIME")
        for shards in await together(self._client, after):
            names = self._names({shard: after[shard] for shard in shards})
            if is_spread_out:
                pipe.execute_command("EVAL", _LOOK, 0, count, *names, key=names[0])
            else:
                pipe.execute_command("XREAD", "COUNT", count, "STREAMS", *names)
        time, *replies = await execute(pipe, raise_on_error=False)
        present = [reply for reply in replies if not isinstance(reply, NOT_NOW)]
        _raise_first([time, *present])
        found: dict[int, list[RawEntry]] = {}
        for reply in present:
            streams: dict[bytes, list[RawEntry]] = reply or {}
            if is_spread_out:
                streams = dict(zip(reply[1::2], reply[2::2], strict=True))
            found |= {_SHARD_OF[name]: entries for name, entries in streams.items()}
        none_strayed = not is_spread_out or all(reply[0] == 0 for reply in present)
        return _instant(time), found, len(present) == len(replies) and none_strayed

    async def trim(self, written_to: Positions) -> None:
        """Forget what is committed: everything up to and including these positions; who is away, next time."""
        pipe = self._client.pipeline(transaction=False)
        for shard, position in written_to.items():
            following = StreamPosition(position.ms, position.seq + 1)
            pipe.execute_command("XTRIM", stream_key(shard), "MINID", str(following))
        if written_to:
            replies = await execute(pipe, raise_on_error=False)
            _raise_first(reply for reply in replies if not isinstance(reply, NOT_NOW))

    async def capture(self, shard: int, owners: Sequence[tuple[str, str]]) -> Capture:
        """The shard at one instant, with the wallets of these (tenant, customer) of it."""
        pipe = (await at(self._client, epoch_key(shard))).pipeline(transaction=True)
        pipe.execute_command("EXISTS", epoch_key(shard))
        pipe.execute_command("XRANGE", stream_key(shard), "-", "+")
        pipe.execute_command("XINFO STREAM", stream_key(shard))
        for tenant_id, customer_id in owners:
            pipe.execute_command("HGETALL", customer_keys(tenant_id, customer_id).wallet)
        is_built, entries, about, *wallets = await execute(pipe, raise_on_error=False)
        _raise_first([is_built, entries, *wallets])
        return Capture(shard=shard, is_built=bool(is_built), last=_last_id(about), entries=entries, wallets=wallets)

    async def capture_hashes(self, shard: int, names: Sequence[str]) -> Hashes:
        """These hashes of the shard at one instant."""
        pipe = (await at(self._client, epoch_key(shard))).pipeline(transaction=True)
        pipe.execute_command("TIME")
        pipe.execute_command("EXISTS", epoch_key(shard))
        pipe.execute_command("XINFO STREAM", stream_key(shard))
        for name in names:
            pipe.execute_command("HGETALL", name)
        time, is_built, about, *hashes = await execute(pipe, raise_on_error=False)
        _raise_first([time, is_built, *hashes])
        return Hashes(
            at=_instant(time),
            is_built=bool(is_built),
            last=_last_id(about),
            by_name=dict(zip(names, hashes, strict=True)),
        )

    async def last_ids(self, shards: Sequence[int]) -> list[StreamPosition]:
        """The last id that each stream ever gave; 0-0 for a stream that does not exist."""
        pipe = self._client.pipeline(transaction=False)
        for shard in shards:
            pipe.execute_command("XINFO STREAM", stream_key(shard))
        return [_last_id(about) for about in await execute(pipe, raise_on_error=False)]


def _as_it_came(reply: Any, **_: object) -> Any:
    """Instead of the client's own conversion, which takes longer than everything else here."""
    return reply


def _last_id(about: Any) -> StreamPosition:
    if isinstance(about, ResponseError) and "no such key" in str(about):
        return StreamPosition(0, 0)
    if isinstance(about, Exception):
        raise about
    return StreamPosition.parse(about[b"last-generated-id"].decode())


def _raise_first(replies: Iterable[Any]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def _instant(reply: Sequence[Any]) -> datetime:
    seconds, micros = reply
    return EPOCH + timedelta(seconds=int(seconds), microseconds=int(micros))
