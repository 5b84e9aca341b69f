"""The link against a real Valkey: connects, is cut, hangs, and comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from billing_core.errors import Unavailable
from gateway.command.embedded.address import socket_folder
from gateway.command.embedded.valkey import Valkey, start_valkey
from gateway.state.endpoint import endpoint_of
from gateway.state.link import Link, LinkSettings
from gateway.state.pipe import PipeLimits
from gateway.state.resp import ErrorReply
from lua.loader import SCRIPTS

DEADLINE_MS = 15


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[Link]:
    made = Link(LinkSettings(endpoint=endpoint_of(redis_url), name="linked"), SCRIPTS)
    made.start()
    await made.up()
    yield made
    await made.stop()


async def until_up(link: Link) -> None:
    async with asyncio.timeout(30):
        await link.up()


async def is_blocked(valkey: Any) -> bool:
    return any(client["cmd"] == "blpop" for client in await valkey.client_list())


async def test_every_script_is_known_before_anybody_may_use_the_link(link: Link, valkey: Any) -> None:
    """Loaded when the connection is made."""
    known = await valkey.script_exists(*(script.sha for script in SCRIPTS.values()))
    assert known == [True] * len(SCRIPTS)


async def test_ten_thousand_commands_at_once_find_their_replies(link: Link) -> None:
    """In one write."""
    writes = link.tally.writes
    futures = [link.send(("ECHO", number), deadline_ms=60_000) for number in range(8_000)]
    assert await asyncio.gather(*futures) == [str(number).encode() for number in range(8_000)]
    assert link.tally.writes == writes + 1


async def test_a_script_that_the_server_forgot_is_sent_whole(link: Link, valkey: Any) -> None:
    """SCRIPT FLUSH behind our back costs one more round trip."""
    await valkey.script_flush()
    keys = ("{s}:e", "{s}:snap", "{s}:wal")
    for _ in range(2):
        with pytest.raises(ErrorReply, match="UNAVAILABLE epoch"):
            await link.run("wallet_read", keys, args=(), deadline_ms=60_000)


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
    link = Link(LinkSettings(endpoint=endpoint_of(f"unix://{socket_folder(folder)}/valkey.sock")), SCRIPTS)
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
        begun.append(Link(LinkSettings(endpoint=endpoint_of(url)), SCRIPTS))
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
    link = Link(LinkSettings(endpoint=endpoint_of(server.url), limits=limits, connect_ms=500), SCRIPTS)
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
    link = Link(LinkSettings(endpoint=endpoint_of(redis_url)), SCRIPTS)
    link.start()
    await link.up()
    waiting = link.send(("BLPOP", "nothing", 0), deadline_ms=60_000)
    await asyncio.sleep(0)
    await link.stop()
    with pytest.raises(Unavailable):
        await waiting
    assert not link.is_up
