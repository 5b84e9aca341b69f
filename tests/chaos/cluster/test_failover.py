"""A primary is killed in the middle of load, and its replica takes over; once with everything, once without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from billing_core.contract.keys import customer_keys, epoch_key, shard_of_customer
from tests.chaos.cluster.conftest import Town, standing_cluster
from tests.chaos.stream.conftest import Hands
from tests.embedded_cluster import EmbeddedCluster, until

NAMES = [f"c{number}" for number in range(12)]


@pytest.fixture
def nodes() -> Iterator[EmbeddedCluster]:
    """A cluster for each test: what one has killed is not the next one's."""
    with standing_cluster() as made:
        yield made


@pytest.fixture
async def populated(town: Town) -> Town:
    await town.settle(NAMES)
    return town


async def test_a_primary_that_is_killed_under_load_is_replaced_without_a_hand(
    populated: Town, cluster: EmbeddedCluster, hands: Hands
) -> None:
    """What was answered is in Postgres once, or named as lost; the others' shards are served all the time."""
    town = populated
    for roles in ("relay", "flush", "flush"):
        await hands.start(roles)
    victim = await cluster.owner(customer_keys("t", NAMES[0]).epoch)
    replica = await cluster.replica_of(victim)
    async with town.under_load():
        await town.served()
        victim.kill()
        await cluster.promoted(replica)
        await town.served()
    await town.is_exact()
    assert town.refused.keys() <= {"unavailable"}


async def test_what_a_lagging_replica_never_got_is_named_and_what_postgres_had_is_put_back(
    populated: Town, cluster: EmbeddedCluster, hands: Hands
) -> None:
    """Replication stalls; two decisions are flushed, a top-up is told, five are only answered; then it dies."""
    town, name = populated, NAMES[0]
    works, shard = town.works, shard_of_customer("t", name)
    victim = await cluster.owner(epoch_key(shard))
    replica = await cluster.replica_of(victim)
    await town.asks_until(name, 3)
    await works.flush()
    await victim.client.execute_command("WAIT", 1, 10_000)
    await cluster.stall(replica, primary=victim)
    await town.asks_until(name, 2)
    await works.flush()
    late = await works.grant(name, 7)
    await works.project()
    before = set(town.answered)
    await town.asks_until(name, 5)
    lost_for_good = set(town.answered) - before
    victim.kill()
    replica.freeze(frozen=False)
    await cluster.promoted(replica)
    for roles in ("relay", "flush"):
        await hands.start(roles)
    await town.served()
    assert await town.is_exact() == lost_for_good
    assert (await works.wallet(name))[f"r:{late}"] == 7
    (loss,) = [one for one in (await town.report()).losses if one.shard == shard]
    assert loss.lost_decisions == 5
    assert loss.kept < loss.flushed
    assert loss.missed_acts == 1


async def test_a_replica_that_has_everything_takes_over_without_a_rebuild(
    populated: Town, cluster: EmbeddedCluster, hands: Hands
) -> None:
    """A planned failover: holds stay, epochs stay, nothing is lost."""
    town, name = populated, NAMES[0]
    works = town.works
    for roles in ("relay", "flush"):
        await hands.start(roles)
    victim = await cluster.owner(customer_keys("t", name).epoch)
    replica = await cluster.replica_of(victim)
    epochs = await works.raw.fetchval("SELECT sum(epoch) FROM shard")
    hold = await town.call(
        "/v1/check",
        {"key": f"tgk_{name}", "feature": "input_tokens", "quantity": 9, "mode": "hold", "ttl_ms": 600_000},
    )
    async with town.under_load():
        await town.served()
        await replica.client.execute_command("CLUSTER", "FAILOVER")
        await cluster.promoted(replica)
        await town.served()
    hold_id = hold[1]["hold"]["id"]

    async def is_settled() -> bool:
        return (await town.call(f"/v1/holds/{hold_id}/settle", {}))[0] == 200

    await until(is_settled)
    town.answered[hold[1]["decision_id"]] += 1
    assert await town.is_exact() == set()
    assert await works.raw.fetchval("SELECT sum(epoch) FROM shard") == epochs


async def test_a_primary_that_wakes_up_after_it_was_replaced_changes_nothing(
    populated: Town, cluster: EmbeddedCluster, hands: Hands
) -> None:
    """What it was asked while it slept it does when it wakes: nobody was told so, and nobody reads it."""
    town, name = populated, NAMES[0]
    for roles in ("relay", "flush"):
        await hands.start(roles)
    sleeper = await cluster.owner(customer_keys("t", name).epoch)
    replica = await cluster.replica_of(sleeper)
    async with town.under_load():
        await town.served()
        sleeper.freeze(frozen=True)
        await cluster.promoted(replica)
        await town.served()
        sleeper.freeze(frozen=False)
        await cluster.whole()
        await town.served()
    await town.is_exact()
    assert town.refused.keys() <= {"unavailable"}


async def test_a_part_that_is_gone_for_good_holds_up_no_other(
    populated: Town, cluster: EmbeddedCluster, hands: Hands
) -> None:
    """A primary is away with its replica; another one is replaced meanwhile, and its customers are served."""
    town, name = populated, NAMES[0]
    lucky = await cluster.owner(customer_keys("t", name).epoch)
    replica = await cluster.replica_of(lucky)
    needed = await town.nodes_of(name, cluster)
    gone = next(one for one in await cluster.primaries() if one not in needed)
    for node in (await cluster.replica_of(gone), gone):
        node.kill()
    await until(replica.is_ok)
    await replica.client.execute_command("CLUSTER", "FAILOVER")
    await cluster.promoted(replica)
    await hands.start("relay")
    await town.asks_until(name, 1)


async def test_a_gateway_waits_until_somebody_has_looked_at_a_new_primary(
    populated: Town, cluster: EmbeddedCluster, hands: Hands, eventually: Any
) -> None:
    """Nobody of the billing side is there: the promoted replica decides nothing, the other nodes go on."""
    town, name = populated, NAMES[0]
    victim = await cluster.owner(customer_keys("t", name).epoch)
    elsewhere = [one for one in NAMES if victim not in await town.nodes_of(one, cluster)]
    replica = await cluster.replica_of(victim)
    victim.kill()
    await cluster.promoted(replica)
    await eventually(lambda: "compared" in town.worker.links["decision"].fault)
    assert not await town.ask(name)
    await town.asks_until(elsewhere[0], 1)
    await hands.start("relay")
    await town.asks_until(name, 1)
