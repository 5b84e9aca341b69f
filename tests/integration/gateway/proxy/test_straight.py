"""What is asked again and again is decided on the straight way, and nothing is different there."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.edge.straight.passage import Passage
from gateway.state.clock import ServerClock
from tests.integration.gateway.proxy.test_pass import bearer


@pytest.fixture(params=["long", "straight"])
def way(request: pytest.FixtureRequest) -> str:
    """Both are asked alike."""
    return request.param


@pytest.fixture
def begun(way: str, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request whether the straight way was taken; on the long way none is let."""
    taken: list[bool] = []
    stood = Passage.begin

    def begin(passage: Passage, *words: Any, **told: Any) -> bool:
        taken.append(way == "straight" and stood(passage, *words, **told))
        return taken[-1]

    monkeypatch.setattr(Passage, "begin", begin)
    return taken


def route(feature: str = "tokens", units: int = 1, **more: Any) -> dict[str, Any]:
    return {"mode": "consume", "charges": [{"feature": feature, "quantity": {"units": units}}]} | more


async def test_each_answer_tells_its_own_decision(
    proxied: Any, origin: Any, line: Any, world: Any, way: str, begun: list[bool]
) -> None:
    """Balance and decision are of this request, from the first to the one that cannot be paid for."""
    await world.grant(500)
    await proxied(route())
    client = await line()
    told = []
    for _ in range(6):
        await client.get("/x", bearer(world), "Content-Length: 3", method="POST", body=b"abc")
        reply = await client.response()
        told.append((reply.status, reply.fields.get("x-tallygate-balance")))
    assert told == [*((200, f"{left} USD") for left in (400, 300, 200, 100, 0)), (402, "0 USD")]
    decisions = [asked.fields["x-tallygate-decision"] for asked in origin.asked]
    assert decisions == [entry.body.event_id for entry in await world.entries()]
    assert [asked.body for asked in origin.asked] == [b"abc"] * 5
    assert begun == [way == "straight"] * 6


async def test_limits_are_told_and_kept(
    proxied: Any, origin: Any, line: Any, world: Any, way: str, begun: list[bool]
) -> None:
    """Ten a day, and the eleventh is told so."""
    worker = await proxied(route("calls"))
    client = await line()
    for left in range(9, -1, -1):
        await client.get("/x", bearer(world))
        reply = await client.response()
        assert (reply.status, reply.fields["ratelimit"].partition(";t=")[0]) == (200, f'"calls";r={left}')
        assert reply.fields["ratelimit-policy"] == '"calls";q=10'
    await client.get("/x", bearer(world))
    reply = await client.response()
    assert (reply.status, reply.json()["code"]) == (429, "limit_reached")
    assert int(reply.fields["retry-after"]) > 0
    assert worker.proxy.tally.read() == {"whole": 10, "refused": 1}
    assert begun == [way == "straight"] * 11


@pytest.mark.parametrize(
    ("feature", "status", "code"), [("closed", 403, "not_entitled"), ("unheard", 403, "not_entitled")]
)
async def test_who_is_not_entitled_is_refused(
    proxied: Any, origin: Any, line: Any, world: Any, begun: list[bool], feature: str, status: int, code: str
) -> None:
    """And the upstream never asked."""
    await proxied(route(feature))
    client = await line()
    for _ in range(2):
        await client.get("/x", bearer(world))
        reply = await client.response()
        assert (reply.status, reply.json()["code"]) == (status, code)
    assert origin.asked == []


async def test_a_revoked_key_opens_nothing(
    proxied: Any, line: Any, world: Any, eventually: Any, begun: list[bool]
) -> None:
    """However often it was asked with before."""
    await world.grant(1_000)
    worker = await proxied(route())
    client = await line()
    await client.get("/x", bearer(world))
    assert (await client.response()).status == 200
    await world.valkey.delete(*[name async for name in world.valkey.scan_iter("tg:key:*")])
    worker.directory.credentials.clear()
    await client.get("/x", bearer(world))
    assert (await client.response()).status == 401


@pytest.mark.parametrize(("on_outage", "status"), [("refuse", 503), ("pass", 200)])
async def test_while_redis_decides_nothing_a_route_refuses_or_lets_pass(
    proxied: Any, origin: Any, line: Any, world: Any, begun: list[bool], on_outage: str, status: int
) -> None:
    """And says nothing of a decision."""
    await world.grant(1_000)
    worker = await proxied(
        route(on_outage=on_outage, deadline_ms=10_000) | {"path": "/a"}, route(on_outage=on_outage, deadline_ms=20)
    )
    client = await line()
    await client.get("/a", bearer(world))
    assert (await client.response()).status == 200
    await world.valkey.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
    await client.get("/x", bearer(world))
    reply = await client.response()
    await world.valkey.execute_command("CLIENT", "UNPAUSE")
    assert reply.status == status
    assert "x-tallygate-balance" not in reply.fields
    assert worker.proxy.tally.read().get("unpaid", 0) == (status == 200)
    assert [("x-tallygate-decision" in asked.fields) for asked in origin.asked] == [True, False][
        : len(origin.asked)
    ]


@pytest.mark.parametrize(("on_outage", "status"), [("refuse", 503), ("pass", 200)])
async def test_what_comes_to_redis_too_late_is_an_outage_too(
    proxied: Any, line: Any, world: Any, way: str, begun: list[bool], monkeypatch: pytest.MonkeyPatch,
    on_outage: str, status: int,
) -> None:  # fmt: skip
    """Redis says so itself, and has charged nothing."""
    await world.grant(1_000)
    worker = await proxied(route(on_outage=on_outage))
    monkeypatch.setattr(ServerClock, "at_ms", lambda *_, **__: 10**12 + 1)
    client = await line()
    await client.get("/x", bearer(world))
    assert (await client.response()).status == status
    assert worker.proxy.tally.read().get("unpaid", 0) == (status == 200)
    assert await world.entries() == []
    assert begun == [way == "straight"]
