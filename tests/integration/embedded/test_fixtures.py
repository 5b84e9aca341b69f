"""The fixtures that every integration test stands on keep what they promise."""

import asyncpg
import pytest


@pytest.mark.parametrize("turn", [1, 2])
async def test_every_test_gets_an_empty_valkey(valkey, turn):
    """A key written by one test is not seen by the next."""
    assert await valkey.incr("turns") == 1


@pytest.mark.parametrize("turn", [1, 2])
async def test_every_test_gets_a_database_of_its_own(postgres_url, turn):
    """A table made by one test is not seen by the next."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE TABLE mine (turn integer)")
    await connection.close()


def test_a_synchronous_test_may_use_the_addresses(postgres_url, redis_url):
    """The fixtures do not force a test to be asynchronous."""
    assert postgres_url.startswith("postgresql://")
    assert redis_url.startswith("unix://")
