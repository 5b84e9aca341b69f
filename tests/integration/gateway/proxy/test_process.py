"""A gateway with a proxy as processes of its own: two share the port, and a bad routes file is one clear line."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.gateway.proxy.conftest import TOKENS, Line, routes_text


@pytest.fixture
def told(settings: Any, origin: Any, free_port: Any, tmp_path: Path) -> Any:
    """Settings with a proxy before the origin."""
    file = tmp_path / "routes.toml"
    route = {"name": "all", "path": "/{rest...}", "upstream": "origin", "charges": [TOKENS]}
    file.write_text(routes_text([route], {"origin": {"endpoints": [{"url": f"http://127.0.0.1:{origin.port}"}]}}))
    return msgspec.structs.replace(settings, proxy_port=free_port(), proxy_routes_file=str(file))


async def asked(port: int, key: str) -> int:
    """The status of one request, on a connection of its own; 0 where nobody listens yet."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    line = Line(reader, writer)
    await line.get("/x", f"Authorization: Bearer {key}")
    status = (await line.response()).status
    writer.close()
    return status


async def test_of_100_at_once_10_pass_through_two_processes(
    told: Any, process: Any, world: Any, origin: Any, books: Any
) -> None:
    """They share the port and the wallet."""
    workers = [process(msgspec.structs.replace(told, worker_index=index, port=told.port)) for index in range(2)]
    until_s = time.monotonic() + 60
    while await asked(told.proxy_port, world.key) != 402:
        assert time.monotonic() < until_s
        assert all(worker.process.poll() is None for worker in workers)
        await asyncio.sleep(0.01)
    await world.grant(1_000)
    statuses = await asyncio.gather(*(asked(told.proxy_port, world.key) for _ in range(100)))
    assert (statuses.count(200), len(origin.asked)) == (10, 10)
    assert set(statuses) <= {200, 402, 503}
    await books.settled(0)


def spoiled(name: str) -> Path:
    file = Path(name)
    file.write_text(file.read_text().replace('"all"', '"all", "surprise" = 1'))
    return file


async def test_a_bad_routes_file_is_one_clear_line(told: Any, process: Any) -> None:
    """The process does not start."""
    file = spoiled(told.proxy_routes_file)
    status, errors = await process(told).ended()
    assert status == 2
    assert errors.startswith(f"{file}: ")
    assert "unknown field `surprise`" in errors
    assert errors.count("\n") == 1
