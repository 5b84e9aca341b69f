"""Slots move between primaries while decisions go on: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing_core.contract.cluster import slot_of
from billing_core.contract.keys import epoch_key, shard_of_customer
from tests.chaos.cluster.conftest import Town
from tests.chaos.stream.conftest import Hands
from tests.embedded_cluster import EmbeddedCluster, Node, until

NAMES = [f"c{number}" for number in range(6)]


@pytest.fixture
async def busy(town: Town, hands: Hands) -> Town:
    await town.settle(NAMES)
    for roles in ("relay", "flush"):
        await hands.start(roles)
    return town


def key_of(name: str) -> str:
    return epoch_key(shard_of_customer("t", name))


async def ends(cluster: EmbeddedCluster, key: str) -> tuple[int, Node, Node]:
    """The slot of a key, who serves it, and some other primary."""
    source = await cluster.owner(key)
    return slot_of(key), source, next(one for one in await cluster.primaries() if one is not source)


async def test_a_slot_that_moves_as_a_whole_is_followed(busy: Town, cluster: EmbeddedCluster) -> None:
    """There and back again, with a hold that is placed here and settled there."""
    slot, source, target = await ends(cluster, key_of(NAMES[0]))
    held = {"key": f"tgk_{NAMES[0]}", "feature": "input_tokens", "quantity": 5, "mode": "hold", "ttl_ms": 600_000}
    async with busy.under_load():
        await busy.served()
        _, answer, _ = await busy.call("/v1/check", held)
        await cluster.move(slot, source=source, target=target)
        await busy.served()
        path = f"/v1/holds/{answer['hold']['id']}/settle"

        async def is_settled() -> bool:
            return (await busy.call(path, {}))[0] == 200

        await until(is_settled)
        busy.answered[answer["decision_id"]] += 1
        await cluster.move(slot, source=target, target=source)
        await busy.served()
    assert await busy.is_exact() == set()
    assert busy.refused.keys() <= {"unavailable"}


async def test_a_slot_that_moves_key_by_key_is_not_served_in_halves(busy: Town, cluster: EmbeddedCluster) -> None:
    """While some of its keys are here and others there its customers are refused, and all others are not."""
    slot, source, target = await ends(cluster, key_of(NAMES[0]))
    async with busy.under_load():
        await busy.served()
        await cluster.begin_move(slot, source=source, target=target)
        while await cluster.move_keys(slot, source=source, target=target, most=1):
            await asyncio.gather(*(busy.ask(name) for name in NAMES))
        await cluster.end_move(slot, source=source, target=target)
        await busy.served()
    assert await busy.is_exact() == set()
    assert busy.refused.keys() <= {"unavailable"}
    await cluster.move(slot, source=target, target=source)


async def test_the_order_of_a_pipeline_survives_a_move(cluster: EmbeddedCluster, valkey: Any) -> None:
    """Its client learns of the move by the replies: the slot is elsewhere for good, or some of its keys are."""
    key = "{moving}list"
    slot, source, target = await ends(cluster, key)

    async def append(*words: str) -> list[int]:
        pipe = valkey.pipeline()
        for word in words:
            pipe.append(key, word)
            pipe.append("elsewhere", word)
        return (await pipe.execute())[::2]

    assert await append("a", "b") == [1, 2]
    await cluster.move(slot, source=source, target=target)
    assert await append("c", "d", "e") == [3, 4, 5]
    await cluster.begin_move(slot, source=target, target=source)
    while await cluster.move_keys(slot, source=target, target=source, most=10):
        pass
    assert await append("f", "g") == [6, 7]
    await cluster.end_move(slot, source=target, target=source)
    assert await append("h") == [8]
    assert (await valkey.get(key), await valkey.get("elsewhere")) == (b"abcdefgh", b"abcdefgh")


async def test_the_server_counts_slots_as_we_do(cluster: EmbeddedCluster) -> None:
    """Tags, empty tags, no tags."""
    for key in ("a", "{s0421}:epoch", "a{}b", "{}", "{{a}b", "x{a}{b}", "{a", "ä{ö}"):
        assert await cluster.nodes[0].client.execute_command("CLUSTER", "KEYSLOT", key) == slot_of(key)
