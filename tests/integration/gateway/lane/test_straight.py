"""The straight way: who takes it, and that nothing is known longer than it is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing_core.contract.keys import KeyRecord, Role, api_key_name, customer_keys, digest_of
from gateway.admission.caller import caller_of_customer
from tests.integration.gateway.conftest import until


@pytest.fixture
def shut(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Shuts the long way: who takes it gets a fault."""

    def shut_it() -> None:
        monkeypatch.setattr(gateway[0].gate, "decide", None)

    return shut_it


async def test_what_comes_again_in_the_same_words_goes_straight(call: Any, world: Any, shut: Any) -> None:
    """With figures of its own each time, though the answer is written once."""
    await world.grant(1_000)
    asked = {"key": world.key, "feature": "tokens"}
    for _ in range(2):
        await call("/v1/check", asked)
    shut()
    answers = [(await call("/v1/check", asked))[1] for _ in range(4)]
    assert [answer["balance_nanos"] for answer in answers] == [700, 600, 500, 400]
    assert len({answer["decision_id"] for answer in answers}) == 4
    assert len(await world.entries()) == 6


async def test_where_units_may_be_set_aside_who_has_none_goes_straight(
    open_gateway: Any, world: Any, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a journal, as `tallygate up` has it: once it is known that nobody slices what the customer has."""
    worker, call = await open_gateway(msgspec.structs.replace(settings, journal_dir=str(tmp_path)))
    await world.grant(1_000)
    asked, acme = {"key": world.key, "feature": "tokens"}, caller_of_customer("t1", "acme")
    for _ in range(2):
        assert (await call("/v1/check", asked))[1]["allowed"]
    await until(lambda: worker.gate.is_asked_alone(acme))
    monkeypatch.setattr(worker.gate, "decide", None)
    answers = [(await call("/v1/check", asked))[1] for _ in range(2)]
    assert [answer["balance_nanos"] for answer in answers] == [700, 600]
    worker.gate._local._truce.hear("t1:acme")  # its terms are others, or somebody runs short
    assert not worker.gate.is_asked_alone(acme)
    assert (await call("/v1/check", asked))[0] == 500


async def test_an_idempotency_key_may_be_another_each_time(call: Any, world: Any, shut: Any) -> None:
    """And a retry is answered as ever."""
    await world.grant(1_000)

    async def ask(key: str) -> Any:
        return await call("/v1/check", {"key": world.key, "feature": "tokens", "idempotency_key": key})

    for key in ("k-1", "k-2"):
        await ask(key)
    shut()
    answers = [(await ask(key))[1] for key in ("k-3", "k-4", "k-3", "k-1")]
    told = [(answer["replayed"], answer["balance_nanos"]) for answer in answers]
    assert told == [(False, 700), (False, 600), (True, 700), (True, 900)]
    assert answers[0]["decision_id"] == answers[2]["decision_id"]
    assert (await call("/v1/check", {"key": world.key, "feature": "export", "idempotency_key": "k-3"}))[0] == 500


async def test_an_idempotency_key_that_was_used_for_something_else_is_a_conflict(call: Any, world: Any) -> None:
    """Also where it is the only word that differs."""
    await world.grant(1_000)
    for key in ("k-1", "k-2", "k-3"):
        await call("/v1/check", {"key": world.key, "feature": "tokens", "idempotency_key": key})
    asked = {"key": world.key, "feature": "tokens", "quantity": 2}
    for key in ("k-4", "k-5", "k-6"):
        await call("/v1/check", asked | {"idempotency_key": key})
    status, problem, _ = await call("/v1/check", asked | {"idempotency_key": "k-3"})
    assert (status, problem["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize("proxy", ["nginx", "forward"])
async def test_a_proxy_goes_straight_too(call: Any, world: Any, shut: Any, proxy: str) -> None:
    """With another request id each time, and until the limit."""
    path = f"/v1/authorize/{proxy}?feature=calls&quantity=1"

    async def ask(name: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {world.key}", "X-Request-Id": name}
        status, _, told = await call(path, method="GET", headers=headers)
        return status, told.get("RateLimit", "").partition(";t=")[0]

    for number in range(2):
        await ask(f"r-{number}")
    shut()
    told = [await ask(f"r-{number}") for number in range(2, 11)]
    assert told[:8] == [(200, f'"calls";r={left}') for left in range(7, -1, -1)]
    assert told[8] == (403 if proxy == "nginx" else 429, '"calls";r=0')


async def test_a_key_that_was_revoked_opens_nothing_any_more(
    gateway: Any, call: Any, world: Any, eventually: Any
) -> None:
    """Its words may be known, it is not."""
    asked = {"key": world.key, "feature": "export"}
    for _ in range(4):
        assert (await call("/v1/check", asked))[1]["allowed"]
    await world.valkey.delete(api_key_name(digest_of(world.key)))
    await world.forget(digest_of(world.key))
    await eventually(lambda: gateway[0].directory.behind(digest_of(world.key)) is None)
    assert (await call("/v1/check", asked))[1]["reason"] == "unknown_key"


async def test_a_key_may_become_somebody_elses(gateway: Any, call: Any, world: Any, eventually: Any) -> None:
    """The same words are then asked by another customer, who has an own wallet and an own name."""
    await world.grant(1_000)
    await world.project(customer="other")
    await world.grant(5_000, customer="other")
    asked = {"key": world.key, "feature": "tokens"}
    for _ in range(4):
        await call("/v1/check", asked)
    record = KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="other", hint="er")
    await world.credential(world.key, record)
    await world.forget(digest_of(world.key))
    await eventually(lambda: gateway[0].directory.behind(digest_of(world.key)) is None)
    answers = [(await call("/v1/check", asked))[1] for _ in range(4)]
    told = [(answer["customer"], answer["balance_nanos"]) for answer in answers]
    assert told == [("other", 4_900), ("other", 4_800), ("other", 4_700), ("other", 4_600)]


async def test_what_ends_otherwise_is_written_in_full(call: Any, world: Any, shut: Any) -> None:
    """The wallet runs dry, and is filled again."""
    await world.grant(300)
    asked = {"key": world.key, "feature": "tokens"}
    for _ in range(3):
        await call("/v1/check", asked)
    shut()
    _, answer, _ = await call("/v1/check", asked)
    assert (answer["allowed"], answer["reason"]) == (False, "insufficient_balance")
    await world.grant(150, grant_id="g2")
    told = [(await call("/v1/check", asked))[1] for _ in range(2)]
    assert [(answer["allowed"], answer["balance_nanos"]) for answer in told] == [(True, 50), (False, 50)]


class Notes:
    """What somebody wants to know."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def note(self, shard: int, name: str) -> None:
        assert shard == customer_keys("t1", "acme").shard
        self.names.append(name)


async def test_what_is_allowed_is_remembered_where_a_server_may_lose_it(
    gateway: Any, call: Any, world: Any, shut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and no refusal, no replay and nothing that costs nothing: they leave no entry."""
    await world.grant(500)
    asked = {"key": world.key, "feature": "tokens"}
    keyed, nothing = asked | {"idempotency_key": "k-1"}, asked | {"quantity": 0}
    for body in (asked, keyed, nothing) * 2:
        await call("/v1/check", body)
    shut()
    notes = Notes()
    monkeypatch.setattr(gateway[0].gate, "_recall", notes)
    bodies = (asked, keyed, nothing, asked, asked | {"idempotency_key": "k-2"}, asked)
    answers = [(await call("/v1/check", body))[1] for body in bodies]
    told = [(answer["allowed"], answer["replayed"]) for answer in answers]
    assert told == [(True, False), (True, True), (True, False), (True, False), (False, False), (False, False)]
    assert notes.names == [f"t1:{answers[place]['decision_id']}" for place in (0, 3)]
