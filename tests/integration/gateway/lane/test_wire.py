"""The lane on a real socket: order, cuts, ends, and what is handed to aiohttp."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.gateway.lane.conftest import framed

pytestmark = pytest.mark.usefixtures("call")


def asks(world: Any, name: str) -> bytes:
    """A check whose answer names what was asked."""
    return framed("/v1/check", {"key": world.key, "feature": name})


async def test_answers_come_in_the_order_of_their_requests(wire: Any, world: Any) -> None:
    """More at once than are under way at once."""
    line = await wire()
    names = [f"f{n}" for n in range(300)]
    await line.send(b"".join(asks(world, name) for name in names))
    told = [reply.json()["refused_feature"] for reply in await line.replies(len(names))]
    assert told == names


async def test_an_answer_that_is_there_early_waits_for_its_turn(wire: Any, world: Any) -> None:
    """A key that must be looked up, then one that cannot be, then what breaks a rule."""
    line = await wire()
    first = framed("/v1/check", {"key": "tgk_nobody", "feature": "calls"})
    await line.send(first + framed("/v1/check", {"key": "ü", "feature": "calls"}) + framed("/v1/check", b"{"))
    replies = await line.replies(3)
    assert [reply.status for reply in replies] == [200, 200, 400]
    assert not any(reply.is_last for reply in replies)


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_the_cuts_between_the_bytes_do_not_matter(wire: Any, check: Any, size: int) -> None:
    """A head may come in any pieces, and a body, and the next request behind it."""
    line, raw = await wire(), check() + check()
    await line.send(*(raw[at : at + size] for at in range(0, len(raw), size)))
    assert [reply.json()["allowed"] for reply in await line.replies(2)] == [True, True]


async def test_a_body_may_come_in_chunks(wire: Any, world: Any) -> None:
    """Who does not know its length beforehand."""
    line = await wire()
    body = b'{"key":"%b","feature":"export"}' % world.key.encode()
    head = b"POST /v1/check HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    await line.send(head + chunks + head, chunks)
    assert [reply.json()["allowed"] for reply in await line.replies(2)] == [True, True]


async def test_the_last_request_closes(wire: Any, check: Any) -> None:
    """And what stands behind it is not read."""
    line = await wire()
    await line.send(check() + check("Connection: close") + check())
    assert [reply.is_last for reply in await line.replies(2)] == [False, True]
    assert await line.end() == b""


async def test_who_says_nothing_more_is_still_answered(wire: Any, check: Any) -> None:
    """A connection that is half closed."""
    line = await wire()
    await line.send(check())
    line.writer.write_eof()
    assert (await line.reply()).status == 200
    assert await line.end() == b""


async def test_what_is_not_the_lanes_is_answered_on_the_same_connection(wire: Any, check: Any, world: Any) -> None:
    """In its turn; from then on aiohttp answers what the lane did before."""
    line = await wire()
    usage = f"GET /v1/customers/acme/usage HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {world.token}\r\n\r\n"
    batch = framed("/v1/check/batch", {"checks": [{"key": world.key, "feature": "export"}]})
    await line.send(check() * 3 + usage.encode() + check() + batch, batch[:9], batch[9:] + check())
    replies = await line.replies(8)
    assert [reply.status for reply in replies[3:]] == [200] * 5
    assert replies[3].json()["customer"] == "acme"
    assert [reply.json()["allowed"] for reply in (*replies[:3], replies[4], replies[7])] == [True] * 5


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /v1/check HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"OPTIONS /v1/check HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ],
)
async def test_paths_and_methods_that_are_nowhere_are_problems(wire: Any, raw: bytes, status: int) -> None:
    """As ever."""
    line = await wire()
    await line.send(raw)
    reply = await line.reply()
    assert (reply.status, reply.fields["content-type"]) == (status, "application/problem+json")


async def test_who_waits_for_leave_to_send_gets_it(wire: Any, check: Any) -> None:
    """`Expect: 100-continue`."""
    line = await wire()
    head, _, body = check("Expect: 100-continue").partition(b"\r\n\r\n")
    await line.send(check() + head + b"\r\n\r\n")
    assert (await line.reply()).status == 200
    assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await line.send(body)
    assert (await line.reply()).json()["allowed"]


async def test_http_1_0_is_answered_and_closed(wire: Any, check: Any) -> None:
    """It knows no better."""
    line = await wire()
    await line.send(check().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await line.reply()).json()["allowed"]
    assert await line.end() == b""


async def test_a_proxy_may_ask_by_any_method_and_with_a_body(wire: Any, world: Any) -> None:
    """The body is nobody's business here."""
    line = await wire()
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        path = "/v1/authorize/forward?feature=export&quantity=1"
        await line.send(framed(path, b"abc", f"X-Api-Key: {world.key}", method=method))
        reply = await line.reply()
        assert (reply.status, reply.body) == (200, b""), method
    await line.send(f"HEAD {path} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {world.key}\r\n\r\n".encode())
    assert (await line.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
