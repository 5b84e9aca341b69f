"""Bytes from somebody who means harm: one answer that says so, the end of that connection, and of no other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.gateway.lane.conftest import framed

HOST = "POST /v1/check HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HOST + "Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        (HOST + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (HOST + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        (HOST + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HOST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (HOST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (HOST + "A: b\r\n c\r\n\r\n", 400),
        (HOST + "A: b\x00\r\n\r\n", 400),
        (HOST + "Host: b\r\n\r\n", 400),
        (CHUNKED + "1;a\r\na\r\n0\r\n\r\n", 400),
        (CHUNKED + "1\na\n0\n\n", 400),
        (CHUNKED + "1\r\nab\r\n0\r\n\r\n", 400),
        (CHUNKED + "0\r\nHost: b\r\n\r\n", 400),
        (CHUNKED + "fffffff\r\n", 413),
        (HOST + "Content-Length: 1048577\r\n\r\n", 413),
        ("POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("POST /v1/check HTTP/9.9\r\nHost: a\r\n\r\n", 400),
        ("A" * 40_000, 431),
        (HOST + "A: " + "b" * 40_000, 431),
        (HOST + "A: b\r\n" * 101 + "\r\n", 431),
    ],
)
async def test_bytes_that_are_no_request_end_their_connection(
    wire: Any, call: Any, check: Any, raw: str, status: int
) -> None:
    """Behind the answers to what came before; what stands behind them is not read."""
    line, other = await wire(), await wire()
    await other.send(check())
    assert (await other.reply()).status == 200
    await line.send(check() + raw.encode("latin-1") + check())
    first, last = await line.replies(2)
    assert (first.status, first.is_last) == (200, False)
    assert (last.status, last.is_last, last.json()["status"]) == (status, True, status)
    assert last.fields["content-type"] == "application/problem+json"
    assert await line.end() == b""
    await other.send(check())
    assert (await other.reply()).status == 200


async def test_a_body_is_refused_by_what_it_announces(wire: Any, call: Any) -> None:
    """Nobody waits for it."""
    line = await wire()
    await line.send(f"{HOST}Content-Length: 999999999\r\n\r\n".encode())
    reply = await line.reply()
    assert (reply.status, reply.json()["field"]) == (413, "body")


async def test_who_sends_too_slowly_is_told_so(wire: Any, served: Any, check: Any) -> None:
    """Head or body; whoever asks nothing at all is let go in silence."""
    await served(request_read_ms=100, keep_alive_ms=400)
    begun, half, idle = await wire(), await wire(), await wire()
    await begun.send(check()[:20])
    await half.send(check() + check()[:-1])
    assert (await half.reply()).status == 200
    for line in (begun, half):
        reply = await line.reply()
        assert (reply.status, reply.is_last) == (408, True)
        assert await line.end() == b""
    assert await idle.end() == b""


async def test_who_does_not_read_is_not_read_from(wire: Any, served: Any, world: Any, eventually: Any) -> None:
    """No answer is lost, and none is made that nobody fetches."""
    server = await served()
    line, names = await wire(), [f"f{n}" for n in range(10_000)]
    line.reader._limit = 2**30
    line.writer.transport.pause_reading()
    line.writer.write(b"".join(framed("/v1/check", {"key": world.key, "feature": name}) for name in names))
    await eventually(lambda: server._lane is not None and server._lane.connections)
    (connection,) = server._lane.connections
    await eventually(lambda: connection._is_choked and not connection._turns)
    assert sum(server._worker.gate._latency.totals().values()) < len(names)
    line.writer.transport.resume_reading()
    told = [reply.json()["refused_feature"] for reply in await line.replies(len(names))]
    assert told == names
