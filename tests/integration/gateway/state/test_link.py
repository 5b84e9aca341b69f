"""The link against a real Valkey: connects, is cut, hangs, and comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio

import lua.loader
from billing_core.errors import Unavailable
from gateway.command.embedded.address import socket_folder
from gateway.command.embedded.valkey import Valkey, start_valkey
from gateway.state.endpoint import endpoint_of
from gateway.state.link import Link, LinkSettings
from gateway.state.pipe import PipeLimits
from gateway.state.resp import ErrorReply
from lua.library import LISTING, Library, build_library, listed_names
from lua.loader import LIBRARY, SCRIPTS

HOME = Path(lua.loader.__file__).parent
DEADLINE_MS = 15
UNBUILT = ("{s}:e", "{s}:snap", "{s}:wal")
OTHERS = "#!lua name=other\nredis.register_function('stranger', function() return 1 end)\n"
OLDER = build_library(
    [SCRIPTS["wallet_read"]],
    libraries={one.library: (HOME / one.library).read_text("utf-8") for one in SCRIPTS["wallet_read"].includes},
)
"""What a version before this one might have had: another text."""


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[Link]:
    made = Link(LinkSettings(endpoint=endpoint_of(redis_url), name="linked"), LIBRARY)
    made.start()
    await made.up()
    yield made
    await made.stop()


@pytest.fixture
async def linked() -> AsyncIterator[Callable[..., Awaitable[Link]]]:
    """Links of one's own, as many as wanted."""
    made: list[Link] = []

    async def make(url: str, library: Library = LIBRARY) -> Link:
        link = Link(LinkSettings(endpoint=endpoint_of(url)), library)
        made.append(link)
        link.start()
        await until_up(link)
        return link

    yield make
    for link in made:
        await link.stop()


async def until_up(link: Link) -> None:
    async with asyncio.timeout(30):
        await link.up()


async def is_blocked(valkey: Any) -> bool:
    return any(client["cmd"] == "blpop" for client in await valkey.client_list())


async def libraries(valkey: Any) -> set[str]:
    """The names of our libraries that the server has."""
    return set(listed_names(await valkey.execute_command(" ".join(LISTING[:2]), *LISTING[2:])))


async def test_the_library_is_there_before_anybody_may_use_the_link(
    redis_url: str, valkey: Any, linked: Callable[[str], Awaitable[Link]]
) -> None:
    """Brought when the connection is made, by whoever comes first; the others find it."""
    await valkey.function_flush()
    await asyncio.gather(*(linked(redis_url) for _ in range(5)))
    assert await libraries(valkey) == {LIBRARY.name}


async def test_ten_thousand_commands_at_once_find_their_replies(link: Link) -> None:
    """In one write."""
    writes = link.tally.writes
    futures = [link.send(("ECHO", number), deadline_ms=60_000) for number in range(8_000)]
    assert await asyncio.gather(*futures) == [str(number).encode() for number in range(8_000)]
    assert link.tally.writes == writes + 1


async def test_a_library_that_the_server_forgot_is_brought_back(link: Link, valkey: Any) -> None:
    """FUNCTION FLUSH behind our back costs one more round trip, and one load for all who were under way."""
    await valkey.function_flush()
    await valkey.config_resetstat()
    for _ in range(2):
        asked = [link.run("wallet_read", UNBUILT, args=(), deadline_ms=60_000) for _ in range(100)]
        replies = await asyncio.gather(*asked, return_exceptions=True)
        assert {str(reply) for reply in replies} == {"UNAVAILABLE epoch"}
    assert (await valkey.info("commandstats"))["cmdstat_function|load"]["calls"] == 1


async def test_emptying_the_server_leaves_the_library(link: Link, valkey: Any) -> None:
    """FLUSHALL takes keys."""
    await valkey.flushall()
    assert await libraries(valkey) == {LIBRARY.name}


async def test_two_versions_share_a_server(
    redis_url: str, valkey: Any, linked: Callable[..., Awaitable[Link]]
) -> None:
    """Who brings a library takes older ones away; that costs the older gateway one round trip, and from then on
    both stay. What is not ours is nobody's to take."""
    await valkey.function_flush()
    await valkey.function_load(OTHERS)
    old, ours = await linked(redis_url, OLDER), {OLDER.name, LIBRARY.name}
    new = await linked(redis_url)
    assert await libraries(valkey) == {LIBRARY.name}
    for _ in range(2):
        for one in (old, new):
            with pytest.raises(ErrorReply, match="UNAVAILABLE epoch"):
                await one.run("wallet_read", UNBUILT, args=(), deadline_ms=60_000)
        assert await libraries(valkey) == ours
    await linked(redis_url)
    assert await libraries(valkey) == ours
    assert await valkey.fcall("stranger", 0) == 1
    await valkey.function_flush()
    await valkey.function_load(LIBRARY.text)


@pytest.mark.parametrize("options", [(), ("--appendonly", "no", "--save", "")], ids=["with a log", "without"])
async def test_a_server_that_was_killed_has_the_library_again(
    tmp_path: Path,
    started: Callable[[Valkey], Valkey],
    linked: Callable[..., Awaitable[Link]],
    eventually: Any,
    options: tuple[str, ...],
) -> None:
    """A server with a log has kept it; one that starts empty gets it before the link serves again."""
    server = started(start_valkey(tmp_path, appendfsync="always", options=options))
    link = await linked(server.url)
    server.kill()
    await eventually(lambda: not link.is_up)
    server.begin_again()
    server.wait_ready()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await until_up(link)
        with pytest.raises(ErrorReply, match="UNAVAILABLE epoch"):
            await link.run("wallet_read", UNBUILT, args=(), deadline_ms=60_000)
        assert await libraries(client) == {LIBRARY.name}
        loads = (await client.info("commandstats")).get("cmdstat_function|load", {"calls": 0})
    assert loads["calls"] == (1 if options else 0)


async def test_a_replica_that_was_promoted_has_the_library(
    tmp_path: Path,
    started: Callable[[Valkey], Valkey],
    linked: Callable[..., Awaitable[Link]],
    free_port: Callable[[], int],
) -> None:
    """Libraries are replicated like keys; and a link to a replica stands, because nothing has to be brought."""
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1")
    first = started(start_valkey(tmp_path / "first", appendfsync="no", options=options))
    second = started(
        start_valkey(tmp_path / "second", appendfsync="no", options=("--replicaof", "127.0.0.1", str(port)))
    )
    await linked(first.url)
    async with redis.asyncio.Redis.from_url(second.url) as client:
        while await libraries(client) != {LIBRARY.name}:
            pass
        link = await linked(second.url)
        first.kill()
        await client.replicaof("NO", "ONE")
        with pytest.raises(ErrorReply, match="UNAVAILABLE epoch"):
            await link.run("wallet_read", UNBUILT, args=(), deadline_ms=60_000)
        loads = (await client.info("commandstats")).get("cmdstat_function|load", {"rejected_calls": 0})
    assert loads["rejected_calls"] == 0


async def test_who_may_not_bring_the_library_gets_no_link_and_is_told_so(
    tmp_path: Path, started: Callable[[Valkey], Valkey], eventually: Any
) -> None:
    """An account without the right to FUNCTION LOAD, where nobody else has brought it."""
    server = started(start_valkey(tmp_path, appendfsync="no"))
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.execute_command("ACL", "SETUSER", "poor", "on", ">p", "allkeys", "+@all", "-function|load")
    endpoint = msgspec.structs.replace(endpoint_of(server.url), user="poor", password="p")
    link = Link(LinkSettings(endpoint=endpoint), LIBRARY)
    link.start()
    await eventually(lambda: "NOPERM" in link.fault)
    assert not link.is_up
    await link.stop()


async def test_a_huge_reply_passes_and_the_next_one_too(link: Link, valkey: Any) -> None:
    """32 MB."""
    await valkey.set("big", b"x" * 32_000_000)
    big, small = link.send(("GET", "big"), deadline_ms=60_000), link.send(("ECHO", "a"), deadline_ms=60_000)
    reply = await big
    assert isinstance(reply, bytes)
    assert len(reply) == 32_000_000
    assert await small == b"a"


async def test_an_error_reply_is_told_to_who_asked(link: Link) -> None:
    """And to nobody else."""
    bad, good = link.send(("NONSENSE",), deadline_ms=60_000), link.send(("PING",), deadline_ms=60_000)
    with pytest.raises(ErrorReply) as caught:
        await bad
    assert caught.value.code == "ERR"
    assert await good == b"PONG"


async def test_a_connection_that_the_server_kills_fails_who_waits_and_is_made_anew(link: Link, valkey: Any) -> None:
    """Nobody waits for better times; the next connection serves."""
    blocked = link.send(("BLPOP", "nothing", 0), deadline_ms=60_000)
    behind = link.send(("PING",), deadline_ms=60_000)
    while not await is_blocked(valkey):
        pass
    (own,) = [client for client in await valkey.client_list() if client["name"] == "linked"]
    await valkey.execute_command("CLIENT", "KILL", "ID", own["id"])
    for future in (blocked, behind):
        with pytest.raises(Unavailable):
            await future
    with pytest.raises(Unavailable):
        await link.send(("PING",), deadline_ms=60_000)
    await asyncio.sleep(0)
    await until_up(link)
    assert await link.send(("PING",), deadline_ms=60_000) == b"PONG"
    assert link.tally.connects == 2


async def test_nobody_there_is_refused_at_once_and_found_when_it_comes(
    tmp_path: Path, started: Callable[[Valkey], Valkey]
) -> None:
    """The process starts without Redis, and serves once it is there."""
    folder = tmp_path / "v"
    link = Link(LinkSettings(endpoint=endpoint_of(f"unix://{socket_folder(folder)}/valkey.sock")), LIBRARY)
    link.start()
    with pytest.raises(Unavailable):
        link.send(("PING",), deadline_ms=60_000)
    started(start_valkey(folder))
    await until_up(link)
    assert await link.send(("PING",), deadline_ms=60_000) == b"PONG"
    await link.stop()


async def test_passwords_databases_and_tcp(
    tmp_path: Path, started: Callable[[Valkey], Valkey], free_port: Callable[[], int], eventually: Any
) -> None:
    """AUTH and SELECT come before everything else; a wrong password is told."""
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1")
    server = started(start_valkey(tmp_path, appendfsync="no", options=options))
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.config_set("requirepass", "s3cret")
    begun: list[Link] = []
    for url in (f"redis://:s3cret@127.0.0.1:{port}/3", f"redis://:wrong@127.0.0.1:{port}"):
        begun.append(Link(LinkSettings(endpoint=endpoint_of(url)), LIBRARY))
        begun[-1].start()
    right, wrong = begun
    await until_up(right)
    await right.send(("SET", "k", "v"), deadline_ms=60_000)
    async with redis.asyncio.Redis(port=port, password="s3cret", db=3) as client:
        assert await client.get("k") == b"v"
    await eventually(lambda: "WRONGPASS" in wrong.fault)
    with pytest.raises(Unavailable):
        wrong.send(("PING",), deadline_ms=1)
    for link in begun:
        await link.stop()


async def test_a_server_that_hangs_costs_every_caller_its_deadline_and_no_more(
    tmp_path: Path, started: Callable[[Valkey], Valkey]
) -> None:
    """SIGSTOP: some wait for their deadline, then all are refused at once; after SIGCONT no late reply is taken
    for another."""
    server = started(start_valkey(tmp_path / "v", appendfsync="no"))
    limits = PipeLimits(stall_ms=50, hang_ms=300)
    link = Link(LinkSettings(endpoint=endpoint_of(server.url), limits=limits, connect_ms=500), LIBRARY)
    link.start()
    await until_up(link)
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            while not (link.tally.expired and link.tally.refused):
                with pytest.raises(Unavailable):
                    await link.send(("ECHO", "late"), deadline_ms=DEADLINE_MS)
                await asyncio.sleep(0.002)
    finally:
        os.kill(server.child.pid, signal.SIGCONT)
    answered = 0
    async with asyncio.timeout(30):
        while answered < 20:
            try:
                assert await link.send(("ECHO", answered), deadline_ms=100) == str(answered).encode()
                answered += 1
            except Unavailable:
                await asyncio.sleep(0.002)
    await link.stop()


async def test_stopping_tells_who_waits(redis_url: str) -> None:
    """Nobody is left hanging."""
    link = Link(LinkSettings(endpoint=endpoint_of(redis_url)), LIBRARY)
    link.start()
    await link.up()
    waiting = link.send(("BLPOP", "nothing", 0), deadline_ms=60_000)
    await asyncio.sleep(0)
    await link.stop()
    with pytest.raises(Unavailable):
        await waiting
    assert not link.is_up
