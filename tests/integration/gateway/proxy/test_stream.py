"""Streams of server-sent events: settled by their usage, cut where the hold ends, and paid for whoever hangs up."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.integration.gateway.proxy.test_pass import bearer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}
DONE = b"data: [DONE]\n\n"


def event(document: Any) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


def said(text: str) -> bytes:
    return event({"choices": [{"delta": {"content": text}}]})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WORDS = [said("four") for _ in range(9)]
"""A token each."""


def route(units: int = 20, **more: Any) -> dict[str, Any]:
    charge = {"feature": "tokens", "quantity": {"units": units}, "settle": {"usage": "output"}}
    return {"charges": [charge]} | more


async def test_a_stream_is_settled_by_its_usage(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any
) -> None:
    """Each event passes as it is, however it was cut."""
    await world.grant(10_000)
    await proxied(route())
    whole = b"".join([*WORDS, event(USAGE), DONE])
    origin.says(HEAD, *(chunk(whole[at : at + 7]) for at in range(0, len(whole), 7)), b"0\r\n\r\n")
    client = await line()
    await client.get("/x", bearer(world))
    reply = await client.response()
    assert reply.body == whole
    await books.settled(10_000 - 900)
    assert await books.units() == {"tokens": 9}
    assert await books.evidence() == []


async def test_cumulative_usage_counts_once(proxied: Any, origin: Any, line: Any, world: Any, books: Any) -> None:
    """Of a stream of messages the last number of each counts."""
    await world.grant(10_000)
    both = [
        {"feature": "tokens", "quantity": {"units": 20}, "settle": {"usage": "total"}},
        {"feature": "calls", "quantity": {"units": 5}, "settle": {"usage": "output"}},
    ]
    await proxied({"charges": both})
    events = [
        event(
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 7, "cache_read_input_tokens": 2, "output_tokens": 1}},
            }
        ),
        event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "four"}}),
        event({"type": "message_delta", "usage": {"output_tokens": 3}}),
        event({"type": "message_delta", "usage": {"output_tokens": 4}}),
    ]
    origin.says(HEAD, chunk(b"".join(events)), b"0\r\n\r\n")
    client = await line()
    await client.get("/x", bearer(world))
    assert (await client.response()).body == b"".join(events)
    await books.settled(10_000 - 1_300)
    assert await books.units() == {"tokens": 13, "calls": 4}


@pytest.mark.parametrize("asks", [False, True])
async def test_usage_is_asked_for_and_only_told_to_who_asked(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, asks: bool
) -> None:
    """The rest of the body goes on word for word."""
    await world.grant(10_000)
    await proxied(route(include_usage=True))
    origin.says(HEAD, chunk(said("four") + event(USAGE) + DONE), b"0\r\n\r\n")
    client = await line()
    options = b', "stream_options": {"include_usage": true}' if asks else b', "stream_options": {"x": 1.50}'
    body = b'{"n": 1.0e2, "stream": true' + options + b"}"
    await client.get("/x", bearer(world), f"Content-Length: {len(body)}", method="POST", body=body)
    reply = await client.response()
    assert reply.body == (said("four") + event(USAGE) + DONE if asks else said("four") + DONE)
    sent = origin.asked[0].body
    assert msgspec.json.decode(sent)["stream_options"]["include_usage"] is True
    assert (sent == body) == asks
    assert b'"n":1.0e2' in sent.replace(b": ", b":")
    assert asks or b'"x":1.50' in sent.replace(b": ", b":")
    await books.settled(10_000 - 900)


async def test_a_body_that_is_no_stream_is_left_as_it_is(proxied: Any, origin: Any, line: Any, world: Any) -> None:
    """Nothing is asked for there."""
    await world.grant(10_000)
    await proxied(route(include_usage=True))
    client = await line()
    await client.get("/x", bearer(world), "Content-Length: 17", method="POST", body=b'{"stream": false}')
    assert (await client.response()).status == 200
    assert origin.asked[0].body == b'{"stream": false}'


async def test_a_stream_is_cut_where_the_hold_ends(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any
) -> None:
    """Three tokens are held and no more is to be had: three pass, an error says why, and three are charged."""
    await world.grant(10_000)
    await proxied(route(3))
    origin.says(HEAD, *map(chunk, WORDS), chunk(event(USAGE)), b"0\r\n\r\n")
    client = await line()
    await client.get("/x", bearer(world))
    reply = await client.response()
    before, error = reply.body[: len(WORDS[0]) * 3], reply.body[len(WORDS[0]) * 3 :]
    assert before == WORDS[0] * 3
    assert error.startswith(b"event: error\ndata: ")
    assert msgspec.json.decode(error.partition(b"data: ")[2])["error"]["type"] == "insufficient_balance"
    await books.settled(9_700)
    assert await books.units() == {"tokens": 3}
    (told,) = await books.evidence()
    assert (told["ending"], told["delivered_tokens"]) == ("cut", "3")
    origin.says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await client.get("/x", bearer(world))
    assert (await client.response()).body == b"ok"


@pytest.mark.parametrize(("granted", "passing"), [(10_000, 9), (700, 7), (600, 6), (300, 3)])
async def test_a_hold_that_is_used_up_is_extended_as_far_as_the_wallet_goes(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, granted: int, passing: int
) -> None:
    """Two at a time; not one token passes that nobody has set aside."""
    await world.grant(granted)
    await proxied(route(3, extend_units=2))
    origin.says(HEAD, *map(chunk, WORDS), chunk(event(USAGE)), b"0\r\n\r\n")
    client = await line()
    await client.get("/x", bearer(world))
    reply = await client.response()
    assert reply.body.count(b"four") == passing
    assert (b"event: error" in reply.body) == (passing < 9)
    await books.settled(granted - passing * 100)
    assert await books.units() == {"tokens": passing}


@pytest.mark.parametrize(("policy", "units"), [("delivered", 5), ("usage", 3), ("held", 20), ("release", 0)])
async def test_a_stream_whose_upstream_dies_is_charged_by_the_policy(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, policy: str, units: int
) -> None:
    """The client gets an error event and no proper end."""
    await world.grant(10_000)
    await proxied(route(on_upstream_loss=policy))
    frame = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}})
    origin.says(HEAD + chunk(WORDS[0] * 4 + frame + WORDS[0] * 2) + b"ff\r\ndata: half", closes=True)
    client = await line()
    await client.get("/x", bearer(world))
    await client.head()
    rest = await client.end()
    assert rest.startswith(chunk(WORDS[0])[: -len(WORDS[0])]) or WORDS[0] in rest
    assert b"event: error" in rest
    assert not rest.endswith(b"0\r\n\r\n")
    await books.settled(10_000 - units * 100)
    assert [one["ending"] for one in await books.evidence()] == (["upstream_lost"] if units else [])


@pytest.mark.parametrize("policy", ["delivered", "drain", "held"])
async def test_a_client_that_hangs_up_at_any_byte_pays(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any, policy: str
) -> None:
    """Wherever in the response: no hold stays, and it is charged by the policy.

    The origin tells one event after the other, and each only when the client has the one before or has gone.
    """
    await world.grant(10**9)
    worker = await proxied(route(on_disconnect=policy))
    step = asyncio.Event()

    async def answer(asked: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for piece in (*map(chunk, WORDS), chunk(event(USAGE) + DONE), b"0\r\n\r\n"):
            writer.write(piece)
            await writer.drain()
            await step.wait()
            step.clear()

    origin.answer = answer
    before = await books.wallet()
    offsets = range(1, len(chunk(WORDS[0])) * 8, 11)
    for offset in offsets:
        client = await line()
        await client.get("/x", bearer(world))
        await client.head()
        got = b""
        while len(got) < offset:
            step.set()
            got += await client.reader.read(offset - len(got))
        client.writer.transport.abort()
        await eventually(lambda: keeps_stepping(step) and not worker.proxy.exchanges)
        after = await books.wallet()
        units = (before[0] - after[0]) // 100
        assert after[1] == 0
        if policy == "delivered":
            assert got.count(b"four") <= units <= 9
        else:
            assert units == {"held": 20, "drain": 9}[policy]
        before = after
    told = await books.evidence()
    assert {(one["ending"], one["policy"]) for one in told} == {("client_lost", policy)}
    assert len(told) <= len(offsets)


def keeps_stepping(step: asyncio.Event) -> bool:
    step.set()
    return True


async def test_draining_ends_in_time(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any
) -> None:
    """An upstream that never comes to its end is left, and what was delivered counts."""
    await world.grant(10_000)
    worker = await proxied(route(on_disconnect="drain", drain_ms=50))
    origin.says(HEAD + chunk(WORDS[0] * 2))
    client = await line()
    await client.get("/x", bearer(world))
    await client.head()
    await client.reader.readexactly(len(WORDS[0]))
    client.writer.transport.abort()
    await eventually(lambda: not worker.proxy.exchanges and origin.lost)
    await books.settled(9_800)


async def test_a_client_that_goes_before_anything_came_pays_by_the_policy(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any
) -> None:
    """The upstream has the request, and may have worked."""
    await world.grant(10_000)
    worker = await proxied(route())
    silent = asyncio.Event()

    async def answer(asked: Any, reader: Any, writer: Any) -> None:
        await silent.wait()

    origin.answer = answer
    client = await line()
    await client.get("/x", bearer(world))
    await eventually(lambda: origin.asked)
    client.writer.transport.abort()
    await eventually(lambda: not worker.proxy.exchanges)
    silent.set()
    await books.settled(8_000)
    (told,) = await books.evidence()
    assert (told["ending"], told["status"], told["delivered_bytes"]) == ("client_lost", "0", "0")
