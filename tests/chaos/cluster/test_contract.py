"""The decision contract of a gateway, on a cluster: the very tests that a single server passes."""

from __future__ import annotations

from typing import Any

from billing_core.adapters.projection import Projection, project_snapshot
from billing_core.contract.keys import SHARD_COUNT, KeyRecord, Role, epoch_key, shard_of_event
from billing_core.contract.snapshot import Snapshot, Status
from lua.library import LISTING, listed_names
from lua.loader import LIBRARY
from tests.embedded_cluster import EmbeddedCluster
from tests.integration.gateway.test_check import *  # noqa: F403
from tests.integration.gateway.test_event import (
    event,
    send,
    test_a_known_id_with_other_content_is_refused,
    test_an_array_is_answered_event_by_event_in_order,
    test_an_event_is_taken_once,
)
from tests.integration.gateway.test_hold import *  # noqa: F403

__all__ = [
    "send",
    "test_a_known_id_with_other_content_is_refused",
    "test_an_array_is_answered_event_by_event_in_order",
    "test_an_event_is_taken_once",
]
SNAPSHOT = Snapshot(version=1, status=Status.ACTIVE, clock_offset_ms=0, features={})


async def test_a_shard_that_is_not_built_is_unavailable(call: Any, world: Any) -> None:
    """Instead of the same for a single server: where no command lists the keys of all nodes."""
    pipe = world.valkey.pipeline()
    for shard in range(SHARD_COUNT):
        pipe.delete(epoch_key(shard))
    await pipe.execute()
    status, problem, _ = await call("/v1/check", {"key": world.key, "feature": "calls"})
    assert (status, problem["code"]) == (503, "unavailable")


async def test_a_cluster_is_ready_when_every_slot_is_served_and_every_shard_is_built(call: Any, world: Any) -> None:
    """Shards are counted over all nodes."""
    assert (await call.get("/readyz"))[0] == 200
    await world.valkey.delete(epoch_key(7))
    status, problem, _ = await call.get("/readyz")
    assert (status, problem["detail"]) == (503, f"{SHARD_COUNT - 1} of {SHARD_COUNT} shards are built")


async def test_events_that_were_taken_are_remembered_for_their_shards(gateway: Any, send: Any) -> None:
    """So that what a failover loses of them can be named; what was taken before is not told again."""
    worker, _ = gateway
    assert (await send(event("a")))[1]["status"] == "accepted"
    again = event("b")
    _, body = await send([event("a", time=1), again, again, event("c", customer="nobody")])
    assert [one["status"] for one in body["results"]] == ["rejected", "accepted", "duplicate", "rejected"]
    told = {(shard, name) for shard, names in worker.recall._by_shard().items() for name in names}
    assert told == {(shard_of_event("t1", name), f"t1:{name}") for name in ("a", "b")}


async def libraries(cluster: EmbeddedCluster) -> list[list[str]]:
    """Our libraries on each primary."""
    command, word, *rest = LISTING
    return [
        listed_names(await node.client.execute_command(f"{command} {word}", *rest))
        for node in await cluster.primaries()
    ]


async def test_primaries_that_forgot_the_library_get_it_back(
    call: Any, world: Any, cluster: EmbeddedCluster
) -> None:
    """Each for itself, from whoever misses it there first: a gateway whose links stand, or the billing side."""
    for node in await cluster.primaries():
        await node.client.function_flush()
    names = [f"c{number}" for number in range(60)]
    for name in names:
        await world.credential(
            f"tgk_{name}", KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id=name, hint="x")
        )
    for name in names:
        status, problem, _ = await call("/v1/check", {"key": f"tgk_{name}", "feature": "calls"})
        assert (status, problem["detail"]) == (503, "the customer of this key is not ready yet"), "as the act says"
    assert await libraries(cluster) == [[LIBRARY.name]] * 3
    for node in await cluster.primaries():
        await node.client.function_flush()
    acts = [project_snapshot("t1", name, snapshot=SNAPSHOT) for name in names]
    assert await Projection(world.valkey).run(acts) == [1] * len(names)
    assert await libraries(cluster) == [[LIBRARY.name]] * 3
