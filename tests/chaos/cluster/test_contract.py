"""The decision contract of a gateway, on a cluster: the very tests that a single server passes."""

from __future__ import annotations

from typing import Any

from billing_core.contract.keys import SHARD_COUNT, epoch_key
from tests.integration.gateway.test_check import *  # noqa: F403
from tests.integration.gateway.test_hold import *  # noqa: F403


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
