"""What a gateway remembers, and how it is told to forget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from billing_core.contract.keys import KeyRecord, Role, api_key_name, digest_of
from gateway.edge.worker import Worker

RECORD = KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="acme")


@pytest.fixture
async def worker(world: Any, settings: Any, eventually: Any) -> AsyncIterator[Worker]:
    made = Worker(settings)
    await made.start()
    await eventually(lambda: made.listener.is_up)
    yield made
    await made.stop()


@pytest.fixture
def hears(worker: Worker, world: Any, eventually: Any) -> Callable[[str], Any]:
    """Publish something and wait until the worker has heard it."""

    async def tell(payload: str) -> None:
        before = worker.listener.heard
        await world.forget(payload)
        await eventually(lambda: worker.listener.heard > before)

    return tell


async def test_a_known_credential_is_looked_up_once(worker: Worker, world: Any) -> None:
    """The second time costs no round trip."""
    sent = worker.links["decision"].tally.commands
    for _ in range(3):
        known = await worker.directory.credential(world.key)
        assert known is not None
        assert known.record.customer_id == "acme"
    assert worker.links["decision"].tally.commands == sent + 1


async def test_a_revoked_key_is_forgotten_by_push(worker: Worker, world: Any, hears: Any) -> None:
    """Its digest is the message."""
    assert await worker.directory.credential(world.key)
    await world.valkey.delete(api_key_name(digest_of(world.key)))
    assert await worker.directory.credential(world.key)
    await hears(digest_of(world.key))
    assert await worker.directory.credential(world.key) is None


async def test_an_unknown_key_is_remembered_too_until_it_is_made(worker: Worker, world: Any, hears: Any) -> None:
    """A new key works at once."""
    sent = worker.links["decision"].tally.commands
    for _ in range(3):
        assert await worker.directory.credential("tgk_new") is None
    assert worker.links["decision"].tally.commands == sent + 1
    await world.credential("tgk_new", RECORD)
    await hears(digest_of("tgk_new"))
    assert await worker.directory.credential("tgk_new")


async def test_a_flood_of_unknown_keys_is_bounded_and_evicts_no_known_one(
    world: Any, settings: Any, eventually: Any
) -> None:
    """Strangers have a memory of their own."""
    worker = Worker(msgspec.structs.replace(settings, credential_cache_count=10))
    await worker.start()
    await eventually(lambda: worker.listener.is_up)
    assert await worker.directory.credential(world.key)
    await asyncio.gather(*(worker.directory.credential(f"tgk_{number}") for number in range(100)))
    assert len(worker.directory.strangers) == 10
    assert len(worker.directory.credentials) == 1
    await worker.stop()


async def test_everything_is_forgotten_at_a_star(worker: Worker, world: Any, hears: Any) -> None:
    """After a rebuild."""
    await worker.directory.credential(world.key)
    await worker.directory.customer("t1", "acme")
    await worker.directory.tenant_meters("t1")
    await hears("*")
    directory = worker.directory
    assert [len(cache) for cache in (directory.credentials, directory.customers, directory.meters)] == [0, 0, 0]


async def test_a_push_connection_that_is_lost_empties_the_memory(
    worker: Worker, world: Any, hears: Any, eventually: Any
) -> None:
    """What was missed meanwhile cannot be known; a second later it listens again."""
    await worker.directory.credential(world.key)
    await world.valkey.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await eventually(lambda: not worker.listener.is_up)
    assert len(worker.directory.credentials) == 0
    await eventually(lambda: worker.listener.is_up)
    assert await worker.directory.credential(world.key)
    await hears(digest_of(world.key))
    assert len(worker.directory.credentials) == 0


async def test_while_deaf_entries_are_short_lived(world: Any, settings: Any, eventually: Any) -> None:
    """A revoked key lives no longer than `deaf_ttl_ms`."""
    worker = Worker(msgspec.structs.replace(settings, deaf_ttl_ms=1))
    worker.links["decision"].start()
    await worker.links["decision"].up()
    assert await worker.directory.credential(world.key)
    digest = digest_of(world.key)
    await world.valkey.delete(api_key_name(digest))
    now_s = asyncio.get_running_loop().time
    await eventually(lambda: worker.directory.credentials.get(digest, now_s=now_s()) is None)
    assert await worker.directory.credential(world.key) is None
    await worker.stop()


async def test_a_record_that_nobody_can_read_is_a_broken_law(call: Any, world: Any) -> None:
    """500, and the text says nothing of it."""
    await world.valkey.set(api_key_name(digest_of("tgk_odd")), b"\xc1")
    status, problem, _ = await call("/v1/check", {"key": "tgk_odd", "feature": "calls"})
    assert (status, problem["code"], problem["detail"]) == (
        500,
        "invariant_broken",
        "an internal fault; it has been reported",
    )
