"""A gateway with a proxy as processes of its own: two share the port, and a bad routes file is one clear line."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing_core.contract.keys import customer_keys
from lua.loader import SCRIPTS
from tests.integration.gateway.proxy.conftest import TOKENS, Line, routes_text
from tests.integration.gateway.proxy.test_pass import bearer
from tests.integration.gateway.proxy.test_stream import HEAD, WORDS, chunk, event


@pytest.fixture
def routed(settings: Any, origin: Any, free_port: Any, tmp_path: Path) -> Any:
    """Settings with a proxy before the origin."""

    def told(**route: Any) -> Any:
        file = tmp_path / "routes.toml"
        named = {"name": "all", "path": "/{rest...}", "upstream": "origin", "charges": [TOKENS]} | route
        endpoint = {"url": f"http://127.0.0.1:{origin.port}"}
        file.write_text(routes_text([named], {"origin": {"endpoints": [endpoint]}}))
        origin.proxy_port = free_port()
        return msgspec.structs.replace(settings, proxy_port=origin.proxy_port, proxy_routes_file=str(file))

    return told


@pytest.fixture
def told(routed: Any) -> Any:
    """With the route that charges one token."""
    return routed()


async def asked(port: int, key: str) -> int:
    """The status of one request, on a connection of its own; 0 where nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        line = Line(reader, writer)
        await line.get("/x", f"Authorization: Bearer {key}")
        status = (await line.response()).status
    except (OSError, EOFError):
        return 0
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


STREAMED = {"feature": "tokens", "quantity": {"units": 20}, "settle": {"usage": "output"}}
WORD = chunk(WORDS[0])
USAGE = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}})


async def streaming(origin: Any, line: Any, world: Any, count: int) -> tuple[list[Line], asyncio.Event]:
    """So many streams of which four words were delivered; the rest comes once the event is set."""
    going = asyncio.Event()

    async def answer(asked: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(WORDS[0] * 4))
        await going.wait()
        writer.write(chunk(WORDS[0] * 5 + USAGE) + b"0\r\n\r\n")

    origin.answer = answer
    while await asked(origin.proxy_port, "nobody's") != 401:  # noqa: ASYNC110 - until another process listens
        await asyncio.sleep(0.01)
    clients = [await line() for _ in range(count)]
    for client in clients:
        await client.get("/x", bearer(world))
    for client in clients:
        assert (await client.head())[0] == 200
        assert await client.reader.readexactly(4 * len(WORD)) == WORD * 4
    return clients, going


@pytest.mark.parametrize(("on_expiry", "units"), [("release", 0), ("charge", 20)])
async def test_the_holds_of_a_process_that_is_killed_end_by_themselves(
    routed: Any, process: Any, world: Any, origin: Any, line: Any, books: Any, on_expiry: str, units: int
) -> None:
    """Each as its route says: none stays, none is charged twice, and nothing is lost."""
    await world.grant(100_000)
    killed = process(routed(charges=[STREAMED], on_expiry=on_expiry, ttl_ms=3_000))
    _, going = await streaming(origin, line, world, 10)
    assert await books.wallet() == (80_000, 20_000)
    killed.process.send_signal(signal.SIGKILL)
    await killed.ended()
    going.set()
    keys, ended = customer_keys(world.tenant, world.customer), 0
    async with asyncio.timeout(30):
        while ended < 10:
            names = keys.epoch, keys.shard_holds, keys.stream
            ended += await world.valkey.fcall(SCRIPTS["sweep"].function, len(names), *names, 100)
            await asyncio.sleep(0.01)
    assert ended == 10
    assert await books.wallet() == (100_000 - 10 * units * 100, 0)
    entries = await world.entries()
    assert [entry.charges[0].quantity for entry in entries] == [units] * (10 if units else 0)
    assert len({entry.body.event_id for entry in entries}) == len(entries)


async def test_a_process_that_is_told_to_stop_lets_streams_end(
    routed: Any, process: Any, world: Any, origin: Any, line: Any, books: Any
) -> None:
    """They are settled by their usage before it goes; nobody new is let in."""
    await world.grant(100_000)
    worker = process(routed(charges=[STREAMED]))
    clients, going = await streaming(origin, line, world, 5)
    worker.process.send_signal(signal.SIGTERM)
    while await asked(origin.proxy_port, "nobody's"):  # noqa: ASYNC110 - until it listens no more
        await asyncio.sleep(0.01)
    going.set()
    for client in clients:
        assert await client.reader.readuntil(b"\r\n0\r\n\r\n") == WORD * 5 + chunk(USAGE) + b"0\r\n\r\n"
        client.writer.close()
    assert await worker.ended() == (0, "")
    assert await books.wallet() == (100_000 - 5 * 900, 0)
    assert await books.evidence() == []


async def test_streams_that_outlive_the_grace_are_settled_by_what_was_delivered(
    routed: Any, process: Any, world: Any, origin: Any, line: Any, books: Any
) -> None:
    """The process goes when its time is over."""
    await world.grant(100_000)
    worker = process(msgspec.structs.replace(routed(charges=[STREAMED]), stop_grace_ms=1))
    await streaming(origin, line, world, 5)
    worker.process.send_signal(signal.SIGTERM)
    assert await worker.ended() == (0, "")
    assert await books.wallet() == (100_000 - 5 * 400, 0)
    assert [one["ending"] for one in await books.evidence()] == ["client_lost"] * 5


@pytest.mark.parametrize(("rows", "is_answered"), [(["Connection: close"], True), ([], False)])
async def test_who_closes_its_side_is_answered_or_has_hung_up_on_this_loop_too(
    routed: Any, process: Any, world: Any, origin: Any, line: Any, books: Any, eventually: Any,
    rows: list[str], is_answered: bool,
) -> None:  # fmt: skip
    """A process runs on another event loop than these tests."""
    await world.grant(100_000)
    process(routed(charges=[STREAMED], on_disconnect="held"))
    _, going = await streaming(origin, line, world, 0)

    async def answer(asked: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        await going.wait()
        writer.write(HEAD + WORD * 9 + chunk(USAGE) + b"0\r\n\r\n")

    origin.answer = answer
    client = await line()
    await client.get("/x", bearer(world), *rows)
    await eventually(lambda: origin.asked)
    client.writer.write_eof()
    if not is_answered:
        assert await client.end() == b""
    going.set()
    if is_answered:
        reply = await client.response()
        assert (reply.status, reply.body.count(b"four"), reply.is_last) == (200, 9, True)
        assert await client.end() == b""
    await books.settled(100_000 - (900 if is_answered else 2_000))
