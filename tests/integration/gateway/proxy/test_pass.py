"""Requests pass, and are charged as their route says."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from billing_core.contract.shipped import shipped
from tests.integration.gateway.proxy.conftest import TOKENS

FREE: dict[str, Any] = {}
CONSUME = {"mode": "consume", "charges": [TOKENS]}


@pytest.fixture(params=["long", "straight"])
def way(request: pytest.FixtureRequest) -> str:
    """Decisions are the same on both."""
    return request.param


def bearer(world: Any) -> str:
    return f"Authorization: Bearer {world.key}"


async def test_a_request_passes_both_ways(proxied: Any, origin: Any, line: Any, world: Any) -> None:
    """Word for word but for what belongs to a connection; the upstream learns who it is, and never the key."""
    await world.project(features={"tokens": msgspec.structs.replace(world.features["tokens"], plan="pro")})
    await world.grant(1_000)
    await proxied(CONSUME)
    client = await line()
    sent = "X-Custom: Kept  as it is", "traceparent: 00-a-b-01", "X-Tallygate-Plan: gold"
    for _ in range(3):
        await client.get("/v1/things?a=b%20c", bearer(world), *sent)
        reply = await client.response()
        assert (reply.status, reply.body) == (200, b"hello")
        assert reply.fields["content-type"] == "text/plain"
    asked = origin.asked[-1]
    assert asked.line == "GET /v1/things?a=b%20c HTTP/1.1"
    assert asked.fields["x-custom"] == "Kept  as it is"
    assert asked.fields["traceparent"] == "00-a-b-01"
    assert asked.fields["host"] == "api.example"
    assert (asked.fields["x-tallygate-customer"], asked.fields["x-tallygate-plan"]) == ("acme", "pro")
    assert asked.fields["x-tallygate-decision"].startswith("dec_")
    assert asked.fields["x-forwarded-for"] == "127.0.0.1"
    assert "tallygate" in asked.fields["via"]
    assert "authorization" not in asked.fields
    assert origin.connections == 1
    assert reply.fields["x-tallygate-balance"] == "700 USD"
    assert [sum(one.charged_nanos for one in entry.charges) for entry in await world.entries()] == [100] * 3


async def test_of_100_at_once_10_pass_that_are_paid_for(proxied: Any, origin: Any, line: Any, world: Any) -> None:
    """The wallet is for ten."""
    await world.grant(1_000)
    await proxied(CONSUME)

    async def ask() -> int:
        client = await line()
        await client.get("/x", bearer(world))
        return (await client.response()).status

    statuses = await asyncio.gather(*(ask() for _ in range(100)))
    assert sorted(statuses) == [200] * 10 + [402] * 90
    assert len(origin.asked) == 10


async def test_who_cannot_pay_is_told_how_to(proxied: Any, line: Any, world: Any) -> None:
    """In the body and in the head, where the operator offers a way."""
    await proxied(CONSUME, payment_offer_file=str(shipped("payment.toml")))
    client = await line()
    await client.get("/x", bearer(world))
    reply = await client.response()
    url = "https://billing.example.com/top-up?customer=acme"
    assert (reply.status, reply.json()["payment"]) == (402, {"top_up_url": url})
    assert reply.fields["link"] == f'<{url}>; rel="payment"'
    assert "payment-required" in reply.fields


async def test_who_may_not_pass_is_told_so_and_asks_again_on_the_same_connection(
    proxied: Any, origin: Any, line: Any, world: Any
) -> None:
    """The upstream never hears of it; a body that came with it is not taken for a request."""
    await proxied(CONSUME)
    client = await line()
    await client.get("/x", bearer(world), "Content-Length: 18", method="POST", body=b"GET /evil HTTP/1.1")
    reply = await client.response()
    assert (reply.status, reply.json()["code"]) == (402, "insufficient_balance")
    await client.get("/x")
    assert (await client.response()).status == 401
    await client.get("/x", "X-Api-Key: tgk_unknown", method="HEAD")
    assert (await client.response(is_head=True)).status == 401
    await world.grant(100)
    await client.get("/x", f"X-Api-Key: {world.key}")
    assert (await client.response()).status == 200
    assert [asked.line for asked in origin.asked] == ["GET /x HTTP/1.1"]
    assert "x-api-key" not in origin.asked[0].fields


async def test_the_first_route_that_matches_counts(proxied: Any, origin: Any, line: Any, world: Any) -> None:
    """By host, method and path; what no route has is no path, and what only another method has is not allowed."""
    await world.grant(10_000)
    ten = {"mode": "consume", "charges": [{"feature": "tokens", "quantity": {"units": 10}}]}
    await proxied(
        {"path": "/health"},
        ten | {"path": "/v1/models/{model}", "methods": ["POST"]},
        CONSUME | {"path": "/v1/{rest...}", "host": "API.example"},
    )
    client = await line()
    asked = [
        ("GET", "/health", 200, None),
        ("POST", "/v1/models/a", 200, 1_000),
        ("POST", "/v1/%6dodels/a", 200, 1_000),
        ("GET", "/v1/models/a", 200, 100),
        ("POST", "/v1/models/a/b", 200, 100),
        ("POST", "/nowhere", 404, None),
    ]
    for method, path, status, cost in asked:
        before = len(await world.entries())
        await client.get(path, bearer(world), "Content-Length: 0", method=method)
        assert (await client.response()).status == status
        entries = (await world.entries())[before:]
        assert [sum(one.charged_nanos for one in entry.charges) for entry in entries] == ([cost] if cost else [])
    await client.send(b"GET /v1/x HTTP/1.1\r\nHost: other.example\r\n\r\n")
    assert (await client.response()).status == 404


async def test_what_is_asked_for_may_stand_in_a_header_or_in_the_body(
    proxied: Any, origin: Any, line: Any, world: Any
) -> None:
    """Where it is missing and no default is told, the request is refused and nothing is charged."""
    await world.grant(100_000)
    await proxied(
        {"path": "/h", "mode": "consume", "charges": [{"feature": "tokens", "quantity": {"header": "X-Units"}}]},
        {
            "path": "/j",
            "mode": "consume",
            "charges": [{"feature": "tokens", "quantity": {"json": "a.0.n", "default": 3, "most": 9}}],
        },
        {"path": "/e", "mode": "consume", "charges": [{"feature": "tokens", "quantity": {"estimate": "messages"}}]},
    )
    client = await line()
    rows = [
        ("/h", ("X-Units: 7",), b"", 200, 700),
        ("/h", (), b"", 400, 0),
        ("/h", ("X-Units: -7",), b"", 400, 0),
        ("/j", (), b'{"a": [{"n": 5}]}', 200, 500),
        ("/j", (), b'{"a": []}', 200, 300),
        ("/j", (), b'{"a": [{"n": 10}]}', 400, 0),
        ("/j", (), b"not json", 400, 0),
        ("/e", (), b'{"messages": [{"role": "user", "content": "Hello there"}]}', 200, 400),
    ]
    for path, lines, body, status, cost in rows:
        before = len(await world.entries())
        length = f"Content-Length: {len(body)}"
        await client.get(path, bearer(world), length, *lines, method="POST", body=body)
        reply = await client.response()
        assert reply.status == status, reply.body
        entries = (await world.entries())[before:]
        assert sum(one.charged_nanos for entry in entries for one in entry.charges) == cost
        if status == 200:
            assert origin.asked[-1].body == body


async def test_headers_are_set_and_taken_away_as_the_route_says(
    proxied: Any, origin: Any, line: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret of the upstream's comes from the environment; the upstream may want its own name."""
    await world.grant(1_000)
    monkeypatch.setenv("UPSTREAM_KEY", "sk-1")
    origin.says(b"HTTP/1.1 200 OK\r\nServer: x\r\nX-Tallygate-Customer: forged\r\nContent-Length: 0\r\n\r\n")
    await proxied(
        CONSUME
        | {
            "pass_host": False,
            "set_request_headers": {"Authorization": "Bearer ${UPSTREAM_KEY}", "X-New": "1"},
            "remove_request_headers": ["Cookie"],
            "set_response_headers": {"X-Frame-Options": "DENY"},
            "remove_response_headers": ["server"],
        }
    )
    client = await line()
    await client.get(
        "/x", bearer(world), "Cookie: a=b", "X-Tallygate-Customer: evil", "Connection: X-New, X-Tallygate-Decision"
    )
    reply = await client.response()
    fields = origin.asked[0].fields
    assert (fields["authorization"], fields["x-new"], fields["x-tallygate-customer"]) == (
        "Bearer sk-1",
        "1",
        "acme",
    )
    assert fields["host"] == f"127.0.0.1:{origin.port}"
    assert "cookie" not in fields
    assert "x-tallygate-decision" in fields
    assert (reply.fields["x-frame-options"], "server" in reply.fields) == ("DENY", False)
    assert "x-tallygate-customer" not in reply.fields


async def test_a_route_may_keep_the_callers_key(proxied: Any, origin: Any, line: Any, world: Any) -> None:
    """Where the upstream knows it too."""
    await world.grant(1_000)
    await proxied(CONSUME | {"key": "keep"})
    client = await line()
    await client.get("/x", bearer(world))
    assert (await client.response()).status == 200
    assert origin.asked[0].fields["authorization"] == f"Bearer {world.key}"
