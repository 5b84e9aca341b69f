"""What is known only afterwards is held before and settled exactly; who was not served pays nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing_core.errors import Unavailable
from tests.integration.gateway.proxy.test_pass import bearer
from tests.integration.gateway.proxy.test_stream import HEAD, USAGE, WORDS, chunk, event

OK = b"HTTP/1.1 200 OK\r\n"


class Deaf:
    """A link that nobody hears."""

    def run(self, *_: Any, **__: Any) -> Any:
        raise Unavailable("nobody hears")


def held(units: int, settle: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A route that holds so many tokens."""
    charge: dict[str, Any] = {"feature": "tokens", "quantity": {"units": units}}
    return {"charges": [charge | ({"settle": settle} if settle else {})]} | more


def answered(body: bytes, *rows: bytes, status: bytes = b"200 OK") -> bytes:
    lines = b"".join(row + b"\r\n" for row in rows)
    return b"HTTP/1.1 " + status + b"\r\n" + lines + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


JSON = b"Content-Type: application/json"
DETAILS = b'"prompt_tokens_details": {"cached_tokens": 2}'
CHAT = b'{"usage": {"prompt_tokens": 9, "completion_tokens": 4, ' + DETAILS + b"}}"
MESSAGE = b'{"usage": {"input_tokens": 7, "cache_read_input_tokens": 2, "output_tokens": 4}}'


@pytest.mark.parametrize(
    ("settle", "response", "units"),
    [
        (None, answered(b"x"), 20),
        ({"units": 3}, answered(b"x"), 3),
        ({"header": "X-Units"}, answered(b"x", b"X-Units: 7"), 7),
        ({"header": "X-Units"}, answered(b"x"), 20),
        ({"header": "X-Units"}, answered(b"x", b"X-Units: many"), 20),
        ({"json": "cost.units"}, answered(b'{"cost": {"units": 5}}', JSON), 5),
        ({"json": "cost.units"}, answered(b'{"cost": 5}', JSON), 20),
        ({"bytes": 10}, answered(b"x" * 25), 3),
        ({"usage": "input"}, answered(CHAT, JSON), 7),
        ({"usage": "cached"}, answered(CHAT, JSON), 2),
        ({"usage": "output"}, answered(CHAT, JSON), 4),
        ({"usage": "total"}, answered(CHAT, JSON), 13),
        ({"usage": "total"}, answered(MESSAGE, JSON), 13),
        ({"usage": "input"}, answered(MESSAGE, JSON), 7),
        ({"usage": "output"}, answered(b"{}", JSON), 20),
        ({"usage": "output"}, answered(CHAT, JSON, b"Content-Encoding: gzip"), 20),
        (None, answered(b"x", status=b"500 No"), 0),
        (None, answered(b"x", status=b"404 No"), 20),
        ({"units": 30}, answered(b"x"), 30),
    ],
)
async def test_a_hold_is_settled_by_its_response(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, settle: Any, response: bytes, units: int
) -> None:
    """As the route says; what it cannot see is settled as held, and the upstream's own errors are free."""
    await world.grant(10_000)
    await proxied(held(20, settle))
    origin.says(response)
    client = await line()
    await client.get("/x", bearer(world))
    reply = await client.response()
    assert reply.body == response.partition(b"\r\n\r\n")[2]
    await books.settled(10_000 - units * 100)
    assert await books.units() == ({"tokens": units} if units else {})
    assert await books.evidence() == []


async def test_the_next_request_of_a_connection_knows_what_the_last_one_cost(
    proxied: Any, origin: Any, line: Any, world: Any
) -> None:
    """What was not used is free again before it is decided: 98 requests of one token, each of which holds three."""
    await world.grant(10_000)
    await proxied(held(3, {"units": 1}))
    client = await line()
    statuses = []
    for _ in range(100):
        await client.get("/x", bearer(world))
        statuses.append((await client.response()).status)
    assert statuses == [200] * 98 + [402] * 2


async def test_of_100_at_once_10_are_held_that_are_paid_for(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any
) -> None:
    """A wallet for ten holds."""
    await world.grant(10_000)
    await proxied(held(10))

    async def ask() -> int:
        client = await line()
        await client.get("/x", bearer(world))
        return (await client.response()).status

    statuses = await asyncio.gather(*(ask() for _ in range(100)))
    assert sorted(statuses) == [200] * 10 + [402] * 90
    await books.settled(0)


async def test_several_features_are_held_and_settled_together(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any
) -> None:
    """Each by its own rule."""
    await world.grant(10_000)
    both = [
        {"feature": "tokens", "quantity": {"json": "max"}, "settle": {"usage": "output"}},
        {"feature": "calls", "quantity": {"units": 2}, "settle": {"units": 1}},
    ]
    await proxied({"charges": both})
    origin.says(answered(CHAT, JSON))
    client = await line()
    await client.get("/x", bearer(world), "Content-Length: 11", method="POST", body=b'{"max": 50}')
    assert (await client.response()).status == 200
    await books.settled(9_600)
    assert await books.units() == {"tokens": 4, "calls": 1}


@pytest.mark.parametrize("raw", [b"", OK[:9], OK + b"A: b\r\n"])
async def test_an_upstream_that_goes_without_an_answer_costs_nothing(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, raw: bytes
) -> None:
    """Nobody was served."""
    await world.grant(10_000)
    await proxied(held(20))
    origin.says(raw, closes=True)
    client = await line()
    await client.get("/x", bearer(world))
    assert (await client.response()).status == 502
    await books.settled(10_000)
    assert await books.units() == {}


@pytest.mark.parametrize(
    ("policy", "settle", "units"),
    [
        ("delivered", {"bytes": 10}, 1),
        ("delivered", {"json": "n"}, 20),
        ("held", {"bytes": 10}, 20),
        ("release", {"bytes": 10}, 0),
    ],
)
async def test_an_upstream_that_dies_in_the_middle_is_charged_by_the_policy(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, policy: str, settle: Any, units: int
) -> None:
    """The client sees that its response is cut, and the usage event tells why it costs what it costs."""
    await world.grant(10_000)
    await proxied(held(20, settle, on_upstream_loss=policy))
    origin.says(OK + b"Content-Length: 100\r\n\r\n0123456789", closes=True)
    client = await line()
    await client.get("/x", bearer(world))
    assert (await client.head())[0] == 200
    assert await client.end() == b"0123456789"
    await books.settled(10_000 - units * 100)
    told = await books.evidence()
    assert len(told) == (1 if units else 0)
    for one in told:
        assert (one["ending"], one["policy"], one["delivered_bytes"]) == ("upstream_lost", policy, "10")


async def test_while_redis_is_away_a_route_refuses_or_lets_pass(
    proxied: Any, origin: Any, line: Any, world: Any
) -> None:
    """Refusing is what it does unless it is told."""
    worker = await proxied({"path": "/refused"} | held(1), {"path": "/passed", "on_outage": "pass"} | held(1))
    await world.grant(10_000)
    client = await line()
    await client.get("/refused", bearer(world))  # the key is known from here on
    assert (await client.response()).status == 200
    for link in worker.links.values():
        await link.stop()
    await client.get("/refused", bearer(world))
    assert (await client.response()).status == 503
    await client.get("/passed", bearer(world))
    assert (await client.response()).status == 200
    assert worker.proxy.tally.read()["unpaid"] == 1
    assert "x-tallygate-decision" not in origin.asked[-1].fields


async def test_a_settlement_that_redis_does_not_hear_is_told_again(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any
) -> None:
    """Redis goes while the upstream works; when it is back the hold is settled, once."""
    worker = await proxied(held(20, {"units": 4}), bulk_deadline_ms=200)
    await world.grant(10_000)
    settlements = worker.proxy.settlements
    stood = settlements.holds._link

    async def answer(asked: Any, reader: Any, writer: Any) -> None:
        settlements.holds._link = Deaf()
        writer.write(answered(b"x"))

    origin.answer = answer
    client = await line()
    await client.get("/x", bearer(world))
    assert (await client.response()).status == 200
    await eventually(lambda: settlements.waiting_count == 1)
    assert await books.wallet() == (8_000, 2_000)
    settlements.holds._link = stood
    await books.settled(9_600)
    assert (settlements.waiting_count, settlements.settled) == (0, 1)


@pytest.mark.parametrize(("on_outage", "passing"), [("refuse", 3), ("pass", 9)])
async def test_a_stream_that_cannot_be_covered_in_an_outage_is_cut_or_goes_on(
    proxied: Any, origin: Any, line: Any, world: Any, books: Any, eventually: Any, on_outage: str, passing: int
) -> None:
    """As the route says; what it came to is charged once Redis is back, and once."""
    await world.grant(10_000)
    charge = {"feature": "tokens", "quantity": {"units": 3}, "settle": {"usage": "output"}}
    told = {"charges": [charge], "extend_units": 2, "on_outage": on_outage}
    worker = await proxied(told, bulk_deadline_ms=50)

    async def answer(asked: Any, reader: Any, writer: asyncio.StreamWriter) -> None:
        await world.valkey.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
        writer.write(HEAD + b"".join(map(chunk, WORDS)) + chunk(event(USAGE)) + b"0\r\n\r\n")

    origin.answer = answer
    client = await line()
    await client.get("/x", bearer(world))
    body = (await client.response()).body
    assert body.count(b"four") == passing
    assert (b'"code":"unavailable"' in body) == (on_outage == "refuse")
    await eventually(lambda: worker.settlements.waiting_count == 1)
    await world.valkey.execute_command("CLIENT", "UNPAUSE")
    await eventually(lambda: worker.settlements.waiting_count == 0 and not worker.proxy.exchanges)
    await books.settled(10_000 - passing * 100)
    assert await books.units() == {"tokens": passing}
    assert len(await world.entries()) == 1
