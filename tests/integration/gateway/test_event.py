"""POST /v1/events over HTTP: each event once, an answer for each."""

from __future__ import annotations

from typing import Any

import pytest

from billing_core.contract.keys import KeyRecord, Role
from billing_core.contract.usage_event import EntryKind
from billing_core.values.clock import system_now, to_ms

DAY_MS = 86_400_000


@pytest.fixture
def send(call: Any, world: Any) -> Any:
    async def sent(body: object, **more: Any) -> tuple[int, Any]:
        status, answer, _ = await call(
            "/v1/events", body, **({"headers": {"Authorization": f"Bearer {world.token}"}} | more)
        )
        return status, answer

    return sent


def event(event_id: str = "e1", **more: object) -> dict[str, object]:
    fields = {"input": 374, "cost": 1.25, "model": "small"}
    known = {"id": event_id, "event": "llm", "time": to_ms(system_now()), "customer": "acme", "fields": fields}
    return known | more


async def test_an_event_is_taken_once(send: Any, world: Any) -> None:
    """The same event again is a duplicate, which is success."""
    sent = event()
    assert await send(sent) == (200, {"id": "e1", "status": "accepted"})
    assert await send(sent) == (200, {"id": "e1", "status": "duplicate"})
    (entry,) = await world.entries()
    assert (entry.kind, entry.body.event_id, entry.body.name) == (EntryKind.EVENT, "e1", "llm")
    assert entry.body.properties == {"input": "374", "cost": "1.25", "model": "small"}
    assert (entry.body.event_at_ms, entry.body.customer_id) == (sent["time"], "acme")


async def test_a_known_id_with_other_content_is_refused(send: Any, unchanged: Any) -> None:
    """Two things cannot have one name."""
    sent = event()
    await send(sent)
    async with unchanged():
        status, problem = await send(sent | {"fields": {"input": 375, "cost": 1}})
    assert (status, problem["code"], problem["field"]) == (409, "idempotency_conflict", "id")


async def test_an_array_is_answered_event_by_event_in_order(send: Any, world: Any) -> None:
    """207 where some are not taken; what is sound is taken all the same."""
    first, second = event("a"), event("b")
    status, body = await send(
        [
            first,
            event("c", customer="nobody"),
            first,
            event("a", fields={"input": 1, "cost": 1}),
            7,
            event("d", event="lllm"),
            second,
            event("e", spare=1),
        ]
    )
    assert status == 207
    told = [(one["id"], one["status"], one.get("problem", {}).get("field")) for one in body["results"]]
    assert told == [
        ("a", "accepted", None),
        ("c", "rejected", "customer"),
        ("a", "duplicate", None),
        ("a", "rejected", "id"),
        (None, "rejected", "body"),
        ("d", "rejected", "event"),
        ("b", "accepted", None),
        ("e", "rejected", "spare"),
    ]
    assert sorted(entry.body.event_id for entry in await world.entries()) == ["a", "b"]
    status, body = await send([first, second])
    assert (status, [one["status"] for one in body["results"]]) == (200, ["duplicate"] * 2)


async def test_a_thousand_events_travel_in_one_write(gateway: Any, world: Any, send: Any) -> None:
    """Once what they need is known."""
    worker, _ = gateway
    await send(event())
    writes = worker.links["bulk"].tally.writes
    status, body = await send([event(f"n{number}") for number in range(1_000)])
    assert (status, {one["status"] for one in body["results"]}) == (200, {"accepted"})
    assert [one["id"] for one in body["results"]] == [f"n{number}" for number in range(1_000)]
    assert worker.links["bulk"].tally.writes == writes + 1
    assert len(await world.entries()) == 1_001


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"id": "a b"}, 400, "id"),
        ({"id": ""}, 400, "id"),
        ({"customer": "nobody"}, 404, "customer"),
        ({"event": "nothing"}, 400, "event"),
        ({"time": "2026-01-01T00:00:00"}, 400, "time"),
        ({"time": to_ms(system_now()) + 3_600_000}, 400, "time"),
        ({"time": to_ms(system_now()) - 35 * DAY_MS}, 400, "time"),
        ({"time": 0}, 400, "time"),
        ({"fields": {"cost": 1}}, 400, "fields.input"),
        ({"fields": {"input": 1.5, "cost": 1}}, 400, "fields.input"),
        ({"fields": {"input": -1, "cost": 1}}, 400, "fields.input"),
        ({"fields": {"input": 2**53, "cost": 1}}, 400, "fields.input"),
        ({"fields": {"input": True, "cost": 1}}, 400, "fields.input"),
        ({"fields": {"input": "5", "cost": 1}}, 400, "fields.input"),
        ({"fields": {"input": 1, "cost": 1.125}}, 400, "fields.cost"),
        ({"quantity": 1}, 400, "quantity"),
    ],
)
async def test_an_event_that_breaks_a_rule_is_refused(
    send: Any, unchanged: Any, change: dict[str, object], status: int, field: str
) -> None:
    """The field is named and nothing is written."""
    async with unchanged():
        got, problem = await send(event(**change))
    assert (got, problem["field"]) == (status, field)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"7", 400),
        (b"[{]", 400),
        (b"[1,]", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'[{"id":"a","fields":{"n":NaN}}]', 400),
        (b"[" + b"1," * 1_000 + b"1]", 413),
    ],
)
async def test_a_body_that_is_no_json_is_refused_whole(send: Any, unchanged: Any, raw: bytes, status: int) -> None:
    """There are no events to answer."""
    async with unchanged():
        got, problem = await send(None, raw=raw)
    assert (got, problem["status"]) == (status, status)


@pytest.mark.parametrize("token", ["", "tgo_nobody", "tgk_caller"])
async def test_events_need_an_operator(send: Any, unchanged: Any, token: str) -> None:
    """A customer does not write its own bill."""
    async with unchanged():
        status, _ = await send(event(), headers={"Authorization": f"Bearer {token}"})
    assert status == (403 if token == "tgk_caller" else 401)


async def test_no_array_is_an_array_of_no_results(send: Any) -> None:
    """An empty array is not an error."""
    assert await send([]) == (200, {"results": []})


async def test_the_same_id_in_another_tenant_is_another_event(send: Any, world: Any) -> None:
    """Unique by tenant and id."""
    await send(event())
    await world.credential("tgo_two", KeyRecord(tenant_id="t2", role=Role.OPERATOR))
    status, problem = await send(event(), headers={"Authorization": "Bearer tgo_two"})
    assert (status, problem["field"]) == (400, "event")


async def test_a_sandbox_moves_its_clock_and_events_follow(send: Any, world: Any) -> None:
    """What is remembered of the clock is asked for again before an event is refused for its time."""
    later_ms = to_ms(system_now()) + 40 * DAY_MS
    assert (await send(event("now")))[0] == 200
    assert (await send(event("later", time=later_ms)))[0] == 400
    await world.project(offset_ms=40 * DAY_MS)
    assert (await send(event("later", time=later_ms)))[0] == 200
    assert (await send(event("early")))[0] == 400
    entry = next(entry for entry in await world.entries() if entry.body.event_id == "later")
    assert abs(entry.decided_at_ms - later_ms) < 60_000


async def test_new_meters_are_known_at_once(send: Any, world: Any, gateway: Any) -> None:
    """By push."""
    worker, _ = gateway
    assert (await send(event("a", event="fax")))[0] == 400
    await world.meters({"fax": {}})
    heard = worker.listener.heard
    await world.forget("meters:t1")
    while worker.listener.heard == heard:
        await world.valkey.ping()
    assert (await send(event("a", event="fax")))[0] == 200


async def test_a_customer_whose_events_are_too_old_is_asked_for_once(gateway: Any, send: Any) -> None:
    """Not once for each event."""
    worker, _ = gateway
    await send(event())
    commands = worker.links["decision"].tally.commands
    status, body = await send([event(f"n{number}", time=0) for number in range(50)])
    assert (status, {one["status"] for one in body["results"]}) == (207, {"rejected"})
    assert worker.links["decision"].tally.commands == commands + 1
