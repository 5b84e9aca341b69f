"""A retry gets the first answer back: byte for byte, secret and all."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_core.api.idempotency import GIVEN_UP_AFTER, Attempt, once_across
from billing_core.errors import StillRunning, Unavailable
from billing_core.flows.setup.forget import forget_due
from billing_core.store.setup.tenant import Claim

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

CUSTOMERS = "/v1/customers"
REPLAYED = "Idempotency-Replayed"


async def test_a_retry_gets_the_same_bytes_and_writes_nothing(plane: Plane) -> None:
    """White space and the order of fields do not make another request; the time that has passed changes nothing."""
    first = await plane.ours.post(CUSTOMERS, {"customer_id": "acme", "name": "A"}, key="k-1")
    assert first.status == 201
    assert REPLAYED not in first.headers
    before = await plane.count()
    plane.clock.move(timedelta(days=1))
    raw = b'{ "name": "A", "customer_id": "acme" }'
    again = await plane.ours.ask("POST", CUSTOMERS, raw=raw, headers={"Idempotency-Key": "k-1"})
    assert (again.status, again.raw, again.headers[REPLAYED]) == (201, first.raw, "true")
    assert await plane.count() == before


async def test_another_body_or_another_route_under_the_same_key_is_a_conflict(plane: Plane) -> None:
    """A key names one request."""
    await plane.ours.post(CUSTOMERS, {"customer_id": "acme"}, key="k-1")
    before = await plane.count()
    for path, body in ((CUSTOMERS, {"customer_id": "other"}), (f"{CUSTOMERS}/acme/suspend", None)):
        answer = await plane.ours.post(path, body, key="k-1")
        assert (answer.status, answer.body["code"]) == (409, "idempotency_conflict")
        assert answer.body["field"] == "Idempotency-Key"
    assert await plane.count() == before
    assert (await plane.ours.get(f"{CUSTOMERS}/acme")).body["status"] == "active"


async def test_a_key_belongs_to_its_tenant(plane: Plane) -> None:
    """Two tenants use the same key for two things, and the root a third time."""
    ours = await plane.ours.post(CUSTOMERS, {"customer_id": "acme"}, key="k-1")
    theirs = await plane.theirs.post(CUSTOMERS, {"customer_id": "acme", "name": "Theirs"}, key="k-1")
    root = await plane.root.post("/v1/tenants", {"tenant_id": "third"}, key="k-1")
    assert [ours.status, theirs.status, root.status] == [201, 201, 201]
    assert theirs.body["name"] == "Theirs"


async def test_a_request_that_failed_leaves_its_key_free(plane: Plane) -> None:
    """Nothing was written, so nothing is remembered: the same request may succeed later."""
    path, body = f"{CUSTOMERS}/acme/keys", {"label": "web"}
    assert (await plane.ours.post(path, body, key="k-1")).status == 404
    await plane.ours.post(CUSTOMERS, {"customer_id": "acme"})
    assert (await plane.ours.post(path, body, key="k-1")).status == 201


async def test_a_secret_is_shown_again_to_who_asked_and_is_kept_nowhere(plane: Plane) -> None:
    """It is derived from the request under the bearer token; another token gets a conflict."""
    await plane.ours.post(CUSTOMERS, {"customer_id": "acme"})
    path = f"{CUSTOMERS}/acme/keys"
    first = await plane.ours.post(path, {"label": "web"}, key="k-1")
    plane.clock.move(timedelta(hours=1))
    again = await plane.ours.post(path, {"label": "web"}, key="k-1")
    assert (again.raw, again.headers[REPLAYED]) == (first.raw, "true")
    assert (await plane.ours.post(path, {"label": "web"}, key="k-2")).body["key"] != first.body["key"]
    secret = first.body["key"].encode()
    kept = await plane.rows("SELECT body FROM idempotent_answer")
    assert not [row for row in kept if secret in row["body"]]
    second = (await plane.root.post("/v1/tenants/ours/tokens", {})).body["operator_token"]
    answer = await plane.caller(second).post(path, {"label": "web"}, key="k-1")
    assert (answer.status, answer.body["code"]) == (409, "idempotency_conflict")
    assert await plane.value("SELECT count(*) FROM api_key") == 2


async def test_the_root_gets_a_tenants_first_token_again(plane: Plane) -> None:
    """A start that was killed half-way is finished by the next."""
    first = await plane.root.post("/v1/tenants", {"name": "demo"}, key="k-1")
    again = await plane.root.post("/v1/tenants", {"name": "demo"}, key="k-1")
    assert again.raw == first.raw
    assert (await plane.caller(again.body["operator_token"]).get("/v1/clock")).status == 200


async def test_of_twins_one_acts_and_all_get_its_answer(plane: Plane) -> None:
    """The others wait for the first one's transaction."""
    twins = [plane.ours.post(CUSTOMERS, {"customer_id": "acme"}, key="k-1") for _ in range(12)]
    answers = await asyncio.gather(*twins)
    assert {answer.raw for answer in answers} == {answers[0].raw}
    assert {answer.status for answer in answers} == {201}
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1


async def test_an_ill_key_is_refused(plane: Plane) -> None:
    """1 to 255 printable characters, one header."""
    before = await plane.count()
    for key in ("has space", "x" * 256, "t\u00e9l"):
        answer = await plane.ours.post(CUSTOMERS, {"customer_id": "acme"}, key=key)
        assert (answer.status, answer.body["field"]) == (400, "Idempotency-Key")
    assert await plane.count() == before


def _attempt(plane: Plane, body: str = "d") -> Attempt:
    claim = Claim(tenant_id="ours", key="k", route="POST /x", digest=body)
    return Attempt(claim=claim, now=plane.clock.now, status=200, secret_of=lambda _: "")


async def test_an_act_of_several_transactions_is_claimed_while_it_runs(plane: Plane) -> None:
    """A twin is told to ask again; afterwards it gets the answer."""
    told: list[bool] = []

    async def act() -> bytes:
        try:
            await once_across(plane.database, _attempt(plane), act=act)
        except StillRunning as failure:
            told.append(failure.retry_is_safe)
        return b"{}"

    first = await once_across(plane.database, _attempt(plane), act=act)
    again = await once_across(plane.database, _attempt(plane), act=act)
    assert told == [True]
    assert (first.body, first.replayed, again.body, again.replayed) == (b"{}", False, b"{}", True)


async def test_a_claim_whose_process_died_is_taken_over(plane: Plane) -> None:
    """After a minute; and one whose act failed is free at once."""
    acted: list[int] = []

    async def fail() -> bytes:
        acted.append(1)
        raise Unavailable("away")

    async def act() -> bytes:
        acted.append(2)
        return b"{}"

    for _ in range(2):
        try:
            await once_across(plane.database, _attempt(plane), act=fail)
        except Unavailable:
            continue
    async with plane.database.session() as session:
        await session.execute(
            "INSERT INTO idempotent_answer VALUES ('ours', 'k', 'POST /x', 'd', 0, '', $1)", plane.clock.now
        )
    plane.clock.move(GIVEN_UP_AFTER + timedelta(seconds=1))
    assert (await once_across(plane.database, _attempt(plane), act=act)).replayed is False
    assert acted == [1, 1, 2]


async def test_answers_are_forgotten_in_the_end(plane: Plane) -> None:
    """Old ones only."""
    await plane.ours.post(CUSTOMERS, {"customer_id": "a"}, key="old")
    plane.clock.move(timedelta(days=8))
    await plane.ours.post(CUSTOMERS, {"customer_id": "b"}, key="new")
    assert await forget_due(plane.database, now=plane.clock.now) == 1
    assert [row["key"] for row in await plane.rows("SELECT key FROM idempotent_answer")] == ["new"]


async def test_an_act_that_was_only_slow_still_answers(plane: Plane) -> None:
    """Its claim was taken over meanwhile: both give their answer, and the second one's is kept."""

    async def quick() -> bytes:
        return b'{"by":"second"}'

    async def slow() -> bytes:
        plane.clock.move(GIVEN_UP_AFTER + timedelta(seconds=1))
        assert (await once_across(plane.database, _attempt(plane), act=quick)).body == b'{"by":"second"}'
        return b'{"by":"first"}'

    assert (await once_across(plane.database, _attempt(plane), act=slow)).body == b'{"by":"first"}'
    assert (await once_across(plane.database, _attempt(plane), act=slow)).body == b'{"by":"second"}'
