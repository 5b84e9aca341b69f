"""A slot that moves key by key, and a hold that ends meanwhile: it ends whole or not at all.

Whoever ends a hold names a few keys; the script learns the others as it runs. So the server lets it begin although
some of them are elsewhere by now, and the script itself has to stop before its first write. Each of a hold's keys
is taken away in turn, for each act and each sort of hold; then the rest follows, and the act is done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import redis

from billing_core.adapters.redis_library import furnish
from billing_core.contract.cluster import slot_of
from billing_core.contract.keys import customer_keys, hold_key, new_hold_id
from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Snapshot,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.contract.usage_event import EventBody, encode_body
from lua.loader import SCRIPTS
from tests.embedded_cluster import EmbeddedCluster, Node

KEYS = customer_keys("t", "c")
HOLD_ID = new_hold_id(KEYS.shard)
HOLD = hold_key(HOLD_ID, KEYS.shard)
ANSWER = f"{KEYS.idempotency_prefix}k"
PATH = "team:ml/key:k1"
NODES = {f"{KEYS.counters}/{node}" for node in ("team:ml", PATH)}
DECIDED = (
    *(KEYS.epoch, KEYS.snapshot, KEYS.counters, KEYS.wallet, KEYS.stream, KEYS.holds, KEYS.shard_holds),
    ANSWER,
)
BODY = encode_body(EventBody(event_id="e", tenant_id="t", customer_id="c", features=("calls",)))
FOREVER = Window(kind=WindowKind.LIFETIME)
TARIFF = Tariff(
    price_id="p",
    currency="USD",
    package_units=1,
    batch=1,
    tiers=(Tier(upto=0, nanos_per_batch=10),),
    window=FOREVER,
)
GUARD = Guard(limits=(Limit(counter="calls@ever", units=100, ceiling=100, window=FOREVER),), concurrent=9)
FREE = Entitlement(kind=FeatureKind.METERED, enabled=True, guard=GUARD)
PRICED = msgspec.structs.replace(FREE, tariffs=(TARIFF,))
BARE = msgspec.structs.replace(FREE, guard=Guard())

SCENES = {
    "priced": (PRICED, PRICED, 0),
    "its limits are gone": (FREE, BARE, 0),
    "placed empty by shadow mode": (PRICED, PRICED, 1),
}
"""The feature when the hold is placed, and when it ends; whether it is asked for in shadow mode."""

ACTS: dict[str, tuple[str, tuple[str, ...], tuple[Any, ...], int]] = {
    "settle": (
        "settle",
        (KEYS.epoch, HOLD, KEYS.shard_holds, KEYS.stream),
        ("d", 60_000, "", 1, "calls", 3),
        600_000,
    ),
    "release": ("release", (KEYS.epoch, HOLD, KEYS.shard_holds), (60_000,), 600_000),
    "expiry": ("sweep", (KEYS.epoch, KEYS.shard_holds, KEYS.stream), (10,), 1),
    "part": (
        "part",
        (KEYS.epoch, HOLD, KEYS.shard_holds, KEYS.stream, ANSWER),
        ("d", 60_000, BODY, 900_000, 1, "calls", 3),
        600_000,
    ),
}
"""Script, keys, arguments, and how long the hold has."""
DONE = {"settle": b"settled", "release": b"released", "part": b"charged"}


class Corner:
    """The customer's slot, who serves it, and where it is to go."""

    def __init__(self, cluster: EmbeddedCluster, source: Node, target: Node) -> None:
        self.cluster, self.source, self.target = cluster, source, target
        self.ends = {"source": source, "target": target}
        self.slot = slot_of(KEYS.epoch)

    async def run(self, node: Node, name: str, keys: tuple[str, ...], args: tuple[Any, ...]) -> Any:
        reply = await node.client.execute_command(*SCRIPTS[name].call(keys, args))
        return msgspec.msgpack.decode(reply) if isinstance(reply, bytes) else reply

    async def set_scene(self, scene: str, *, ttl_ms: int) -> None:
        """A hold, some usage before it, and a refusal under the key of the part."""
        for node in self.ends.values():
            await node.client.execute_command("CLUSTER", "SETSLOT", self.slot, "STABLE")
            await node.client.flushall()
        first, last, shadow = SCENES[scene]
        await self.source.client.set(KEYS.epoch, 1)
        await self.project(1, first)
        grant = "USD", "g", 1_000, 0, 0, 0, 1, 0, "", BODY
        await self.run(self.source, "grant", (KEYS.epoch, KEYS.snapshot, KEYS.wallet, KEYS.stream), grant)
        asked = BODY, PATH, 0, 0, 1, "calls"
        assert (await self.run(self.source, "consume", DECIDED, ("", 0, 0, *asked, 7)))[0] == "allowed"
        refused = await self.run(self.source, "consume", DECIDED, ("d", 600_000, 600_000, *asked, 101))
        assert refused[0] == "limit_reached"
        units, terms = 101 if shadow else 5, (HOLD_ID, ttl_ms, "charge", 1, "calls")
        keys = (*DECIDED, HOLD)
        held = await self.run(self.source, "hold", keys, ("", 0, 0, BODY, PATH, 0, shadow, *terms, units))
        assert (held[0], held[12]) == ("allowed", "limit_reached" if shadow else "")
        await self.project(2, last)
        while ttl_ms == 1 and await self.now_ms() <= held[9]:
            pass

    async def project(self, version: int, calls: Entitlement) -> None:
        budgets = {"team:ml": Budget(guards={"calls": calls.guard}), "key:*": Budget(guards={"calls": calls.guard})}
        told = Snapshot(
            version=version, status=Status.ACTIVE, clock_offset_ms=0, features={"calls": calls}, budgets=budgets
        )
        args = version, "active", 0, *snapshot_fields(told)
        assert await self.run(self.source, "project", (KEYS.epoch, KEYS.snapshot), args) == 1

    async def now_ms(self) -> int:
        seconds, micros = await self.source.client.time()
        return seconds * 1_000 + micros // 1_000

    async def begin(self, *names: str) -> None:
        """Begin the move; these keys go first."""
        await self.cluster.begin_move(self.slot, source=self.source, target=self.target)
        words = ("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5_000, "KEYS", *names)
        assert await self.source.client.execute_command(*words) == b"OK"

    async def finish(self) -> None:
        """Let the rest follow."""
        while await self.cluster.move_keys(self.slot, source=self.source, target=self.target, most=100):
            pass
        await self.cluster.end_move(self.slot, source=self.source, target=self.target)

    async def picture(self) -> dict[tuple[str, bytes], bytes]:
        """Every key of both."""
        found: dict[tuple[str, bytes], bytes] = {}
        for end, node in self.ends.items():
            for name in await node.client.keys("*"):
                pipe = node.client.pipeline(transaction=False)
                pipe.execute_command("ASKING")
                pipe.execute_command("DUMP", name)
                found[end, name] = (await pipe.execute())[1]
        return found


@pytest.fixture
async def corner(cluster: EmbeddedCluster) -> AsyncIterator[Corner]:
    source = await cluster.owner(KEYS.epoch)
    target = next(one for one in await cluster.primaries() if one is not source)
    for node in (source, target):
        await furnish(node.client)
    made = Corner(cluster, source, target)
    yield made
    if await cluster.owner(KEYS.epoch) is target:
        await cluster.move(made.slot, source=target, target=source)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("act", ACTS)
async def test_the_end_of_a_hold_stops_before_its_first_write(corner: Corner, act: str, scene: str) -> None:
    """Whichever of its keys is elsewhere; what needs none that is elsewhere is done. Once all are there, all is."""
    name, keys, args, ttl_ms = ACTS[act]
    await corner.set_scene(scene, ttl_ms=ttl_ms)
    names, stopped = sorted({key.decode() for _, key in await corner.picture()}), set[str]()
    if act != "part":
        names.remove(ANSWER)
    for moved in names:
        await corner.set_scene(scene, ttl_ms=ttl_ms)
        await corner.begin(moved)
        before = await corner.picture()
        try:
            reply = await corner.run(corner.source, name, keys, args)
        except redis.ResponseError:
            assert await corner.picture() == before
            stopped.add(moved)
        else:
            assert is_done(name, reply)
    read = {KEYS.snapshot, KEYS.counters, KEYS.wallet, KEYS.holds, HOLD}
    assert stopped >= (read if SCENES[scene][2] else read | NODES)
    assert set(names) - stopped <= {KEYS.stream, ANSWER, *NODES}
    await corner.set_scene(scene, ttl_ms=ttl_ms)
    await corner.begin(KEYS.holds)
    await corner.finish()
    reply = await corner.run(corner.target, name, keys, args)
    assert is_done(name, reply)


def is_done(name: str, reply: Any) -> bool:
    """Whether the act came to its end."""
    return reply == 1 if name == "sweep" else reply[:2] == [DONE[name], 0]
