"""Requests by the bytes that a client can send through a proxy: never a fault, never another charge."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

KEY = b"Authorization: Bearer tgk_caller\r\n"
ENVOY = b"/v1/authorize/envoy/calls/1"
FORWARD = b"/v1/authorize/forward?feature=calls&quantity=1"


async def send(call: Any, target: bytes, *, method: bytes = b"GET", fields: bytes = KEY) -> int:
    """The status of the answer to a request of these bytes."""
    port = int(call.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"%b %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%b\r\n" % (method, target, fields))
        async with asyncio.timeout(30):
            line = await reader.readline()
    finally:
        writer.close()
    return int(line.split()[1])


TAILS = [
    b"", b"/", b"//", b"//evil.example/x", b"/..", b"/../../..", b"/../2", b"/%2e%2e/", b"/%2F%2f", b"/a%00b",
    b"/;mode=peek", b"/;mode=hold;ttl_ms=1", b"/x?feature=export&quantity=0", b"?quantity=0", b"/?%3F", b"/a?b?c",
    b"/calls/0", b"/./.", b"/%", b"/%zz", b"/%ff", b"/{path}", b"/*", b"/a+b", b"/a:80@b", b"/'\"<>|", b"/\\..\\",
    b"/~!$&'()*,=", b"/" + b"a/" * 3_000, b"/" + b"%2F" * 2_000,
]  # fmt: skip


def named(target: bytes) -> str:
    """How a case is called."""
    return target[:60].decode("latin-1")


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"PROPFIND"])
async def test_whatever_path_a_client_asks_for_it_pays_what_the_operator_says(
    gateway: Any, world: Any, method: bytes
) -> None:
    """One call each, by whatever method; where a proxy could not send such bytes, nobody passes and nobody pays."""
    worker, call = gateway
    await world.project(features={"calls": world.features["export"]})
    statuses = [await send(call, ENVOY + tail, method=method) for tail in TAILS]
    assert set(statuses) <= {200, 400, 404}
    entries = await world.entries()
    assert len(entries) == statuses.count(200) >= len(TAILS) - 4
    assert {(entry.body.features, entry.charges[0].quantity) for entry in entries} == {(("calls",), 1)}
    assert worker.door.faults == 0


OPERATORS = [
    b"", b"/", b"//", b"/calls", b"/calls/", b"/calls//1/", b"//calls/1/", b"/calls%2F1/", b"/calls/%31/",
    b"/../envoy/calls/1/", b"/calls/1;mode=hold/", b"/calls/1%3Bmode=peek/", b"/calls/1;/", b"/calls/1;ttl_ms=5/",
    b"/calls/-1/", b"/calls/9007199254740992/", b"/" + b"a" * 70 + b"/1/", b"/calls/1" + b"0" * 4_000,
    b"/calls/1/" + b"a" * 65_536,
]  # fmt: skip
TARGETS = [
    *(b"/v1/authorize/envoy" + words for words in OPERATORS),
    b"/v1//authorize/envoy/calls/1/",
    b"/v1/authorize/./envoy/calls/1/",
    FORWARD + b"&" + b"a" * 65_536,
    FORWARD + b"\xff",
    b"/v1/authorize/forward?%66eature=calls&quantity=1",
    b"/v1/authorize/forward?mode=%70eek%20&feature=calls&quantity=1",
    b"/v1/authorize/settle?hold=" + b"a" * 65_536,
    b"/v1/authorize/settle?hold=hold_%2e%2e",
]


@pytest.mark.parametrize("target", TARGETS, ids=named)
async def test_what_no_operator_has_written_passes_nobody(gateway: Any, unchanged: Any, target: bytes) -> None:
    """By whatever status; nothing is written."""
    worker, call = gateway
    async with unchanged():
        for method in (b"GET", b"HEAD"):
            assert 400 <= await send(call, target, method=method) < 500
    assert worker.door.faults == 0


APPENDED = [
    b"feature=export&quantity=0",
    b"mode=peek",
    b"shadow=1",
    b"mode=hold&ttl_ms=1",
    b"ttl_ms=1",
    b"%00",
    b"&&==",
    b"quantity=0&quantity=0",
    b"a=" + b"%ff" * 1_000,
    b"x&" * 3_000,
]


@pytest.mark.parametrize("behind", APPENDED, ids=named)
async def test_whatever_a_client_appends_to_a_query_it_pays_what_the_operator_says(
    gateway: Any, world: Any, behind: bytes
) -> None:
    """Caddy appends the client's query to ours."""
    worker, call = gateway
    for dialect in (b"forward", b"nginx"):
        assert await send(call, b"/v1/authorize/%b?feature=calls&quantity=2&%b" % (dialect, behind)) == 200
    entries = await world.entries()
    assert [(entry.body.features, entry.charges[0].quantity) for entry in entries] == [(("calls",), 2)] * 2
    assert worker.door.faults == 0


async def test_a_client_has_no_say_in_what_its_proxy_tells_of_it(call: Any, world: Any) -> None:
    """A request id counts where the settings name its header, and not otherwise; nor do two keys open two doors."""
    fields = KEY + b"X-Request-Id: mine\r\nX-Tallygate-Plan: gold\r\nX-Api-Key: tgk_other\r\n"
    for _ in range(3):
        assert await send(call, ENVOY + b"/x", fields=fields) == 200
    assert len(await world.entries()) == 3
