"""The projection: what Postgres knows, written to where the gateway decides.

Everything here may be repeated without harm. A snapshot is refused where a newer one stands, a grant is applied
once by its id, a lapse takes what remains, a credential is written as it is now. What belongs to a shard that is
not built is refused by the scripts and reported back, so that the relay can try again later.

Whether the whole of Redis is still ours is told by marks: each shard's epoch, and one mark for what belongs to no
shard (credentials, meters). A mark that is missing means that what it stands for must be written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import NoScriptError, ResponseError

from billing_core.adapters.redis_client import execute
from billing_core.contract.keys import (
    DIRECTORY_KEY,
    INVALIDATION_CHANNEL,
    LANE_COUNT,
    SHARD_COUNT,
    KeyRecord,
    api_key_name,
    customer_keys,
    epoch_key,
    lane_of,
    meters_key,
    shard_holds_key,
    stream_key,
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
    """One run of a script, or one plain command where `script` is empty."""

    script: str
    keys: tuple[str, ...]
    args: tuple[Argument, ...]


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A script said no, in two words such as `UNAVAILABLE epoch`."""

    words: str

    @property
    def is_unbuilt(self) -> bool:
        """Whether only the shard is missing, so that a later try will do."""
        return self.words.startswith("UNAVAILABLE")


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
    return Act(script="project", keys=(keys.epoch, keys.snapshot), args=(*head, *snapshot_fields(snapshot)))


def apply_grant(grant: GrantFacts) -> Act:
    """Put the grant into the wallet once: 1 applied, 0 known. What it repays of an overdraft is told by the script."""
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
    )


def sweep_shard(shard: int, *, most: int) -> Act:
    """End holds of the shard that are due: how many."""
    return Act(script="sweep", keys=(epoch_key(shard), shard_holds_key(shard), stream_key(shard)), args=(most,))


class Projection:
    """One client of Redis that speaks bytes."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def run(self, acts: Sequence[Act]) -> list[int | Refused]:
        """Run the acts in their order, in one round trip; what each replied or why it was refused."""
        replies = await self._send(acts)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            await self._load({act.script for act in acts})
            replies = await self._send(acts)  # from the first: what stands behind a missed act must not overtake it
        return [_outcome(reply) for reply in replies]

    async def _send(self, acts: Sequence[Act]) -> list[Any]:
        pipe = self.client.pipeline(transaction=False)
        for act in acts:
            pipe.execute_command("EVALSHA", SCRIPTS[act.script].sha, len(act.keys), *act.keys, *act.args)
        return await execute(pipe, raise_on_error=False) if acts else []

    async def _load(self, names: Iterable[str]) -> None:
        pipe = self.client.pipeline(transaction=False)
        for name in sorted(names):
            pipe.execute_command("SCRIPT LOAD", SCRIPTS[name].text)
        await execute(pipe)

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
        """Whether Redis still has the credentials and meters."""
        pipe = self.client.pipeline(transaction=False)
        pipe.exists(DIRECTORY_KEY)
        return bool((await execute(pipe))[0])

    async def open_directory(self) -> None:
        """Say that all credentials and meters are written; gateways start with an empty memory."""
        pipe = self.client.pipeline(transaction=False)
        pipe.set(DIRECTORY_KEY, 1)
        pipe.publish(INVALIDATION_CHANNEL, "*")
        await execute(pipe)

    async def epochs(self) -> list[int | None]:
        """The epoch of each shard in Redis, by number; None where the shard is not built."""
        pipe = self.client.pipeline(transaction=False)
        for lane in range(LANE_COUNT):
            pipe.mget([epoch_key(shard) for shard in range(SHARD_COUNT) if lane_of(shard) == lane])
        return [None if text is None else int(text) for lane in await execute(pipe) for text in lane]

    async def open_fresh(self, epochs: Mapping[int, int]) -> None:
        """Open shards that nobody has ever used."""
        pipe = self.client.pipeline(transaction=False)
        for shard, epoch in epochs.items():
            pipe.set(epoch_key(shard), epoch, nx=True)
        if epochs:
            await execute(pipe)

    async def shards_with_due_holds(self, shards: Sequence[int], *, instant_ms: int) -> list[int]:
        """Those of the shards where a hold's deadline has passed."""
        pipe = self.client.pipeline(transaction=False)
        for shard in shards:
            pipe.zcount(shard_holds_key(shard), "-inf", instant_ms)
        counts = await execute(pipe)
        return [shard for shard, count in zip(shards, counts, strict=True) if count]

    async def run_id(self) -> str:
        """What changes whenever the server starts anew."""
        pipe = self.client.pipeline(transaction=False)
        pipe.info("server")
        return str((await execute(pipe))[0]["run_id"])

    async def vouch(self, run_id: str) -> None:
        """Let gateways decide on the server process of that run id; one that took its place learns nothing."""
        pipe = self.client.pipeline(transaction=False)
        pipe.execute_command("SCRIPT LOAD", vouched_script(run_id))
        await execute(pipe)

    async def is_as_it_was(self, run_id: str, epochs: Sequence[int | None]) -> bool:
        """Whether the process of that run id still stands and is vouched for, with these epochs and a directory."""
        pipe = self.client.pipeline(transaction=False)
        pipe.execute_command("SCRIPT EXISTS", vouched_digest(run_id))
        (known,), found = (await execute(pipe))[0], await self.epochs()
        return bool(known) and found == epochs and await self.has_directory()


def _outcome(reply: Any) -> int | Refused:
    if isinstance(reply, ResponseError):
        return Refused(words=" ".join(str(reply).split()[:2]))
    if isinstance(reply, Exception):
        raise reply
    return int(reply)
