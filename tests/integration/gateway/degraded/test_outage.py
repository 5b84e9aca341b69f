"""What is allowed while Redis is away was set aside before, is written down, and is charged once."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from billing_core.contract.snapshot import Status
from tests.integration.gateway.conftest import Call
from tests.integration.gateway.degraded.conftest import DEADLINE_MS, LEASED, Echo, House

LATE_MS = 1_000  # whatever a busy machine adds; how late answers really are is measured by bench/outage


async def ask(call: Any, world: Any, **more: object) -> tuple[int, dict[str, Any]]:
    status, answer, _ = await call("/v1/check", {"key": world.key, "feature": "tokens"} | more)
    return status, answer


async def answered(call: Any, world: Any) -> str:
    """The id of the first decision that a gateway makes, once it listens; asked for often, it is one."""
    key = secrets.token_hex(8)
    async with asyncio.timeout(60):
        while True:
            try:
                status, answer = await ask(call, world, idempotency_key=key)
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.01)
                continue
            if status == 200:
                return answer["decision_id"]


async def held(house: House, eventually: Any) -> None:
    """Wait for the lease, as the wallet shows it."""
    async with asyncio.timeout(60):
        while not int((await house.wallet()).get(b"h:g1", b"0")):  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.01)


async def allowed_without_redis(call: Call, world: Any, *, times: int) -> list[str]:
    """Decisions of so many allowed orders; a worker that was late, or has just leased, may refuse some before."""
    ours: list[str] = []
    async with asyncio.timeout(30):
        while len(ours) < times:
            status, answer = await ask(call, world)
            if status == 200:
                ours.append(answer["decision_id"])
    return ours


async def made_good(worker: Any, eventually: Any) -> None:
    await eventually(lambda: not worker.outage.pending_count() and not worker.outage.tally.lost)


async def test_a_hung_redis_is_outlived_on_leased_units_and_on_no_more(
    degraded: Any, house: House, eventually: Any
) -> None:
    """As many as were leased; the next is unavailable. Afterwards each is charged once, and all is as it was."""
    worker, call, allowed = await degraded()
    assert worker.outage.leased_units() == LEASED
    with house.hung():
        answers = [await ask(call, house.world) for _ in range(LEASED + 3)]
        assert [status for status, _ in answers] == [200] * LEASED + [503] * 3
        for _, answer in answers[:LEASED]:
            assert (answer["allowed"], answer["degraded"], answer["currency"]) == (True, True, None)
        assert (worker.outage.leased_units(), worker.outage.pending_count()) == (0, LEASED)
    allowed += [answer["decision_id"] for _, answer in answers[:LEASED]]
    await made_good(worker, eventually)
    await eventually(lambda: worker.outage.leased_units() == LEASED)
    await house.is_settled(allowed)
    replayed = worker.outage.tally.replayed  # known: what ran unseen, when Redis went on
    assert (replayed["charged"] + replayed["known"], replayed["recorded"]) == (LEASED, 0)
    _, page, _ = await call.get("/metrics")
    assert f'tallygate_leased_units{{worker="0"}} {LEASED}.0' in page.decode()
    assert 'tallygate_journal_lost_total{worker="0"} 0.0' in page.decode()


async def test_answers_come_by_the_deadline(degraded: Any, house: House) -> None:
    """The quickest of some, so that a busy machine fails no test."""
    _, call, _ = await degraded(link_stall_ms=60_000, link_hang_ms=60_000)
    with house.hung():
        taken: list[float] = []
        for _ in range(LEASED):
            began_s = time.perf_counter()
            status, _ = await ask(call, house.world)
            taken.append((time.perf_counter() - began_s) * 1_000)
            assert status == 200
    assert DEADLINE_MS <= min(taken) <= DEADLINE_MS + LATE_MS


async def test_a_retry_gets_its_first_answer_in_the_outage_and_after_it(
    degraded: Any, house: House, eventually: Any
) -> None:
    """And is charged once; the key with other content is a conflict in both."""
    worker, call, allowed = await degraded()
    with house.hung():
        first = (await ask(call, house.world, idempotency_key="k"))[1]
        again = (await ask(call, house.world, idempotency_key="k"))[1]
        assert (again["decision_id"], again["replayed"]) == (first["decision_id"], True)
        status, problem = await ask(call, house.world, idempotency_key="k", quantity=2)
        assert (status, problem["code"]) == (409, "idempotency_conflict")
        assert worker.outage.pending_count() == 1
    await made_good(worker, eventually)
    status, later = await ask(call, house.world, idempotency_key="k")
    assert (status, later["allowed"], later["replayed"]) == (200, True, True)
    assert (later["decision_id"], later["cost_nanos"]) == (first["decision_id"], 100)
    status, problem = await ask(call, house.world, idempotency_key="k", quantity=2)
    assert (status, problem["code"]) == (409, "idempotency_conflict")
    await house.is_settled([*allowed, first["decision_id"]])


async def test_an_attempt_that_ran_after_all_is_not_charged_again(
    degraded: Any, house: House, eventually: Any, tmp_path: Path
) -> None:
    """Redis did it, well before the deadline, and only its reply was late. The lease keeps what was not needed."""
    async with Echo(str(house.server.socket_file)).open(tmp_path / "e.sock") as echo:
        url = f"unix://{tmp_path}/e.sock"
        worker, call, allowed = await degraded(redis_url=url, link_hang_ms=60_000, decision_deadline_ms=1_000)
        echo.on_time.clear()
        answers = await asyncio.gather(*(ask(call, house.world) for _ in range(5)))
        assert all(answer.get("degraded") for _, answer in answers)
        echo.on_time.set()
        await made_good(worker, eventually)
        await eventually(lambda: worker.outage.leased_units() == LEASED)
        await house.is_settled(allowed + [answer["decision_id"] for _, answer in answers])
        assert worker.outage.tally.replayed == {"charged": 0, "known": 5, "recorded": 0}


async def test_a_killed_redis_is_outlived_too(degraded: Any, house: House, eventually: Any) -> None:
    """The leases are in its log when it comes back."""
    worker, call, allowed = await degraded("tokens", "calls")
    house.server.kill()
    body = {"key": house.world.key, "charges": [{"feature": "calls"}, {"feature": "tokens", "quantity": 5}]}
    answers = [(await call("/v1/check", body))[:2] for _ in range(5)]
    assert [status for status, _ in answers] == [200] * 4 + [503]
    await house.begin_again()
    await made_good(worker, eventually)
    await house.is_settled(allowed + [answer["decision_id"] for status, answer in answers if status == 200])


async def test_a_batch_and_a_proxy_are_served_too(degraded: Any, house: House, eventually: Any) -> None:
    """Each charge that was leased; of a batch the rest is unavailable."""
    worker, call, allowed = await degraded()
    with house.hung():
        check = {"key": house.world.key, "feature": "tokens"}
        batch = {"checks": [check, check | {"feature": "calls"}, check], "deadline_ms": 20}
        _, body, _ = await call("/v1/check/batch", batch)
        first, second, third = body["answers"]
        assert (first["degraded"], second["problem"]["code"], third["degraded"]) == (True, "unavailable", True)
        status, _, told = await call(
            "/v1/authorize/forward?feature=tokens&quantity=3", headers={"X-Api-Key": house.world.key}
        )
        assert (status, told["X-Tallygate-Degraded"], told["X-Tallygate-Plan"]) == (200, "1", "pro")
    await made_good(worker, eventually)
    await house.is_settled([*allowed, first["decision_id"], third["decision_id"], told["X-Tallygate-Decision"]])


@pytest.mark.parametrize(
    "body",
    [
        {"feature": "export"},
        {"charges": [{"feature": "tokens"}, {"feature": "export"}]},
        {"feature": "tokens", "quantity": LEASED + 1},
        {"feature": "tokens", "mode": "hold", "ttl_ms": 1_000},
        {"feature": "tokens", "mode": "peek"},
        {"feature": "tokens", "mode": "record"},
        {"feature": "tokens", "shadow": True},
    ],
)
async def test_what_no_lease_covers_is_refused(degraded: Any, house: House, body: dict[str, object]) -> None:
    """A feature that must not go on, more than is left, and everything that is no plain consume."""
    worker, call, _ = await degraded()
    with house.hung():
        status, problem, _ = await call("/v1/check", {"key": house.world.key} | body)
        assert (status, problem["code"]) == (503, "unavailable")
        assert (worker.outage.pending_count(), worker.outage.leased_units()) == (0, LEASED)


async def test_who_is_known_is_known_for_as_long_as_the_outage_lasts(
    degraded: Any, house: House, eventually: Any
) -> None:
    """Pushes do not come any more, so nothing is trusted but for what was set aside; a stranger is nobody still."""
    worker, call, _ = await degraded()
    with house.hung():
        await eventually(lambda: not worker.listener.is_up)
        assert await allowed_without_redis(call, house.world, times=1)
        assert (await ask(call, house.world, key="tgk_stranger"))[0] == 503
    await made_good(worker, eventually)


async def test_a_revoked_key_is_not_remembered(degraded: Any, house: House, eventually: Any) -> None:
    """By push, as everywhere."""
    worker, call, _ = await degraded()
    await house.world.forget("*")
    await eventually(lambda: not len(worker.directory.lasting))
    with house.hung():
        assert (await ask(call, house.world))[0] == 503


async def test_an_outage_longer_than_the_lease_is_recorded(degraded: Any, house: House, eventually: Any) -> None:
    """The hold was given back at its deadline; the orders are charged all the same, as far as the wallet goes."""
    worker, call, allowed = await degraded(lease_ttl_ms=2_000, lease_margin_ms=500)
    with house.hung():
        answers = [await ask(call, house.world) for _ in range(4)]
        ours = [answer["decision_id"] for status, answer in answers if status == 200]
        assert ours
        (lease,) = (one for _, one in worker.outage.leases.items())
        await eventually(lambda: time.perf_counter() > lease.until_s + 1)
        assert (await ask(call, house.world))[0] == 503
    await made_good(worker, eventually)
    assert worker.outage.tally.replayed["recorded"] == len(ours)
    await house.is_settled([*allowed, *ours])


@pytest.mark.parametrize("is_keyed", [False, True])
async def test_a_lease_gives_way_to_a_customer_that_runs_short(degraded: Any, house: House, is_keyed: bool) -> None:
    """What was set aside serves the decision of now; nothing is allowed that is not paid."""
    worker, call, _ = await degraded()
    more = {"deadline_ms": 5_000} | ({"idempotency_key": "all"} if is_keyed else {})
    status, answer = await ask(call, house.world, quantity=9_999, **more)
    assert (status, answer["allowed"], answer["balance_nanos"]) == (200, True, 0)
    assert (worker.outage.leased_units(), answer["replayed"]) == (0, False)
    status, answer = await ask(call, house.world, deadline_ms=5_000)
    assert (status, answer["reason"]) == (200, "insufficient_balance")


async def test_a_refusal_is_kept_once_no_lease_can_give_way(degraded: Any, house: House) -> None:
    """It is the answer of its key, also when money has come."""
    _, call, _ = await degraded()
    more = {"quantity": 10_001, "deadline_ms": 5_000, "idempotency_key": "more"}
    status, first = await ask(call, house.world, **more)
    assert (status, first["reason"], first["replayed"]) == (200, "insufficient_balance", False)
    await house.world.grant(10_000_000, grant_id="g2")
    assert await ask(call, house.world, **more) == (200, first | {"replayed": True})


async def test_a_suspension_closes_every_lease_of_the_customer(
    degraded: Any, house: House, eventually: Any
) -> None:
    """From the first refusal on, nothing more is allowed on them."""
    worker, call, _ = await degraded("tokens", "calls")
    await house.world.project(status=Status.SUSPENDED)
    assert (await ask(call, house.world, deadline_ms=5_000))[1]["reason"] == "suspended"
    await eventually(lambda: not len(worker.outage.leases))
    assert int((await house.wallet())[b"h:g1"]) == 0


async def test_a_cold_lease_is_given_back(degraded: Any, house: House, eventually: Any) -> None:
    """Nothing stays set aside that nobody needs."""
    worker, _, _ = await degraded(lease_idle_ms=50)
    await eventually(lambda: not worker.outage.leased_units())
    await eventually(lambda: not len(worker.outage.leases))
    assert int((await house.wallet())[b"h:g1"]) == 0


async def test_a_gateway_that_stops_gives_its_leases_back(house: House, process: Any, eventually: Any) -> None:
    """And leaves no file."""
    running = process(msgspec.structs.replace(house.settings, decision_deadline_ms=5_000, bulk_deadline_ms=5_000))
    async with aiohttp.ClientSession() as session:
        call = Call(f"http://127.0.0.1:{house.settings.port}", session)
        await answered(call, house.world)
        await held(house, eventually)
    running.process.terminate()
    assert await running.ended() == (0, "")
    assert int((await house.wallet())[b"h:g1"]) == 0
    assert list(house.journals.iterdir()) == []


async def test_a_worker_killed_in_the_outage_is_made_good_by_the_next(
    house: House, process: Any, eventually: Any
) -> None:
    """Its journal is found, each order in it charged once, and its leases are given back."""
    settings = msgspec.structs.replace(house.settings, bulk_deadline_ms=5_000)
    running = process(settings)
    async with aiohttp.ClientSession() as session:
        call = Call(f"http://127.0.0.1:{settings.port}", session)
        allowed = [await answered(call, house.world)]
        await held(house, eventually)
        with house.hung():
            ours = await allowed_without_redis(call, house.world, times=10)
            running.process.kill()
            await running.ended()
        (left,) = house.journals.glob("*.journal")
        process(settings)
        await eventually(lambda: not left.exists())
        allowed.append(await answered(call, house.world))
    entries = {entry.body.event_id for entry in await house.world.entries()}
    assert set(ours) <= entries
    await house.is_settled([*(one for one in entries if one in allowed), *ours])
