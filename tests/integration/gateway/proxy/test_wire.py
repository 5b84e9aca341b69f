"""HTTP/1.1 by the book, on both sides: framing, connections, bodies of any size, and bytes that mean harm."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"


@pytest.fixture
async def client(proxied: Any, line: Any) -> Any:
    """A connection to a proxy that lets everybody pass."""
    await proxied({})
    return await line()


@pytest.mark.parametrize(
    ("pieces", "closes", "body"),
    [
        ([OK + b"Content-Length: 5\r\n\r\nhello"], False, b"hello"),
        ([OK + b"Content-Length: 5\r\n\r\n", b"he", b"llo"], False, b"hello"),
        ([CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n"], False, b"hello"),
        ([CHUNKED + b"\r\n5;ext=1\r\nhel", b"lo\r", b"\n0\r\n", b"\r\n"], False, b"hello"),
        (
            [CHUNKED + b"Trailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"],
            False,
            b"hello|X-Sum: 1",
        ),
        ([OK + b"\r\nhel", b"lo"], True, b"hello"),
        ([b"HTTP/1.0 200 OK\r\n\r\nhello"], True, b"hello"),
        (
            [b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello"],
            False,
            b"hello",
        ),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], False, b""),
        ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"], False, b""),
        ([OK + b"Content-Length: 0\r\n\r\n"], False, b""),
    ],
)
async def test_a_response_comes_however_it_is_framed(
    client: Any, origin: Any, pieces: list[bytes], closes: bool, body: bytes
) -> None:
    """And the client's connection serves the next request."""
    origin.says(*pieces, closes=closes)
    for _ in range(2):
        await client.get("/x")
        reply = await client.response()
        assert reply.body == body
        assert reply.fields.get("connection") is None
    assert origin.connections == (2 if closes else 1)


@pytest.mark.parametrize("cut", range(1, 80, 3))
async def test_any_cut_of_a_response_is_the_same_response(client: Any, origin: Any, cut: int) -> None:
    """Heads and chunks in two pieces."""
    raw = CHUNKED + b"X-A: b\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    origin.says(raw[:cut], raw[cut:])
    await client.get("/x")
    reply = await client.response()
    assert (reply.body, reply.fields["x-a"]) == (b"abcde", "b")


async def test_head_has_no_body_whatever_the_upstream_says(client: Any, origin: Any) -> None:
    """Its length is that of the GET."""
    origin.says(OK + b"Content-Length: 5\r\n\r\n")
    for _ in range(2):
        await client.get("/x", method="HEAD")
        reply = await client.response(is_head=True)
        assert (reply.status, reply.fields["content-length"]) == (200, "5")
    assert origin.connections == 1


async def test_a_range_passes(client: Any, origin: Any) -> None:
    """It is the upstream's business."""
    origin.says(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/5\r\nContent-Length: 2\r\n\r\nhe")
    await client.get("/x", "Range: bytes=0-1")
    reply = await client.response()
    assert (reply.status, reply.body, reply.fields["content-range"]) == (206, b"he", "bytes 0-1/5")
    assert origin.asked[0].fields["range"] == "bytes=0-1"


async def test_a_body_in_chunks_goes_on_in_chunks_with_its_trailers(client: Any, origin: Any) -> None:
    """Cut anew; extensions end here, and so do trailers that would be read as something else."""
    body = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\nTransfer-Encoding: x\r\nAuthorization: y\r\n\r\n"
    await client.send(
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        *(body[at : at + 1] for at in range(len(body))),
    )
    assert (await client.response()).body == b"hello"
    await client.get("/y")
    assert (await client.response()).body == b"hello"
    assert origin.asked[0].body == b"abcde|X-Sum: 1"
    assert "content-length" not in origin.asked[0].fields


async def test_large_bodies_stream_both_ways(client: Any, origin: Any) -> None:
    """Neither side is kept in memory: 40 megabytes through buffers of kilobytes."""
    block, count = b"x" * 65_536, 640
    origin.reads_body = False

    async def echo(asked: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = int(asked.fields["content-length"])
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % left)
        while left:
            piece = await reader.read(65_536)
            left -= len(piece)
            writer.write(piece)
            await writer.drain()

    origin.answer = echo

    async def upload() -> None:
        await client.get("/x", f"Content-Length: {len(block) * count}", method="POST")
        for _ in range(count):
            await client.send(block)

    async with asyncio.timeout(60):
        sending = asyncio.create_task(upload())
        status, fields = await client.head()
        left = int(fields["content-length"])
        while left:
            left -= len(await client.reader.read(65_536))
        await sending
    assert status == 200
    assert client.reader.at_eof() is False


async def test_who_waits_for_continue_gets_the_upstreams(client: Any, origin: Any) -> None:
    """And the body goes on afterwards."""
    origin.reads_body = False

    async def answer(asked: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert asked.fields["expect"] == "100-continue"
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(3)
        writer.write(OK + b"Content-Length: 3\r\n\r\n" + body)

    origin.answer = answer
    await client.get("/x", "Content-Length: 3", "Expect: 100-continue", method="POST")
    assert (await client.head())[0] == 100
    await client.send(b"abc")
    assert (await client.response()).body == b"abc"


async def test_who_may_not_pass_is_not_asked_for_the_body(proxied: Any, origin: Any, line: Any) -> None:
    """The refusal is the last answer of its connection, because nobody knows whether the body comes."""
    await proxied({"mode": "consume", "charges": [{"feature": "tokens"}]})
    client = await line()
    await client.get("/x", "Content-Length: 3", "Expect: 100-continue", method="POST")
    reply = await client.response()
    assert (reply.status, reply.is_last) == (401, True)
    assert await client.end() == b""
    assert origin.asked == []


async def test_a_response_before_the_body_is_out_ends_the_connection(client: Any, origin: Any) -> None:
    """What is still sent of it would be read as something else."""
    origin.reads_body = False
    origin.says(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    await client.get("/x", "Content-Length: 1000", method="POST", body=b"abc")
    reply = await client.response()
    assert (reply.status, reply.is_last) == (413, True)
    assert await client.end() == b""


async def test_requests_that_are_pipelined_are_answered_in_their_order(client: Any, origin: Any) -> None:
    """One after the other."""

    async def answer(asked: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = asked.line.split()[1].encode()
        writer.write(OK + b"Content-Length: %d\r\n\r\n%b" % (len(name), name))

    origin.answer = answer
    await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(200)))
    assert [(await client.response()).body for _ in range(200)] == [b"/%d" % number for number in range(200)]
    assert origin.connections == 1


async def test_a_client_of_http_1_0_gets_what_it_can_read(client: Any, origin: Any) -> None:
    """No chunks, and the end of the connection is the end of the body."""
    origin.says(CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n")
    await client.send(b"GET /x HTTP/1.0\r\n\r\n")
    reply = await client.response()
    assert (reply.body, reply.is_last, "transfer-encoding" in reply.fields) == (b"hello", True, False)
    assert origin.asked[0].fields["host"] == f"127.0.0.1:{origin.port}"


async def test_a_target_may_be_an_address(client: Any, origin: Any) -> None:
    """Its host is the one that counts."""
    await client.send(b"GET http://there.example/x?a HTTP/1.1\r\nHost: here.example\r\n\r\n")
    assert (await client.response()).status == 200
    assert origin.asked[0].line == "GET /x?a HTTP/1.1"
    assert origin.asked[0].fields["host"] == "there.example"


HOST = "POST /x HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a//b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (HOST + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (HOST + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HOST + "Content-Length: +3\r\n\r\nabc", 400),
        (HOST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (HOST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (HOST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (HOST + "A: b\r\n c\r\n\r\n", 400),
        (HOST + "A: b\x00\r\n\r\n", 400),
        (HOST + "Host: b\r\n\r\n", 400),
        (HOST + "Expect: else\r\n\r\n", 417),
        ("POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("A" * 40_000, 431),
        (HOST + "A: b\r\n" * 101 + "\r\n", 431),
    ],
)
async def test_a_head_that_can_be_read_in_two_ways_reaches_no_upstream(
    client: Any, origin: Any, raw: str, status: int
) -> None:
    """One answer that says so, and the end of the connection; what stands behind it is not read."""
    await client.get("/before")
    assert (await client.response()).status == 200
    await client.send(raw.encode("latin-1") + b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n")
    reply = await client.response()
    assert (reply.status, reply.is_last) == (status, True)
    assert await client.end() == b""
    assert [asked.line for asked in origin.asked] == ["GET /before HTTP/1.1"]


@pytest.mark.parametrize(
    "chunks", ["1\na\n0\n\n", "1\r\nab\r\n0\r\n\r\n", "g\r\n", "-1\r\n", "1 \r\na\r\n", "0\r\nA: b\n\r\n\r\n"]
)
async def test_chunks_that_can_be_read_in_two_ways_end_there(client: Any, origin: Any, chunks: str) -> None:
    """The upstream loses its connection before it has a whole request."""
    await client.send(f"{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode())
    await client.send(chunks.encode())
    reply = await client.response()
    assert (reply.status, reply.is_last) == (400, True)
    assert origin.asked == []


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"A: b\r\n c\r\n\r\n",
        OK + b"A: b\x00\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        OK + b"A: " + b"b" * 40_000 + b"\r\n\r\n",
    ],
)
async def test_an_upstream_that_cannot_be_understood_is_a_bad_gateway(client: Any, origin: Any, raw: bytes) -> None:
    """The client's connection is none the worse."""
    origin.says(raw)
    await client.get("/x")
    reply = await client.response()
    assert (reply.status, reply.fields["content-type"]) == (502, "application/problem+json")
    origin.says(OK + b"Content-Length: 2\r\n\r\nok")
    await client.get("/x")
    assert (await client.response()).body == b"ok"


async def test_more_than_was_announced_is_nobodys(client: Any, origin: Any) -> None:
    """It is dropped with its connection: the next request has an answer of its own."""
    origin.says(OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    for _ in range(2):
        await client.get("/x")
        assert (await client.response()).body == b"ok"
    assert origin.connections == 2


async def test_a_kept_connection_that_was_closed_costs_nobody_an_answer(
    client: Any, origin: Any, eventually: Any
) -> None:
    """What may be repeated is; what may not is told as a bad gateway."""

    async def answer(asked: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if origin.connections == 1 and len(origin.asked) > 1:
            writer.close()
            return
        writer.write(OK + b"Content-Length: 2\r\n\r\nok")

    origin.answer = answer
    for _ in range(2):
        await client.get("/x")
        assert (await client.response()).body == b"ok"
    assert (origin.connections, len(origin.asked)) == (2, 3)


async def test_no_upstream_is_a_bad_gateway(proxied: Any, origin: Any, line: Any, free_port: Any) -> None:
    """And it says so at once."""
    await proxied({}, upstream={"endpoints": [{"url": f"http://127.0.0.1:{free_port()}"}]})
    client = await line()
    for _ in range(5):
        await client.get("/x")
        assert (await client.response()).status == 502


async def test_an_upstream_that_does_not_answer_is_a_time_out(proxied: Any, origin: Any, line: Any) -> None:
    """After what the route says."""
    waiting = asyncio.Event()

    async def answer(asked: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await waiting.wait()

    origin.answer = answer
    await proxied({"response_ms": 50})
    client = await line()
    await client.get("/x")
    assert (await client.response()).status == 504
    waiting.set()


async def test_a_body_above_the_bound_is_refused(proxied: Any, origin: Any, line: Any) -> None:
    """By what it announces, or as soon as it passes the bound."""
    await proxied({"max_body_bytes": 10})
    client = await line()
    await client.get("/x", "Content-Length: 11", method="POST")
    assert (await client.response()).status == 413
    client = await line()
    await client.send(f"{HOST}Transfer-Encoding: chunked\r\n\r\n8\r\nabcdefgh\r\n".encode(), b"8\r\nabcdefgh\r\n")
    reply = await client.response()
    assert (reply.status, reply.is_last) == (413, True)
    assert origin.asked == []


async def test_a_head_that_comes_drop_by_drop_is_given_up(proxied: Any, origin: Any, line: Any) -> None:
    """However often something comes, it must be whole in time; the same for a body that is read first."""
    priced = {"path": "/priced", "mode": "consume", "charges": [{"feature": "tokens", "quantity": {"json": "n"}}]}
    await proxied(priced, {}, request_read_ms=100)
    for raw in (b"GET /x HTTP/1.1\r\n", b"POST /priced HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n"):
        client = await line()
        await client.send(raw)
        dripping = asyncio.create_task(drip(client))
        assert (await client.response()).status == 408
        dripping.cancel()


async def drip(client: Any) -> None:
    """For as long as somebody listens."""
    while True:
        client.writer.write(b"A")
        await asyncio.sleep(0.001)


async def test_who_does_not_read_is_hung_up_on(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any
) -> None:
    """The client pays by the policy, and the upstream was well all the time."""
    await world.grant(10**9)
    charge = {"feature": "tokens", "quantity": {"units": 7}, "settle": {"json": "n"}}
    worker = await proxied({"silence_ms": 1_000, "charges": [charge]})
    origin.says(OK + b"Content-Length: 100000000\r\n\r\n", *[b"x" * 1_000_000] * 100)
    client = await line()
    await client.get("/x", f"X-Api-Key: {world.key}")
    await client.head()
    await eventually(lambda: not worker.proxy.exchanges)
    await books.settled(10**9 - 700)
    (told,) = await books.evidence()
    assert told["ending"] == "client_lost"
    assert int(told["delivered_bytes"]) < 100_000_000


async def test_a_body_is_json_only_where_the_price_stands_in_it(proxied: Any, origin: Any, line: Any) -> None:
    """Asking for usage refuses nobody."""
    await proxied({"include_usage": True})
    client = await line()
    await client.get("/x")
    assert (await client.response()).status == 200
    await client.get("/x", "Content-Length: 3", method="POST", body=b"abc")
    assert (await client.response()).status == 200
    assert origin.asked[1].body == b"abc"
