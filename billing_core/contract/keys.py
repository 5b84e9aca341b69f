"""Names in Redis, and what stands behind an API key.

A customer belongs to one of 1,024 shards by a hash that never changes. All keys of a customer, and the usage
stream of the shard, carry the hash tag `{sNNNN}`, so that one script may touch them all in one step and Redis
Cluster may spread the shards. A client-sent event belongs to the shard of its own id, because that is what must
be unique; the ids of a tenant are spread over 16 shards only, one in each lane, so that many events of one request
go to the same.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from enum import StrEnum
from functools import lru_cache

import msgspec

SHARD_COUNT = 1024
LANE_COUNT = 16
"""Shards are leased to flushers in lanes of 64."""

INVALIDATION_CHANNEL = "tg:invalidate"

DIRECTORY_KEY = "tg:directory"
"""There while all credentials and meters of Postgres are known to Redis."""


ANSWERED_KEY = "tg:answered"
"""The numbers of the shards that have something under `answered_key`."""

SLICES_PREFIX = "slices:"
_SLICE_MARK, _MARK_AT = "511ce511c", 8


def slices_push(tenant_id: str, customer_id: str) -> str:
    """The push message by which every gateway gives back what it has set aside of this customer's units."""
    return f"{SLICES_PREFIX}{tenant_id}:{customer_id}"


_TENANTS_KNOWN = 4_096


class Role(StrEnum):
    """What a credential may do at the data plane."""

    CALLER = "caller"
    OPERATOR = "operator"


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway knows of a credential. Shape in Redis: msgpack map under `api_key_name`."""

    tenant_id: str
    role: Role
    customer_id: str = ""
    hint: str = ""
    path: tuple[str, ...] = ()


def digest_of(credential: str) -> str:
    """What is stored instead of the credential: sha256, hexadecimal."""
    return hashlib.sha256(credential.encode()).hexdigest()


def shard_of_customer(tenant_id: str, customer_id: str) -> int:
    """The customer's shard, for good."""
    return zlib.crc32(f"{tenant_id}:{customer_id}".encode()) % SHARD_COUNT


@lru_cache(maxsize=_TENANTS_KNOWN)
def shards_of_events(tenant_id: str) -> tuple[int, ...]:
    """Where the ids of the tenant's client-sent events are kept unique: one shard in each lane."""
    first = zlib.crc32(tenant_id.encode())
    return tuple((first + SHARD_COUNT // LANE_COUNT * lane) % SHARD_COUNT for lane in range(LANE_COUNT))


def shard_of_event(tenant_id: str, event_id: str) -> int:
    """The shard that keeps a client-sent event's id unique, for good."""
    return shards_of_events(tenant_id)[zlib.crc32(event_id.encode()) % LANE_COUNT]


def lane_of(shard: int) -> int:
    """The lease lane of a shard."""
    return shard * LANE_COUNT // SHARD_COUNT


def new_hold_id(shard: int) -> str:
    """An unguessable hold id that says where the hold lives: `hold_`, 3 hex digits of shard, 29 of chance."""
    return f"hold_{shard:03x}{secrets.token_hex(15)[:29]}"


def new_slice_id(shard: int) -> str:
    """The id of a hold that a gateway takes to decide on by itself; 20 digits of chance behind a mark."""
    return f"hold_{shard:03x}{_SLICE_MARK}{secrets.token_hex(10)}"


def is_slice(hold_id: str) -> bool:
    """Whether it is such a hold; another one looks so once in 2^36."""
    return hold_id.startswith(_SLICE_MARK, _MARK_AT)


def shard_of_hold(hold_id: str) -> int | None:
    """The shard a hold id names, or None where the text is no hold id."""
    digits = hold_id[5:]
    if len(hold_id) != 37 or not hold_id.startswith("hold_") or not set(digits) <= set("0123456789abcdef"):
        return None
    shard = int(digits[:3], 16)
    return shard if shard < SHARD_COUNT else None


def tag(shard: int) -> str:
    """The hash tag of a shard: `{s0421}`."""
    return f"{{s{shard:04d}}}"


def api_key_name(digest: str) -> str:
    """Where a credential's KeyRecord lives."""
    return f"tg:key:{digest}"


def meters_key(tenant_id: str) -> str:
    """Which events the tenant's meters read: msgpack map of event name -> {field: digits after the point}."""
    return f"tg:meters:{tenant_id}"


def vouched_script(process: str) -> str:
    """A script that does nothing, known to the server process of that name once a builder has looked at it.

    Scripts are neither stored nor replicated, and the name changes with every reign of a process as primary. So
    neither a server that has just started, perhaps from an old copy, nor a replica that was just promoted knows it,
    and no gateway asks them for decisions before somebody has compared their streams with what Postgres has.
    """
    return f"return 'tallygate has looked at {process}'"


def vouched_digest(process: str) -> str:
    """What the server calls that script."""
    return hashlib.sha1(vouched_script(process).encode(), usedforsecurity=False).hexdigest()


def epoch_key(shard: int) -> str:
    """The shard's epoch; absent while the shard is not built."""
    return f"{tag(shard)}:epoch"


def told_key(shard: int) -> str:
    """How often the billing side has told the shard something; Postgres keeps the same count."""
    return f"{tag(shard)}:told"


def answered_key(shard: int) -> str:
    """What gateways say they have answered of the shard, since another server process took it over."""
    return f"{tag(shard)}:answered"


def build_key(shard: int) -> str:
    """The mark of who is rebuilding the shard; absent otherwise."""
    return f"{tag(shard)}:build"


def stream_key(shard: int) -> str:
    """The shard's usage stream."""
    return f"{tag(shard)}:usage"


def shard_holds_key(shard: int) -> str:
    """Deadlines of all holds of a shard, for the sweeper."""
    return f"{tag(shard)}:holds"


def hold_key(hold_id: str, shard: int) -> str:
    """One hold's state."""
    return f"{tag(shard)}:hold:{hold_id}"


def event_ids_key(tenant_id: str, shard: int) -> str:
    """How the names of the hashes begin that keep the ids of client-sent events, and a digest of each."""
    return f"{tag(shard)}:evt:{tenant_id}:"


class CustomerKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The names of everything that Redis keeps of one customer."""

    shard: int
    epoch: str
    stream: str
    shard_holds: str
    snapshot: str
    counters: str
    wallet: str
    holds: str
    idempotency_prefix: str


def customer_keys(tenant_id: str, customer_id: str) -> CustomerKeys:
    """All names for one customer; pure, so a gateway may cache them beside the key."""
    shard = shard_of_customer(tenant_id, customer_id)
    mark, owner = tag(shard), f"{tenant_id}:{customer_id}"
    return CustomerKeys(
        shard=shard,
        epoch=epoch_key(shard),
        stream=stream_key(shard),
        shard_holds=shard_holds_key(shard),
        snapshot=f"{mark}:snap:{owner}",
        counters=f"{mark}:use:{owner}",
        wallet=f"{mark}:wal:{owner}",
        holds=f"{mark}:chd:{owner}",
        idempotency_prefix=f"{mark}:idem:{owner}:",
    )


def node_key(counters: str, node: str) -> str:
    """The counters of a node below the customer whose own are under that name; the customer is the node ""."""
    return f"{counters}/{node}" if node else counters
