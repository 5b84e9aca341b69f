"""Whatever the scripts have counted, Postgres can tell again: random traffic, a picture, nothing, the same picture.

The customer has every kind of counter that there is: limits by steps, edges, lifetime and the time just gone by,
with units carried over, at several levels; tiered prices in two currencies and one that is billed later; spend
caps; gauges.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from redis.exceptions import ResponseError

from billing_core.adapters.shard_image import CustomerImage, ShardImages, ShardOpening
from billing_core.contract.keys import customer_keys, node_key, shard_of_customer
from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Snapshot,
    SpendCap,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.contract.usage_event import StreamPosition
from billing_core.flows.drift import COUNTER_LAW, drift
from billing_core.flows.recount import Fields, Recount, Subject, recounted, window_start_ms
from billing_core.store.projection import Owner
from billing_core.values.clock import system_now, to_ms
from lua.loader import SCRIPTS
from tests.integration.stream.conftest import Works

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
START_MS = to_ms(system_now()) // DAY_MS * DAY_MS
EDGES = Window(kind=WindowKind.EDGES, edges_ms=tuple(START_MS + n * 5 * HOUR_MS for n in range(-12, 200)))
HOURS = Window(kind=WindowKind.STEPS, every_ms=HOUR_MS)
DAYS = Window(kind=WindowKind.STEPS, anchor_ms=START_MS, every_ms=DAY_MS)
LIFE = Window(kind=WindowKind.LIFETIME)
ROLLING = Window(kind=WindowKind.ROLLING, every_ms=2 * HOUR_MS)
PATHS = (
    "",
    "team:ml",
    "team:ml/project:chat",
    "team:ml/project:chat/user:bob/key:k1",
    "team:ops/user:bob",
    "user:ann",
    "project:chat",
)
OWNER = Owner(tenant_id="t", customer_id="c")


def soft(name: str, window: Window, **more: int) -> Limit:
    return Limit(counter=name, units=40, ceiling=-1, window=window, **more)


def priced(code: str, currency: str, *, prepaid: bool = True) -> Tariff:
    tiers = (Tier(upto=50, nanos_per_batch=10_000), Tier(upto=0, nanos_per_batch=7, flat_nanos=3))
    return Tariff(
        price_id=code, currency=currency, package_units=3, batch=7, tiers=tiers, window=EDGES, prepaid=prepaid
    )


def capped(name: str, currency: str, window: Window, **more: int) -> SpendCap:
    return SpendCap(counter=name, currency=currency, nanos=10**9, ceiling=-1, window=window, **more)


FEATURES = {
    "calls": Entitlement(
        kind=FeatureKind.METERED,
        enabled=True,
        guard=Guard(
            limits=(
                soft("calls@hour", HOURS),
                soft("calls@edges", EDGES),
                soft("calls@life", LIFE),
                soft("calls@rolling", ROLLING),
                soft("calls@carry", HOURS, carry_units=70),
                soft("calls@edges.carry", EDGES, carry_units=100),
                soft("calls@since.carry", HOURS, carry_units=10**6, since_ms=START_MS - 5 * HOUR_MS + 1),
            )
        ),
    ),
    "tokens": Entitlement(
        kind=FeatureKind.METERED,
        enabled=True,
        guard=Guard(limits=(soft("tokens@day", DAYS, since_ms=START_MS + 60_000),)),
        tariffs=(priced("p1", "USD"), priced("p2", "EUR")),
    ),
    "later": Entitlement(kind=FeatureKind.METERED, enabled=True, tariffs=(priced("p3", "USD", prepaid=False),)),
    "seats": Entitlement(kind=FeatureKind.GAUGE, enabled=True, guard=Guard(limits=(soft("seats@lifetime", LIFE),))),
    "color": Entitlement(kind=FeatureKind.STATIC, enabled=True, static_value="blue"),
}
BUDGETS = {
    "": Budget(caps=(capped("$USD@hour", "USD", HOURS), capped("$USD@rolling", "USD", ROLLING))),
    "team:ml": Budget(
        guards={"calls": Guard(limits=(soft("calls@rolling", ROLLING), soft("calls@carry", HOURS, carry_units=9)))},
        caps=(capped("$EUR@lifetime", "EUR", LIFE),),
    ),
    "team:*": Budget(guards={"tokens": Guard(limits=(soft("tokens@edges", EDGES),))}),
    "user:*": Budget(
        guards={"calls": Guard(limits=(soft("calls@day", DAYS),))}, caps=(capped("$USD@edges", "USD", EDGES),)
    ),
    "team:ml/project:chat": Budget(caps=(capped("$USD@day", "USD", DAYS, since_ms=START_MS + 1),)),
}


def snapshot_at(offset_ms: int, version: int) -> Snapshot:
    return Snapshot(
        version=version, status=Status.ACTIVE, clock_offset_ms=offset_ms, features=FEATURES, budgets=BUDGETS
    )


class Traffic:
    """One customer's random day."""

    def __init__(self, works: Works, chance: random.Random) -> None:
        self.works = works
        self.chance = chance
        self.offset_ms = 0
        self.version = 10**6
        self.holds: list[tuple[str, str]] = []

    async def advance(self) -> None:
        """Put the tenant's clock forward, across edges of all kinds."""
        self.offset_ms += self.chance.choice((1, 61_000, 7 * 60_000, HOUR_MS, 3 * HOUR_MS, 26 * HOUR_MS))
        self.version += 1
        keys, told = customer_keys("t", "c"), snapshot_at(self.offset_ms, self.version)
        arguments = (told.version, told.status.value, told.clock_offset_ms, *snapshot_fields(told))
        applied = await self.works.valkey.fcall(
            SCRIPTS["project"].function, 2, keys.epoch, keys.snapshot, *arguments
        )
        assert applied == 1

    async def act(self) -> None:
        """One act of any kind."""
        chance = self.chance
        path, kind = chance.choice(PATHS), chance.random()
        if kind < 0.1:
            await self.advance()
        elif kind < 0.25 and self.holds:
            hold_id, feature = self.holds.pop(chance.randrange(len(self.holds)))
            await self.works.settle("c", hold_id, chance.randrange(30), feature=feature)
        elif kind < 0.4:
            feature = chance.choice(("calls", "tokens", "later"))
            with contextlib.suppress(AssertionError):  # the wallet is empty
                self.holds.append(
                    (await self.works.hold("c", chance.randrange(12), feature=feature, path=path), feature)
                )
        elif kind < 0.6:
            sign = chance.choice(("", "", "-", "="))
            with contextlib.suppress(ResponseError):  # INVALID level
                await self.works.consume("c", f"{sign}{chance.randrange(9)}", feature="seats", path=path)
        else:
            names = chance.choices(("calls", "tokens", "later", "color"), k=chance.randrange(1, 4))
            charges = [(name, chance.randrange(25)) for name in names]
            await self.works.act(chance.choice(("consume", "record")), "c", charges, path=path)

    async def end(self) -> None:
        """Close what is open, then touch every counter, so that all are in the windows of now."""
        for hold_id, feature in self.holds:
            await self.works.settle("c", hold_id, 1, feature=feature)
        for path in PATHS:
            for script in ("consume", "record"):
                await self.works.act(script, "c", [("calls", 1), ("tokens", 1), ("later", 1)], path=path)


async def nodes_in_redis(works: Works) -> dict[str, dict[str, bytes]]:
    """The customer's hashes of counters, by node."""
    counters = customer_keys("t", "c").counters
    found: dict[str, dict[str, bytes]] = {}
    for name in await works.valkey.keys(f"{counters}*"):
        fields = await works.valkey.hgetall(name)
        found[name.decode().removeprefix(counters).lstrip("/")] = {
            key.decode(): value for key, value in fields.items()
        }
    return found


def picture(nodes: Mapping[str, Mapping[str, Any]], told: Snapshot, instant_ms: int) -> dict[str, dict[str, Any]]:
    """What counts at the instant: not held units, rates, or windows that are over."""
    windows = {
        slot.name: slot for slot in Recount(Subject(owner=OWNER, snapshot=told, instant_ms=instant_ms)).slots
    }
    seen: dict[str, dict[str, Any]] = {}
    for node, fields in nodes.items():
        for field, value in fields.items():
            name, _, what = field.rpartition(":")
            slot = windows.get(name)
            if what == "g" and int(value):
                seen.setdefault(node, {})[field] = int(value)
            elif what == "b" and slot:
                flat = msgspec.msgpack.decode(value)
                size_ms = slot.window.every_ms // 60
                pairs = list(zip(flat[::2], flat[1::2], strict=True))
                live = [
                    pair
                    for pair in pairs
                    if pair[1] and (pair[0] + 1) * size_ms > instant_ms - slot.window.every_ms
                ]
                if live:
                    seen.setdefault(node, {})[field] = live
            elif what == "u" and slot and int(value):
                start_ms = window_start_ms(slot.window, instant_ms)
                assert start_ms is not None
                if int(fields[f"{name}:w"]) == max(start_ms, slot.since_ms):
                    carried = int(fields.get(f"{name}:k", 0)) if slot.carry_units else 0
                    seen.setdefault(node, {})[field] = int(value), carried
    return seen


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_counted_is_counted_again(works: Works, seed: int) -> None:
    """The hashes of the customer and of every node, from the rows of usage alone."""
    await works.customer("c")
    await works.grant("c", 900_000)
    await works.grant("c", 400_000, currency="EUR")
    await works.project()
    traffic = Traffic(works, random.Random(seed))
    await traffic.advance()
    for _ in range(150):
        await traffic.act()
    await traffic.end()
    await works.flush()
    assert await works.count("parked_entry") == 0
    assert (await drift(works.db, works.valkey)).findings == ()
    told = snapshot_at(traffic.offset_ms, traffic.version)
    at_ms = to_ms(await works.stream.now()) + traffic.offset_ms
    before = picture(await nodes_in_redis(works), told, at_ms)
    await works.valkey.flushall()
    await rebuild(works, told, at_ms)
    after = picture(await nodes_in_redis(works), told, at_ms)
    assert after == before
    assert set(before) >= {"", "team:ml", "team:ops", "user:ann", "team:ml/project:chat"}
    assert {field.rpartition(":")[2] for fields in before.values() for field in fields} == {"u", "b", "g"}


async def rebuild(works: Works, told: Snapshot, at_ms: int) -> None:
    """What the builder does with the one customer, under the snapshot of the test."""
    shard = shard_of_customer("t", "c")
    async with works.db.transaction() as tx:
        counters: dict[str, Fields] = (
            await recounted(tx, [Subject(owner=OWNER, snapshot=told, instant_ms=at_ms)])
        )[OWNER]
    images = ShardImages(works.valkey, token="test")
    await images.fence([shard])
    image = CustomerImage(tenant_id="t", customer_id="c", snapshot=told, blocks={}, counters=counters)
    assert await images.write(shard, [image])
    zero = StreamPosition(0, 0)
    assert await images.open(ShardOpening(shard=shard, epoch=2, watermark=zero, last=zero))


async def test_a_node_that_was_rebuilt_goes_when_nothing_in_it_counts(works: Works) -> None:
    """As one that the scripts have written: at the end of its last window, never while it has a level."""
    await works.customer("c")
    traffic = Traffic(works, random.Random(0))
    await traffic.advance()
    await works.act("record", "c", [("tokens", 3)], path="team:ops/user:bob")
    await works.act("record", "c", [("tokens", 3)], path="team:ml")
    await works.flush()
    told = snapshot_at(traffic.offset_ms, traffic.version)
    counters = customer_keys("t", "c").counters
    names = [node_key(counters, node) for node in ("team:ops", "team:ops/user:bob", "team:ml")]
    before = [await works.valkey.pexpiretime(name) for name in names]
    at_ms = to_ms(await works.stream.now()) + traffic.offset_ms
    await works.valkey.flushall()
    await rebuild(works, told, at_ms)
    after = [await works.valkey.pexpiretime(name) for name in names]
    step_ms = timedelta(seconds=5) // timedelta(milliseconds=1)
    assert [round(at / step_ms) for at in after] == [round(at / step_ms) for at in before]


@pytest.mark.parametrize(
    ("node", "field", "name"),
    [("", "calls@edges:u", "calls@edges"), ("team:ml", "calls@carry:u", "calls@carry"), ("", "seats:g", "seats:g")],
)
async def test_a_counter_that_drifted_is_found(works: Works, node: str, field: str, name: str) -> None:
    """By one unit, at any level; and a counter of a node that nobody has ever used."""
    await works.customer("c")
    traffic = Traffic(works, random.Random(1))
    await traffic.advance()
    await works.act("record", "c", [("calls", 3), ("seats", 2)], path="team:ml/project:chat")
    counters = customer_keys("t", "c").counters
    async with works.flusher():
        assert (await drift(works.db, works.valkey)).findings == ()
        await works.valkey.hincrby(node_key(counters, node), field, 1)
        report = await drift(works.db, works.valkey, tenant_id="t")
        assert [(one.law, one.grant_id, one.difference_nanos) for one in report.findings] == [
            (COUNTER_LAW, f"{name} of {node or 'the customer'}", -1)
        ]
        assert (report.customers, report.unchecked_shards) == (1, 0)
        assert (await drift(works.db, works.valkey, tenant_id="u")).customers == 0


async def test_what_is_not_flushed_is_waited_for_or_left_alone(works: Works) -> None:
    """Nobody flushes: the shard is not looked into, and says so."""
    await works.customer("c")
    await works.consume("c", 1, feature="requests")
    report = await drift(works.db, works.valkey)
    assert (report.customers, report.unchecked_shards, report.findings) == (0, 1, ())
