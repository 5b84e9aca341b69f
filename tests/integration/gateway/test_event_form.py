"""POST /v1/events in its five forms: the same events, whichever tells them, and one spoils no other."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from billing_core.values.clock import from_ms, system_now, to_ms

Sent = tuple[bytes, dict[str, str]]
"""A body and the header fields that say what it is."""


def events() -> list[dict[str, Any]]:
    """In our own words."""
    time = from_ms(to_ms(system_now())).isoformat()
    fields = [{"input": 374, "cost": 1.25, "model": "sm\xe4ll"}, {"input": 0, "cost": 0}, {"input": 7, "cost": 2}]
    return [
        {"id": f"/gpu/7|e{number}", "event": "llm", "time": time, "customer": "acme", "fields": one}
        for number, one in enumerate(fields)
    ]


def cloud(event: dict[str, Any]) -> dict[str, Any]:
    """The same as a CloudEvent."""
    source, _, cloud_id = event["id"].partition("|")
    return {
        "specversion": "1.0",
        "source": source,
        "id": cloud_id,
        "type": event["event"],
        "subject": event["customer"],
        "time": event["time"],
        "data": event["fields"],
    }


def array(told: list[dict[str, Any]]) -> list[Sent]:
    return [(msgspec.json.encode(told), {"Content-Type": "application/json"})]


def lines(told: list[dict[str, Any]]) -> list[Sent]:
    body = b"".join(msgspec.json.encode(one) + b"\n" for one in told)
    return [(body, {"Content-Type": "application/x-ndjson"})]


def structured(told: list[dict[str, Any]]) -> list[Sent]:
    typed = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    return [(msgspec.json.encode(cloud(one)), typed) for one in told]


def batched(told: list[dict[str, Any]]) -> list[Sent]:
    body = msgspec.json.encode([cloud(one) for one in told])
    return [(body, {"Content-Type": "application/cloudevents-batch+json"})]


def binary(told: list[dict[str, Any]]) -> list[Sent]:
    sent: list[Sent] = []
    for one in told:
        members = cloud(one)
        body = msgspec.json.encode(members.pop("data"))
        headers = {f"ce-{name}": quote(value, safe="/:+") for name, value in members.items()}
        sent.append((body, headers | {"Content-Type": "application/json"}))
    return sent


FORMS = {"array": array, "lines": lines, "structured": structured, "batched": batched, "binary": binary}


@pytest.fixture
def send(call: Any, world: Any) -> Any:
    async def sent(one: Sent) -> tuple[int, Any]:
        body, headers = one
        headers = {"Authorization": f"Bearer {world.token}"} | headers
        status, answer, _ = await call("/v1/events", raw=body, headers=headers)
        return status, answer

    return sent


def results(answers: list[tuple[int, Any]]) -> list[Any]:
    """What became of each event."""
    return [one for _, answer in answers for one in answer.get("results", [answer])]


@pytest.mark.parametrize("form", FORMS)
async def test_the_same_events_make_the_same_entries(send: Any, world: Any, form: str) -> None:
    """And come again in every other form they are duplicates, content and all."""
    told = events()
    answers = [await send(one) for one in FORMS[form](told)]
    assert {status for status, _ in answers} == {200}
    assert results(answers) == [{"id": one["id"], "status": "accepted"} for one in told]
    found = {entry.body.event_id: entry.body for entry in await world.entries()}
    assert sorted(found) == [one["id"] for one in told]
    for one in told:
        body = found[one["id"]]
        texts = {name: str(value) for name, value in one["fields"].items()}
        assert (body.name, body.customer_id, body.properties) == ("llm", "acme", texts)
    for other in FORMS.values():
        again = [await send(one) for one in other(told)]
        assert [one["status"] for one in results(again)] == ["duplicate"] * 3
    assert len(await world.entries()) == 3


@pytest.mark.parametrize("form", FORMS)
async def test_an_event_that_is_wrong_spoils_no_other(send: Any, world: Any, form: str) -> None:
    """It is told at its place, by the words of its form; alone it has its own status."""
    first, second, third = events()
    told = [first, second | {"customer": "nobody"}, third | {"fields": {"input": 1.5, "cost": 1}}]
    answers = [await send(one) for one in FORMS[form](told)]
    if len(answers) == 1:
        ((status, body),) = answers
        assert (status, [one["status"] for one in body["results"]]) == (207, ["accepted", "rejected", "rejected"])
        problems = [one.get("problem") for one in body["results"]]
        assert [one["id"] for one in body["results"]] == [one["id"] for one in told]
    else:
        assert [status for status, _ in answers] == [200, 404, 400]
        problems = [None, *(problem for _, problem in answers[1:])]
    is_cloud = form in ("structured", "batched", "binary")
    names = ("subject", "data.input") if is_cloud else ("customer", "fields.input")
    assert [problem["field"] for problem in problems[1:]] == list(names)
    assert [entry.body.event_id for entry in await world.entries()] == [first["id"]]


async def test_a_line_that_is_no_json_is_told_by_its_place(send: Any, world: Any) -> None:
    """Empty lines are none, and the last needs no end."""
    first, second, third = (msgspec.json.encode(one) for one in events())
    body = b"\n".join([b"", first, b"{", b" \t", second + b"\r", first + second, b"\xff", b"[]", third])
    status, answer = await send((body, {"Content-Type": "application/x-ndjson"}))
    told = [(one["id"], one["status"], one.get("problem", {}).get("field")) for one in answer["results"]]
    assert status == 207
    assert told == [
        ("/gpu/7|e0", "accepted", None),
        (None, "rejected", "body"),
        ("/gpu/7|e1", "accepted", None),
        (None, "rejected", "body"),
        (None, "rejected", "body"),
        (None, "rejected", "body"),
        ("/gpu/7|e2", "accepted", None),
    ]
    assert len(await world.entries()) == 3


async def test_no_lines_have_no_results(send: Any) -> None:
    """As an empty array has none."""
    for form in (lines, batched):
        assert await send(form([])[0]) == (200, {"results": []})


async def test_more_than_a_thousand_lines_are_too_many(send: Any, unchanged: Any) -> None:
    """Sound or not."""
    (event, *_) = events()
    async with unchanged():
        for one in (event, 7):
            status, _ = await send(lines([one] * 1_001)[0])
            assert status == 413


WRONG: list[tuple[Sent, str]] = [
    ((b"{}", {"Content-Type": "application/cloudevents+json"}), "specversion"),
    ((b"[]", {"Content-Type": "application/cloudevents+json"}), "body"),
    ((b"{}", {"Content-Type": "application/cloudevents-batch+json"}), "body"),
    ((b"{}", {"Content-Type": "application/cloudevents+avro"}), "content-type"),
    ((b"{}", {"Content-Type": "text/plain", "ce-id": "1"}), "content-type"),
    ((b"{}", {"Content-Type": "application/json", "ce-id": "1"}), "specversion"),
    ((b"{", {"Content-Type": "application/json", "ce-id": "1"}), "body"),
    ((b"{}", {"Content-Type": "application/json", "ce-id": "%C0%A0"}), "id"),
]


@pytest.mark.parametrize(("sent", "field"), WRONG)
async def test_what_is_not_in_its_form_is_refused(send: Any, unchanged: Any, sent: Sent, field: str) -> None:
    """The field is named and nothing is written."""
    async with unchanged():
        status, problem = await send(sent)
    assert (status, problem["field"]) == (400, field)


async def test_a_thousand_lines_travel_in_one_write(gateway: Any, world: Any, send: Any) -> None:
    """As an array of them does."""
    worker, _ = gateway
    (event, *_) = events()
    await send(lines([event])[0])
    writes = worker.links["bulk"].tally.writes
    status, body = await send(lines([event | {"id": f"n{number}"} for number in range(1_000)])[0])
    assert (status, {one["status"] for one in body["results"]}) == (200, {"accepted"})
    assert worker.links["bulk"].tally.writes == writes + 1
    assert len(await world.entries()) == 1_001
