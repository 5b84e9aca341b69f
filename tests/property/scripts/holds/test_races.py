"""Many connections at one hold: one end, each part once, and nothing lost between an attempt and its replay."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from crowd import Call, at_once
from desk import decision_keys, grant_keys, hold_keys, part_keys
from shop import KEYS, Shop, body, metered, tariff

from billing_core.contract.usage_event import UsageEntry

CALLS = ("calls", 1)
CONNECTIONS = 40


def shuffled(*groups: list[Call]) -> list[Call]:
    """All calls in an order of chance."""
    calls = [call for group in groups for call in group]
    random.shuffle(calls)
    return calls


def settle(hold_id: str, units: int, digest: str = "d") -> Call:
    return "settle", hold_keys(KEYS, hold_id), (digest, 60_000, "", 1, "calls", units)


def release(hold_id: str) -> Call:
    return "release", hold_keys(KEYS, hold_id)[:3], (60_000,)


def sweep() -> Call:
    return "sweep", [KEYS.epoch, KEYS.shard_holds, KEYS.stream], (1000,)


def part(hold_id: str, units: int, key: str = "", digest: str = "d") -> Call:
    own = body((CALLS,), event_id=key) if key else b""
    return "part", part_keys(KEYS, hold_id, key), (digest, 60_000 if key else 0, own, 0, 1, "calls", units)


def extend(hold_id: str, units: int, key: str = "") -> Call:
    keys = part_keys(KEYS, hold_id, key)
    return "extend", [*keys[:3], keys[4]], ("d", 60_000 if key else 0, 60_000, 0, 1, "calls", units)


def consume(units: int, key: str, digest: str = "d") -> Call:
    return (
        "consume",
        decision_keys(KEYS, key),
        (digest, 60_000, 60_000, body((CALLS,), event_id=key), "", 0, 0, 1, "calls", units),
    )


def open_shop(shop: Shop, amount: int = 10_000) -> None:
    shop.project(calls=metered(tariff(10), limit_units=100_000))
    shop.grant("grant_a", amount)


def require_whole(shop: Shop, amount: int = 10_000) -> list[UsageEntry]:
    """No nano is lost, nothing is held by nobody, and no event is there twice."""
    entries = shop.entries()
    moved = sum(movement.nanos for entry in entries for movement in entry.movements)
    assert shop.wallet("r:grant_a") + shop.wallet("h:grant_a") + moved == amount
    units = sum(charge.quantity for entry in entries for charge in entry.charges)
    assert (shop.counter("c@ever:u"), shop.counter("$p:u")) == (units, units)
    if not shop.desk.client.exists(KEYS.holds):
        assert (shop.wallet("h:grant_a"), shop.counter("c@ever:h"), shop.counter("$p:h")) == (0, 0, 0)
    ids = [entry.body.event_id for entry in entries]
    assert len(set(ids)) == len(ids)
    return entries


async def test_of_many_different_settles_one_wins(shop: Shop, valkey_server: str) -> None:
    """The others that asked the same are told the same; all others that they came too late."""
    open_shop(shop)
    hold_id = shop.hold(("calls", 30))[10]
    replies = await at_once(valkey_server, [settle(hold_id, n % 8, f"d{n % 8}") for n in range(CONNECTIONS)])
    assert Counter(reply[:2] for reply in replies) == {("settled", 0): 1, ("settled", 1): 4, ("conflict", 0): 35}
    assert len(require_whole(shop)) <= 1


@pytest.mark.parametrize("on_expiry", ["release", "charge"])
async def test_settles_race_with_the_sweeper(shop: Shop, valkey_server: str, on_expiry: str) -> None:
    """At the deadline: one ends the hold, and it is charged once; late where the deadline had released it."""
    open_shop(shop)
    hold_ids = [shop.due_hold(("calls", 5), on_expiry=on_expiry, event_id=f"h{n}") for n in range(10)]
    settles = [settle(hold_id, 7) for hold_id in hold_ids for _ in range(3)]
    replies = await at_once(valkey_server, shuffled(settles, [sweep()] * 10))
    told = [reply for reply in replies if isinstance(reply, tuple)]
    expected = ("late", 7) if on_expiry == "release" else ("expired", 5)
    assert {reply[0] for reply in told} == {expected[0]}
    entries = require_whole(shop)
    assert [entry.charges[0].quantity for entry in entries] == [expected[1]] * 10
    assert all(reply[4] == 10 * expected[1] for reply in told)


async def test_settles_race_with_a_deadline_that_passes(shop: Shop, valkey_server: str) -> None:
    """Some come before it and some behind; every hold is charged exactly once all the same."""
    open_shop(shop)
    hold_ids = [shop.hold(("calls", 5), ttl_ms=1 + n, event_id=f"h{n}")[10] for n in range(20)]
    settles = [settle(hold_id, 7) for hold_id in hold_ids for _ in range(2)]
    replies = await at_once(valkey_server, shuffled(settles, [sweep()] * 10))
    told = Counter(reply[:2] for reply in replies if isinstance(reply, tuple))
    assert set(told) <= {("settled", 0), ("settled", 1), ("late", 0), ("late", 1)}
    assert told[("settled", 0)] + told[("late", 0)] == 20
    assert [entry.charges[0].quantity for entry in require_whole(shop)] == [7] * 20


async def test_releases_race_with_settles(shop: Shop, valkey_server: str) -> None:
    """Everybody is told the one end."""
    open_shop(shop)
    hold_ids = [shop.hold(("calls", 5), event_id=f"h{n}")[10] for n in range(10)]
    calls = shuffled(*([settle(one, 4), settle(one, 4), release(one), release(one)] for one in hold_ids))
    replies = await at_once(valkey_server, calls)
    by_hold: dict[str, set[Any]] = {}
    for call, reply in zip(calls, replies, strict=True):
        by_hold.setdefault(call[1][1], set()).add((reply[0], *reply[2:]))
    assert all(len(told) == 1 for told in by_hold.values())
    settled = sum(next(iter(told))[0] == "settled" for told in by_hold.values())
    assert len(require_whole(shop)) == settled


async def test_parts_race_with_a_settle(shop: Shop, valkey_server: str) -> None:
    """A part is charged before the end or not at all; its retry is told what was done."""
    open_shop(shop)
    hold_id = shop.hold(("calls", 30))[10]
    parts = [part(hold_id, 1, f"k{n}") for n in range(15) for _ in range(2)]
    calls = shuffled(parts, [settle(hold_id, 2)] * 3)
    replies = await at_once(valkey_server, calls)
    told = Counter((call[0], *reply[:2]) for call, reply in zip(calls, replies, strict=True))
    assert told["settle", "settled", 0] == 1
    charged = told["part", "charged", 0]
    assert (told["part", "charged", 1], told["part", "settled", 0]) == (charged, 30 - 2 * charged)
    quantities = Counter(entry.charges[0].quantity for entry in require_whole(shop))
    assert quantities == {1: charged, 2: 1} if charged else {2: 1}


async def test_parts_and_extensions_at_once_lose_nothing(shop: Shop, valkey_server: str) -> None:
    """Each is its own step; held is what was added and not used."""
    open_shop(shop)
    hold_id = shop.hold(("calls", 30))[10]
    calls = shuffled([part(hold_id, 1)] * 20, [extend(hold_id, 2, f"x{n}") for n in range(10) for _ in range(2)])
    await at_once(valkey_server, calls)
    require_whole(shop)
    assert (shop.counter("c@ever:u"), shop.counter("c@ever:h"), shop.wallet("h:grant_a")) == (20, 30, 300)
    assert shop.settle(hold_id)[4:6] == (300, 0)
    require_whole(shop)


async def test_attempts_and_their_replays_are_charged_once(shop: Shop, valkey_server: str) -> None:
    """Whichever comes first; each finds an answer of its own shape, and another request under it a conflict."""
    open_shop(shop, 100_000)
    lease_id = shop.hold(("calls", 200))[10]
    keys = [f"k{n}" for n in range(15)]
    calls = shuffled(
        [consume(3, key) for key in keys],
        [part(lease_id, 3, key) for key in keys],
        [consume(9, key, "other") for key in keys[:5]],
    )
    replies = await at_once(valkey_server, calls)
    by_key: dict[str, Counter[Any]] = {}
    for call, reply in zip(calls, replies, strict=True):
        key = call[1][-1].rpartition(":")[2]
        by_key.setdefault(key, Counter())[reply if isinstance(reply, str) else (call[0], *reply[:2])] += 1
    for told in by_key.values():
        attempt_first = {("consume", "allowed", 0): 1, ("part", "decided", 1): 1}
        replay_first = {("consume", "allowed", 1): 1, ("part", "charged", 0): 1}
        other_first = {("consume", "allowed", 0): 1, "CONFLICT idempotency": 2}
        if told["CONFLICT idempotency"] == 1:
            del told["CONFLICT idempotency"]
        assert dict(told) in (attempt_first, replay_first, other_first)
    assert len(require_whole(shop, 100_000)) == 15
    assert len(by_key) == 15


async def test_attempts_under_one_key_have_one_answer(shop: Shop, valkey_server: str) -> None:
    """Money comes in between: some keys are refused and some are allowed, and nobody is told both."""
    open_shop(shop, 0)
    keys = [f"k{n}" for n in range(8)]
    terms = 0, 0, 0, 1, 0, "", body(())
    grants: list[Call] = [("grant", grant_keys(KEYS), ("USD", f"more_{n}", 30, *terms)) for n in range(4)]
    replies = list[tuple[str, Any]]()
    for _ in range(3):
        calls = shuffled([consume(3, key) for key in keys for _ in range(4)], grants)
        told = await at_once(valkey_server, calls)
        replies += [(call[1][-1], reply) for call, reply in zip(calls, told, strict=True) if call[0] == "consume"]
    answers = {(key, (reply[0], *reply[2:])) for key, reply in replies}
    assert len(answers) == len(keys)
    allowed = [told for _, told in answers if told[0] == "allowed"]
    assert len(shop.entries()) == len(allowed) <= 4


async def test_a_late_settle_is_charged_once_however_often_it_comes(shop: Shop, valkey_server: str) -> None:
    """The first of them; the same again gets its answer, others a conflict."""
    open_shop(shop)
    hold_id = shop.due_hold(("calls", 5), on_expiry="release")
    calls = [settle(hold_id, 6, f"d{n % 4}") for n in range(CONNECTIONS)]
    replies = await at_once(valkey_server, calls)
    assert Counter(reply[:2] for reply in replies) == {("late", 0): 1, ("late", 1): 9, ("conflict", 0): 30}
    assert [entry.charges[0].quantity for entry in require_whole(shop)] == [6]
