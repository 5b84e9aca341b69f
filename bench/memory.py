"""Claim: how many bytes of Valkey a customer takes, a hold, an idempotency key, a stream entry, an event's id.

Many customers are put into an embedded Valkey by the scripts themselves, then each of them decides, holds, decides
under a key; after every stage the server's own `used_memory` is read, and what it grew by is shared among what was
made. Beside it stands MEMORY USAGE of the keys of a sample: that is the keys alone, without the server's tables.
What a million customers need is extrapolated from that growth, and said to be.

A customer here has three features (one limited; one limited and priced; a switch), one grant, one key, and counters
of both features. Shards cost what they cost once, apart.

    python -m bench.memory [--customers 50000]
"""

from __future__ import annotations

import argparse
import random
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import redis

from bench.apparatus.counter import Counter
from bench.apparatus.ground import tell
from billing_core.contract.keys import (
    SHARD_COUNT,
    CustomerKeys,
    KeyRecord,
    Role,
    api_key_name,
    customer_keys,
    digest_of,
    epoch_key,
    event_ids_key,
    shards_of_events,
    stream_key,
)
from billing_core.contract.usage_event import encode_client_body, encode_record
from gateway.command.embedded.valkey import start_valkey
from lua.loader import SCRIPTS

AT_ONCE = 500
SAMPLE = 500
MILLION = 1_000_000
EVENTS_AT_ONCE, EVENTS_EACH = 100, 10

Words = tuple[Any, ...]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What is made for each customer; `pattern` finds the keys that are its own."""

    name: str
    pattern: str
    calls: Callable[[CustomerKeys], list[Words]]


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """What one of a kind costs. `key_bytes` is MEMORY USAGE of its keys alone; 0 where it has none of its own."""

    keys: float
    bytes: float
    key_bytes: float


def stages(counter: Counter) -> list[Stage]:
    """In this order, each on top of the one before."""
    return [
        Stage(name="customer", pattern="*:snap:*", calls=counter.entry),
        Stage(
            name="counters",
            pattern="*:use:*",
            calls=lambda keys: [counter.call("consume", "two charges", keys=keys)],
        ),
        Stage(name="credential", pattern="tg:key:*", calls=credential),
        Stage(name="hold", pattern="*:hold:*", calls=lambda keys: [counter.hold(keys)]),
        Stage(name="idempotency key", pattern="*:idem:*", calls=lambda keys: [counter.keyed(keys)]),
    ]


def credential(keys: CustomerKeys) -> list[Words]:
    """What a gateway reads of an API key."""
    record = KeyRecord(tenant_id="bench", role=Role.CALLER, customer_id=keys.wallet[-10:], hint="abcd")
    return [("SET", api_key_name(digest_of(keys.wallet)), msgspec.msgpack.encode(record))]


def run_all(client: redis.Redis, calls: Iterable[Words]) -> None:
    """All calls in pipelines. Raises: redis.ResponseError, the first."""
    pipe = client.pipeline(transaction=False)
    for number, call in enumerate(calls, start=1):
        pipe.execute_command(*call)
        if number % AT_ONCE == 0:
            pipe.execute()
    pipe.execute()


def event_calls(count: int) -> Iterator[Words]:
    """So many client-sent events of one tenant, as a gateway sends them, a hundred in a call."""
    places = shards_of_events("bench")
    for first in range(0, count, EVENTS_AT_ONCE):
        shard = places[first // EVENTS_AT_ONCE % len(places)]
        names = [f"event-{number:012}" for number in range(first, min(first + EVENTS_AT_ONCE, count))]
        body = encode_client_body("bench", [encode_record((name, "llm", 0, "c", {})) for name in names])
        ids = [word for name in names for word in (name, secrets.token_bytes(16))]
        keys = epoch_key(shard), stream_key(shard), event_ids_key("bench", shard)
        yield SCRIPTS["ingest"].call(keys, (3_600_000, 0, body, *ids))


def used_bytes(client: redis.Redis) -> int:
    """The server's own count."""
    return cast("dict[str, int]", client.info("memory"))["used_memory"]


def forget_entries(client: redis.Redis) -> None:
    """Trim the streams, as a flusher does."""
    run_all(client, (("XTRIM", stream_key(shard), "MAXLEN", 0) for shard in range(SHARD_COUNT)))


def sampled_bytes(client: redis.Redis, pattern: str) -> float:
    """MEMORY USAGE of keys of a pattern, each counted whole, on average."""
    names = list(cast("Iterator[bytes]", client.scan_iter(match=pattern, count=10_000)))
    some = random.Random(1).sample(names, min(SAMPLE, len(names)))
    sizes = [client.memory_usage(name.decode(), samples=0) or 0 for name in some]
    return sum(sizes) / max(1, len(sizes))


def measure(folder: Path, *, customers: int) -> None:
    """Stage after stage, and the difference that each made."""
    server = start_valkey(folder, appendfsync="no", options=("--appendonly", "no"))
    client = redis.Redis.from_url(server.url)
    counter = Counter(client)
    owners = [customer_keys("bench", f"customer-{number:07}") for number in range(customers)]
    empty = used_bytes(client)
    run_all(client, (("SET", epoch_key(shard), 1) for shard in range(SHARD_COUNT)))
    run_all(client, (("XADD", stream_key(shard), "*", "k", "v") for shard in range(SHARD_COUNT)))
    forget_entries(client)
    shards = used_bytes(client) - empty
    grown: dict[str, Growth] = {}
    for stage in stages(counter):
        before, keys_before = used_bytes(client), client.dbsize()
        run_all(client, (call for owner in owners for call in stage.calls(owner)))
        forget_entries(client)
        grown[stage.name] = Growth(
            keys=(client.dbsize() - keys_before) / customers,
            bytes=round((used_bytes(client) - before) / customers, 1),
            key_bytes=round(sampled_bytes(client, stage.pattern), 1),
        )
    before = used_bytes(client)
    run_all(client, (counter.call("consume", "price and limit", keys=owner) for owner in owners))
    grown["stream entry"] = Growth(keys=0, bytes=round((used_bytes(client) - before) / customers, 1), key_bytes=0)
    forget_entries(client)
    before = used_bytes(client)
    run_all(client, event_calls(customers * EVENTS_EACH))
    forget_entries(client)
    each = round((used_bytes(client) - before) / (customers * EVENTS_EACH), 1)
    grown["event id"] = Growth(keys=0, bytes=each, key_bytes=0)
    told(client, grown, customers=customers, shards=shards)
    server.stop()


def told(client: redis.Redis, grown: dict[str, Growth], *, customers: int, shards: int) -> None:
    """Figures as measured, and what a million customers at rest would need."""
    at_rest = sum(grown[name].bytes for name in ("customer", "counters", "credential"))
    tell(
        "memory",
        {
            "customers": customers,
            "unit": "bytes",
            "each": {name: msgspec.structs.asdict(growth) for name, growth in grown.items()},
            "wallet_key_bytes": round(sampled_bytes(client, "*:wal:*"), 1),
            "shards_once": shards,
            "customer_at_rest": round(at_rest, 1),
            "million_customers_mib": {
                "at_rest, extrapolated": round((at_rest * MILLION + shards) / 2**20),
                "measured_mib_of_these": round(used_bytes(client) / 2**20, 1),
                "each with a hold and a key, extrapolated": round(
                    ((at_rest + grown["hold"].bytes + grown["idempotency key"].bytes) * MILLION + shards) / 2**20
                ),
            },
        },
    )


def main() -> None:
    """Read the size of the run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=50_000)
    told_so = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        measure(Path(folder), customers=told_so.customers)


if __name__ == "__main__":
    main()
