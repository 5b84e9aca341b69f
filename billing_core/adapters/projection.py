"""The projection: what Postgres knows, written to where the gateway decides.

Everything here may be repeated without harm. A snapshot is refused where a newer one stands, a grant is applied
once by its id, a lapse takes what remains, a credential is written as it is now. What belongs to a shard that is
not built is refused by the scripts and reported back, so that the relay can try again later.

Whether the whole of Redis is still ours is told by marks: each shard's epoch, and one mark for what belongs to no
shard (credentials, meters). A mark that is missing means that what it stands for must be written anew. And each act
counts up what its shard was told: a replica that was promoted with a smaller count than Postgres has missed some.

A server that nobody has compared with Postgres yet (`vouch`) is told nothing: it might be about to be rebuilt, and
an entry that an act appends there would hide that entries are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from billing_core.adapters.redis_client import NOT_NOW, at, execute, is_spread, primaries, process_of, together
from billing_core.adapters.redis_library import bring_back, furnish, is_missed, is_passing
from billing_core.contract.keys import (
    ANSWERED_KEY,
    DIRECTORY_KEY,
    INVALIDATION_CHANNEL,
    SHARD_COUNT,
    KeyRecord,
    answered_key,
    api_key_name,
    customer_keys,
    epoch_key,
    meters_key,
    shard_holds_key,
    slices_push,
    stream_key,
    told_key,
    vouched_digest,
    vouched_script,
)
from billing_core.contract.snapshot import Snapshot, snapshot_fields
from billing_core.contract.usage_event import EventBody, encode_body
from billing_core.wallets.grant import LapseReason
from lua.loader import SCRIPTS

Argument = str | bytes | int

_ENCODER = msgspec.msgpack.Encoder()


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a script. What tells its shard something from Postgres is counted; `push` goes to all gateways."""

    script: str
    keys: tuple[str, ...]
    args: tuple[Argument, ...]
    counted_shard: int | None = None
    push: str = ""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A script said no, in two words such as `UNAVAILABLE epoch`."""

    words: str

    @property
    def is_unbuilt(self) -> bool:
        """Whether only the shard is missing, so that a later try will do."""
        return self.words.startswith("UNAVAILABLE")


_NOT_YET = Refused(words="UNAVAILABLE server")


class GrantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A grant as the wallet's scripts want it."""

    tenant_id: str
    customer_id: str
    grant_id: str
    currency: str
    amount_nanos: int
    priority: int
    effective_ms: int
    expires_ms: int
    is_paid: bool
    created_ms: int
    is_overdraft: bool = False
    features: tuple[str, ...] = ()


def project_snapshot(tenant_id: str, customer_id: str, *, snapshot: Snapshot) -> Act:
    """Replace the customer's snapshot unless a newer one stands: 1 applied, 0 older."""
    keys = customer_keys(tenant_id, customer_id)
    head = snapshot.version, snapshot.status.value, snapshot.clock_offset_ms
    is_sliced = any(feature.slice_units for feature in snapshot.features.values())
    return Act(
        script="project",
        keys=(keys.epoch, keys.snapshot),
        args=(*head, *snapshot_fields(snapshot)),
        counted_shard=keys.shard,
        push=slices_push(tenant_id, customer_id) if is_sliced else "",
    )


def apply_grant(grant: GrantFacts) -> Act:
    """Put the grant into the wallet once: 1 applied, 0 known. The script tells what it repays of an overdraft."""
    keys = customer_keys(grant.tenant_id, grant.customer_id)
    body = EventBody(
        event_id=f"repay_{grant.grant_id}",
        tenant_id=grant.tenant_id,
        customer_id=grant.customer_id,
        grant_id=grant.grant_id,
    )
    return Act(
        script="grant",
        keys=(keys.epoch, keys.snapshot, keys.wallet, keys.stream),
        args=(
            grant.currency,
            grant.grant_id,
            grant.amount_nanos,
            grant.priority,
            grant.effective_ms,
            grant.expires_ms,
            2 if grant.is_overdraft else int(grant.is_paid),
            grant.created_ms,
            " ".join(grant.features),
            encode_body(body),
        ),
        counted_shard=keys.shard,
    )


def lapse_grant(grant: GrantFacts, *, reason: LapseReason, event_id: str, limit_nanos: int = 0) -> Act:
    """Take what remains of the grant out of the wallet, or what is above an overdraft's new limit: nanos taken."""
    keys = customer_keys(grant.tenant_id, grant.customer_id)
    body = EventBody(
        event_id=event_id,
        tenant_id=grant.tenant_id,
        customer_id=grant.customer_id,
        grant_id=grant.grant_id,
        reason=reason.value,
    )
    return Act(
        script="lapse",
        keys=(keys.epoch, keys.snapshot, keys.wallet, keys.stream),
        args=(grant.currency, grant.grant_id, reason.value, encode_body(body), limit_nanos),
        counted_shard=keys.shard,
    )


def sweep_shard(shard: int, *, most: int) -> Act:
    """End holds of the shard that are due: how many."""
    return Act(script="sweep", keys=(epoch_key(shard), shard_holds_key(shard), stream_key(shard)), args=(most,))


class Projection:
    """One client of Redis that speaks bytes."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._told: dict[int, int] = {}
        self._furnished: set[str] = set()

    async def run(self, acts: Sequence[Act]) -> list[int | Refused]:
        """Run the acts in their order, in one round trip; what each replied or why it was refused."""
        vouched = await self._ready() if acts else []
        is_able = [await self._is_served(act.keys[0], vouched) for act in acts]
        able = [act for act, is_one in zip(acts, is_able, strict=True) if is_one]
        replies = await self._send(able)
        if any(map(is_missed, replies)):
            await bring_back(vouched)
            replies = await self._send(able)  # from the first: what stands behind a missed act must not overtake it
        coming = iter(replies)
        return [_outcome(next(coming)) if is_one else _NOT_YET for is_one in is_able]

    def take_told(self) -> dict[int, int]:
        """How often the shards have been told something, of those that were since this was asked last."""
        told, self._told = self._told, {}
        return told

    async def told(self) -> list[int]:
        """How often each shard was told something, as Redis has it."""
        return [count or 0 for count in await self._numbers(told_key)]

    async def _send(self, acts: Sequence[Act]) -> list[Any]:
        pipe = self.client.pipeline(transaction=False)
        for act in acts:
            pipe.execute_command(*SCRIPTS[act.script].call(act.keys, act.args))
        counted = sorted({act.counted_shard for act in acts if act.counted_shard is not None})
        for shard in counted:
            pipe.incr(told_key(shard))
        for act in acts:
            if act.push:
                pipe.publish(INVALIDATION_CHANNEL, act.push)
        replies = await execute(pipe, raise_on_error=False) if acts else []
        for shard, count in zip(counted, replies[len(acts) : len(acts) + len(counted)], strict=True):
            if isinstance(count, int):
                self._told[shard] = count
        return replies[: len(acts)]

    async def put_credentials(self, records: Mapping[str, KeyRecord | None]) -> None:
        """Write each credential as it is now (None: nobody), and tell every gateway to forget what it knew."""
        pipe = self.client.pipeline(transaction=False)
        for digest, record in records.items():
            if record is None:
                pipe.delete(api_key_name(digest))
            else:
                pipe.set(api_key_name(digest), _ENCODER.encode(record))
            pipe.publish(INVALIDATION_CHANNEL, digest)
        if records:
            await execute(pipe)

    async def put_meters(self, tenant_id: str, meters: Mapping[str, Mapping[str, int]]) -> None:
        """Write which events the tenant's meters read, and tell every gateway."""
        pipe = self.client.pipeline(transaction=False)
        pipe.set(meters_key(tenant_id), _ENCODER.encode(meters))
        pipe.publish(INVALIDATION_CHANNEL, f"meters:{tenant_id}")
        await execute(pipe)

    async def has_directory(self) -> bool:
        """Whether Redis still has the credentials and meters; True where a cluster cannot tell just now."""
        pipe = self.client.pipeline(transaction=False)
        pipe.exists(DIRECTORY_KEY)
        return bool((await execute(pipe, raise_on_error=False))[0])

    async def close_directory(self) -> None:
        """Say that credentials and meters may be missing, where that can be said just now."""
        pipe = self.client.pipeline(transaction=False)
        pipe.delete(DIRECTORY_KEY)
        await execute(pipe, raise_on_error=False)

    async def open_directory(self) -> None:
        """Say that all credentials and meters are written; gateways start with an empty memory."""
        pipe = self.client.pipeline(transaction=False)
        pipe.set(DIRECTORY_KEY, 1)
        pipe.publish(INVALIDATION_CHANNEL, "*")
        await execute(pipe)

    async def epochs(self) -> list[int | None]:
        """The epoch of each shard in Redis, by number; None where the shard is not built."""
        return await self._numbers(epoch_key)

    async def answered(self) -> dict[int, list[str]]:
        """What gateways say they have answered since their shard was taken over; of shards that are there."""
        pipe = self.client.pipeline(transaction=False)
        pipe.smembers(ANSWERED_KEY)
        numbers = (await execute(pipe, raise_on_error=False))[0]
        shards = [] if isinstance(numbers, NOT_NOW) else sorted(map(int, numbers))
        for shard in shards:
            pipe.lrange(answered_key(shard), 0, -1)
        listed = await execute(pipe, raise_on_error=False) if shards else []
        there = [(shard, ids) for shard, ids in zip(shards, listed, strict=True) if not isinstance(ids, NOT_NOW)]
        return {shard: [one.decode() for one in ids] for shard, ids in there}

    async def forget_answered(self, counts: Mapping[int, int]) -> None:
        """Drop so many of each shard's; one of which more has come stays listed."""
        pipe = self.client.pipeline(transaction=False)
        for shard, count in counts.items():
            pipe.ltrim(answered_key(shard), count, -1)
            pipe.exists(answered_key(shard))
        left = (await execute(pipe))[1::2] if counts else []
        done = [shard for shard, is_left in zip(counts, left, strict=True) if not is_left]
        if done:
            pipe.srem(ANSWERED_KEY, *done)
            await execute(pipe)

    async def _numbers(self, key_of: Callable[[int], str]) -> list[int | None]:
        """What stands under such a key of each shard, by number; None too where its node of a cluster is away."""
        pipe, shards = self.client.pipeline(transaction=False), range(SHARD_COUNT)
        if is_spread(self.client):
            for shard in shards:
                pipe.get(key_of(shard))
            texts = [None if isinstance(one, NOT_NOW) else one for one in await execute(pipe, raise_on_error=False)]
        else:
            for lane in await together(self.client, shards):
                pipe.mget([key_of(shard) for shard in lane])
            texts = [text for lane in await execute(pipe) for text in lane]
        return [None if text is None else int(text) for text in texts]

    async def open_fresh(self, epochs: Mapping[int, int]) -> None:
        """Open shards that nobody has ever used."""
        pipe = self.client.pipeline(transaction=False)
        for shard, epoch in epochs.items():
            pipe.set(epoch_key(shard), epoch, nx=True)
        if epochs:
            await execute(pipe)

    async def shards_with_due_holds(self, *, instant_ms: int) -> list[int]:
        """Where a hold's deadline has passed. Most lanes have no hold at all, and are asked once."""
        pipe, lanes = self.client.pipeline(transaction=False), await together(self.client, range(SHARD_COUNT))
        if is_spread(self.client):
            lanes = [[shard] for lane in lanes for shard in lane]
        for lane in lanes:
            pipe.exists(*map(shard_holds_key, lane))
        held = [shard for lane, count in zip(lanes, await execute(pipe), strict=True) if count for shard in lane]
        for shard in held:
            pipe.zcount(shard_holds_key(shard), "-inf", instant_ms)
        counts = await execute(pipe) if held else []
        return [shard for shard, count in zip(held, counts, strict=True) if count]

    async def run_id(self) -> str:
        """What changes whenever a server starts anew or becomes a primary: the names of all, in one text.

        Of a cluster: of those that answer. Raises: what a server that is away makes its client raise.
        """
        return " ".join(sorted(await self._standing()))

    async def present(self) -> set[int]:
        """The shards whose server answers now."""
        if not is_spread(self.client):
            return set(range(SHARD_COUNT))
        standing = list((await self._standing()).values())
        return {shard for shard in range(SHARD_COUNT) if await self._is_served(epoch_key(shard), standing)}

    async def vouch(self, run_id: str) -> None:
        """Let gateways decide on the processes of that run id; one that took another's place learns nothing."""
        named = run_id.split()
        for process, server in (await self._standing()).items():
            if process in named:
                pipe = server.pipeline(transaction=False)
                pipe.execute_command("SCRIPT LOAD", vouched_script(process))
                await execute(pipe)

    async def is_vouched(self, run_id: str) -> bool:
        """Whether these are the processes that stand, and all of them were looked at."""
        return await self.run_id() == run_id and len(await self._vouched()) == len(run_id.split())

    async def _ready(self) -> list[Any]:
        """The servers that were looked at, with the library of all scripts."""
        vouched = await self._vouched()
        fresh = [process for process in vouched if process not in self._furnished]
        done = await asyncio.gather(*(furnish(vouched[process]) for process in fresh), return_exceptions=True)
        for process, fault in zip(fresh, done, strict=True):
            if fault is None:
                self._furnished.add(process)
            elif not is_passing(fault):
                raise fault
        return list(vouched.values())

    async def _vouched(self) -> dict[str, Any]:
        """The servers that were looked at and are there, by the names of their processes."""
        standing = await self._standing()
        known = await asyncio.gather(*(_is_known(server, process) for process, server in standing.items()))
        return {one: standing[one] for one, is_known in zip(standing, known, strict=True) if is_known}

    async def _standing(self) -> dict[str, Any]:
        """The servers that answer, by the names of their processes; a single one must."""
        found: dict[str, Any] = {}
        for server in await primaries(self.client):
            try:
                found[await process_of(server)] = server
            except NOT_NOW:
                if not is_spread(self.client):
                    raise
        return found

    async def _is_served(self, key: str, servers: Sequence[Any]) -> bool:
        """Whether one of these servers has the key."""
        try:
            return await at(self.client, key) in servers
        except NOT_NOW:
            return False

    async def is_as_it_was(self, run_id: str, epochs: Sequence[int | None]) -> bool:
        """Whether the processes of that run id still stand and are vouched for, with epochs and directory."""
        return await self.is_vouched(run_id) and await self.epochs() == epochs and await self.has_directory()


async def _is_known(server: Any, process: str) -> bool:
    """Whether somebody has looked at this process; one of several that is away was not."""
    pipe = server.pipeline(transaction=False)
    pipe.execute_command("SCRIPT EXISTS", vouched_digest(process))
    try:
        (known,) = await execute(pipe)
    except NOT_NOW:
        return False
    return bool(known[0])


def _outcome(reply: Any) -> int | Refused:
    if isinstance(reply, NOT_NOW) or is_missed(reply):
        return _NOT_YET
    if isinstance(reply, ResponseError):
        return Refused(words=" ".join(str(reply).split()[:2]))
    if isinstance(reply, Exception):
        raise reply
    return int(reply)
