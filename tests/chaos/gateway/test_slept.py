"""A gateway is stopped with requests in its sockets, and goes on when their callers have long asked elsewhere.

What lay there past its deadline is not decided: not what came by a connection that was open, nor what waited in one
that nobody had accepted. So nobody is charged for what was refused to them meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

CHARGE = {"feature": "tokens", "quantity": 5}
PRICE_NANOS = 500
GRANT_NANOS = 10_000
PATIENT = {"deadline_ms": 60_000}
HURRIED = {"deadline_ms": 15}
PATIENCE_S = 30


async def woken(world: Any, slow: Any, quick: Any, *, body: Any, told: Any) -> list[tuple[int, Any, Any]]:
    """Two copies lie in a gateway that sleeps, the retry is refused at another, money comes, the sleeper wakes."""
    accepted = await slow.kept(world)
    await slow.stop()
    waiting = await slow.dial()
    for line in (accepted, waiting):
        line.send("/v1/check", body | told)
    retried = await quick.ask("/v1/check", body | PATIENT)
    assert (retried["allowed"], retried["reason"]) == (False, "insufficient_balance")
    await world.grant(GRANT_NANOS)
    await slow.wake()
    return [await accepted.answer(), await waiting.answer()]


@pytest.mark.parametrize("key", [{"idempotency_key": "order-1"}, {}], ids=["keyed", "keyless"])
async def test_what_was_refused_elsewhere_is_not_charged_by_who_slept(
    world: Any, open_sleeper: Any, key: dict[str, str]
) -> None:
    """Its callers have waited for longer than they wanted to."""
    slow, quick = await open_sleeper(world), await open_sleeper(world)
    body = {"key": world.key, **CHARGE, **key}
    for status, headers, answer in await woken(world, slow, quick, body=body, told=HURRIED):
        assert (status, answer["code"], headers["retry-after"]) == (503, "unavailable", "1")
        assert "nothing was charged" in answer["detail"]
    assert await slow.wallet(world) == {"g1": GRANT_NANOS}
    assert await world.entries() == []
    assert await slow.count("tallygate_sleeps") >= 1
    assert await slow.count("tallygate_overslept") >= 2


async def test_what_was_refused_elsewhere_is_refused_by_who_slept_too(world: Any, open_sleeper: Any) -> None:
    """Within its deadline, as the answer to its key: a refusal is the first answer as well."""
    slow, quick = await open_sleeper(world), await open_sleeper(world)
    body = {"key": world.key, **CHARGE, "idempotency_key": "order-1"}
    for status, _, answer in await woken(world, slow, quick, body=body, told=PATIENT):
        assert (status, answer["reason"], answer["replayed"]) == (200, "insufficient_balance", True)
    assert await slow.wallet(world) == {"g1": GRANT_NANOS}
    assert await world.entries() == []


async def test_what_is_within_its_deadline_and_no_more_remembered_is_decided_once(
    world: Any, open_sleeper: Any
) -> None:
    """What the two walls hold back is real: without them who slept charges."""
    slow, quick = await open_sleeper(world), await open_sleeper(world, idempotency_refusal_ms=1)
    body = {"key": world.key, **CHARGE, "idempotency_key": "order-1"}
    answers = await woken(world, slow, quick, body=body, told=PATIENT)
    assert [(status, answer["allowed"]) for status, _, answer in answers] == [(200, True), (200, True)]
    assert sorted(answer["replayed"] for _, _, answer in answers) == [False, True]
    assert await slow.wallet(world) == {"g1": GRANT_NANOS - PRICE_NANOS}


async def test_what_is_within_its_deadline_is_decided_by_who_slept(world: Any, open_sleeper: Any) -> None:
    """The deadline says how long somebody waits; and what comes after the sleep is as ever."""
    await world.grant(GRANT_NANOS)
    slow = await open_sleeper(world)
    body = {"key": world.key, **CHARGE}
    accepted = await slow.kept(world)
    await slow.stop()
    waiting = await slow.dial()
    for line in (accepted, waiting):
        line.send("/v1/check", body | PATIENT)
    await slow.wake()
    for line in (accepted, waiting):
        assert (await line.answer())[2]["allowed"] is True
    assert await slow.count("tallygate_overslept") >= 2
    assert (await slow.ask("/v1/check", body))["allowed"] is True
    assert await slow.wallet(world) == {"g1": GRANT_NANOS - 3 * PRICE_NANOS}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/check", {**CHARGE, **HURRIED}, {}),
        ("/v1/check", {**CHARGE, **HURRIED, "mode": "hold", "ttl_ms": 60_000}, {}),
        ("/v1/check", {**CHARGE, **HURRIED, "mode": "record"}, {}),
        ("/v1/check/batch", {"checks": [{**CHARGE}], **HURRIED}, {}),
        ("/v1/authorize/forward?feature=tokens&quantity=5", {}, {"Tallygate-Deadline-Ms": "15"}),
        ("/v1/authorize/nginx?feature=tokens&quantity=5", {}, {"Tallygate-Deadline-Ms": "15"}),
        ("/v1/holds/{hold}/settle", {**CHARGE, **HURRIED}, {}),
        ("/v1/holds/{hold}/settle", {**CHARGE, **HURRIED, "final": False}, {}),
        ("/v1/holds/{hold}/extend", {**CHARGE, **HURRIED, "ttl_ms": 60_000}, {}),
        ("/v1/holds/{hold}/release", {**HURRIED}, {}),
    ],
)
async def test_no_way_to_ask_outlives_its_deadline_in_a_socket(
    world: Any, open_sleeper: Any, unchanged: Any, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    """Nothing at all is written to Redis."""
    await world.grant(GRANT_NANOS)
    slow = await open_sleeper(world)
    held = {"key": world.key, **CHARGE, "mode": "hold", "ttl_ms": 600_000, **PATIENT}
    hold = (await slow.ask("/v1/check", held))["hold"]["id"]
    keyed = {"checks": [{"key": world.key, **one} for one in body["checks"]]} if "checks" in body else {}
    keyed = keyed or ({"key": world.key} if path == "/v1/check" else {})
    line = await slow.kept(world)
    await slow.stop()
    line.send(path.format(hold=hold), body | keyed, {"Authorization": f"Bearer {world.key}", **headers})
    async with unchanged():
        await slow.wake()
        status, told, answer = await line.answer()
        assert (status, told.get("x-tallygate-status")) in {(503, None), (403, "503")}
        assert answer is None or answer["code"] == "unavailable"


async def test_of_requests_behind_one_another_each_has_its_own_deadline(world: Any, open_sleeper: Any) -> None:
    """Sent at once on one connection: who has time left is decided, before and after who has not."""
    await world.grant(GRANT_NANOS)
    slow = await open_sleeper(world)
    line = await slow.kept(world)
    await slow.stop()
    for told in (PATIENT, HURRIED, PATIENT, HURRIED):
        line.send("/v1/check", {"key": world.key, **CHARGE, **told})
    await slow.wake()
    assert [(await line.answer())[0] for _ in range(4)] == [200, 503, 200, 503]
    assert await slow.wallet(world) == {"g1": GRANT_NANOS - 2 * PRICE_NANOS}


async def test_who_has_hung_up_meanwhile_is_not_charged(world: Any, open_sleeper: Any, unchanged: Any) -> None:
    """A connection that is closed has a request in it all the same."""
    await world.grant(GRANT_NANOS)
    slow = await open_sleeper(world)
    accepted = await slow.kept(world)
    await slow.stop()
    waiting = await slow.dial()
    for line in (accepted, waiting):
        line.send("/v1/check", {"key": world.key, **CHARGE, **HURRIED})
        line.hang_up()
    async with unchanged(), asyncio.timeout(PATIENCE_S):
        await slow.wake()
        while await slow.count("tallygate_overslept") < 2:
            pass
