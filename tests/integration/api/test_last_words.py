"""A Postgres that says its last word while its socket stays open is away, not broken: 503, and a retry is safe.

Between the two the driver refuses to speak, with an error of its own (InternalClientError). So the control plane
reaches Postgres by a relay here, which passes on what the server says and keeps its end to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from billing_core.store.database import Database

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

PATIENCE_S = 30


class Relay:
    """Connections to one Postgres; `ended` counts those that the server has ended, `close` lets it be known."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._writers: list[asyncio.StreamWriter] = []
        self.ended = 0

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._socket)
        self._writers += (writer, far_writer)
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        self.ended += 1

    def close(self) -> None:
        """End both sides of every connection."""
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def relay(postgres_url: str) -> AsyncIterator[tuple[Relay, str]]:
    """A relay, and the address of the test's database behind it."""
    told = urlsplit(postgres_url)
    place = {name: values[0] for name, values in parse_qs(told.query).items()}
    made = Relay(f"{place['host']}/.s.PGSQL.{place['port']}")
    server = await asyncio.start_server(made.join, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield made, f"postgresql://tallygate@127.0.0.1:{port}{told.path}?sslmode=disable"
    server.close()
    await server.wait_closed()


@pytest.fixture
async def database(relay: tuple[Relay, str]) -> AsyncIterator[Database]:
    """The plane's own, by the relay."""
    opened = await Database.connect(relay[1], size=6)
    yield opened
    relay[0].close()
    await opened.close()


async def test_a_server_whose_end_is_not_known_yet_is_away(
    plane: Plane, relay: tuple[Relay, str], postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as its end is known, the next attempt is answered."""
    path = "/v1/customers"
    assert (await plane.ours.get(path)).status == 200
    killer = await asyncpg.connect(postgres_url)
    struck = await killer.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await killer.close()
    async with asyncio.timeout(PATIENCE_S):
        while relay[0].ended < len(struck):  # noqa: ASYNC110 - it is the server that ends them
            await asyncio.sleep(0.001)
    answer = await plane.ours.get(path)
    assert (answer.status, answer.body["code"], answer.headers["Retry-After"]) == (503, "unavailable", "1")
    assert answer.body["retry_is_safe"] is True
    (cause,) = {record.exc_info[0] for record in caplog.records if record.exc_info}
    assert cause is asyncpg.InternalClientError
    relay[0].close()
    async with asyncio.timeout(PATIENCE_S):
        while (await plane.ours.get(path)).status == 503:
            pass
    assert (await plane.ours.get(path)).status == 200
