"""Tenants, tokens and clocks over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from billing_core.contract.keys import digest_of

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane


async def test_a_tenant_is_founded_with_a_token_that_works_and_is_kept_as_a_digest_only(plane: Plane) -> None:
    """The token is shown once; the gateway is told of its digest."""
    answer = await plane.root.post("/v1/tenants", {"name": "New"})
    assert answer.status == 201
    token = answer.body["operator_token"]
    assert token.startswith("tgo_")
    clock = await plane.caller(token).get("/v1/clock")
    assert (clock.status, clock.body) == (200, {"now": "2026-03-01T12:00:00Z", "offset_ms": 0, "sandbox": False})
    row = (await plane.rows("SELECT * FROM operator_token WHERE tenant_id = $1", answer.body["tenant_id"]))[0]
    assert row["digest"] == digest_of(token)
    assert token not in str(row)
    assert (
        await plane.value("SELECT count(*) FROM outbox WHERE kind = 'key' AND subject = $1", digest_of(token)) == 1
    )


async def test_a_second_tenant_of_the_same_id_is_a_conflict(plane: Plane) -> None:
    """The constraint speaks, not a stack trace."""
    answer = await plane.root.post("/v1/tenants", {"tenant_id": "ours"})
    assert (answer.status, answer.body["code"], answer.body["field"]) == (409, "conflict", "tenant_id")


async def test_a_revoked_token_is_unknown_within_seconds(plane: Plane) -> None:
    """It may be remembered for two seconds, and no longer."""
    plane.clock.move(timedelta(milliseconds=1))
    issued = (await plane.root.post("/v1/tenants/ours/tokens", {"label": "second"})).body
    second = plane.caller(issued["operator_token"])
    assert (await second.get("/v1/clock")).status == 200
    revoked = await plane.root.delete(f"/v1/tenants/ours/tokens/{issued['token_id']}")
    assert (revoked.status, revoked.body["revoked_at"]) == (200, "2026-03-01T12:00:00.001000Z")
    plane.clock.move(timedelta(seconds=2))
    answer = await second.get("/v1/clock")
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="tallygate"')
    assert (await plane.ours.get("/v1/clock")).status == 200
    listed = (await plane.root.get("/v1/tenants/ours/tokens")).body["items"]
    assert [one["label"] for one in listed] == ["first", "second"]
    assert "digest" not in listed[0]


async def test_who_may_not_is_told_apart_from_who_is_unknown(plane: Plane) -> None:
    """401 for no or an unknown credential, 403 for a known one at the wrong door."""
    assert (await plane.nobody.get("/v1/clock")).status == 401
    assert (await plane.caller("tgo_made-up").get("/v1/clock")).status == 401
    assert (await plane.caller("tgo_\N{SNOWMAN}").get("/v1/clock")).status == 401
    assert (await plane.root.get("/v1/clock")).status == 403
    assert (await plane.ours.get("/v1/tenants")).status == 403
    assert (await plane.ours.post("/v1/tenants", {})).status == 403
    assert (await plane.nobody.post("/v1/tenants", {})).status == 401


async def test_a_sandbox_starts_at_any_time_and_moves_forward_only(plane: Plane) -> None:
    """Advancing tells the gateway through each customer's snapshot; going back is refused and writes nothing."""
    sandbox = await plane.found("past", sandbox=True, clock_at="2023-11-16T18:00:00Z")
    assert (await sandbox.get("/v1/clock")).body["now"] == "2023-11-16T18:00:00Z"
    assert (await sandbox.post("/v1/customers", {"customer_id": "acme"})).body[
        "created_at"
    ] == "2023-11-16T18:00:00Z"
    await plane.value("DELETE FROM outbox")
    moved = await sandbox.post("/v1/clock/advance", {"to": "2023-12-01T00:00:00+00:00"})
    assert (moved.status, moved.body["now"]) == (200, "2023-12-01T00:00:00Z")
    assert await plane.rows("SELECT kind, tenant_id, customer_id FROM outbox") == [
        {"kind": "snapshot", "tenant_id": "past", "customer_id": "acme"}
    ]
    before = await plane.count()
    for instant in ("2023-12-01T00:00:00Z", "2023-11-30T23:59:59Z", "1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z"):
        answer = await sandbox.post("/v1/clock/advance", {"to": instant})
        assert (answer.status, answer.body["code"], answer.body["field"]) == (400, "invalid_input", "to")
    assert await plane.count() == before
    assert (await sandbox.get("/v1/clock")).body["now"] == "2023-12-01T00:00:00Z"


@pytest.mark.parametrize("body", [{"name": "real", "clock_at": "2030-01-01T00:00:00Z"}])
async def test_only_a_sandbox_has_a_clock_of_its_own(plane: Plane, body: dict[str, object]) -> None:
    """A real tenant lives in real time, at its birth and later."""
    answer = await plane.root.post("/v1/tenants", body)
    assert (answer.status, answer.body["code"], answer.body["field"]) == (422, "unprocessable", "clock_at")
    real = await plane.found("real")
    moved = await real.post("/v1/clock/advance", {"to": "2026-03-02T12:00:00Z"})
    assert (moved.status, moved.body["code"]) == (422, "unprocessable")


async def test_tenants_are_listed_page_by_page(plane: Plane) -> None:
    """A cursor goes on where the page ended, whatever was added before it."""
    for number in range(3):
        await plane.found(f"t{number}")
    page = (await plane.root.get("/v1/tenants?limit=2")).body
    assert [one["tenant_id"] for one in page["items"]] == ["ours", "t0"]
    await plane.found("aaa")
    page = (await plane.root.get(f"/v1/tenants?limit=2&cursor={page['next_cursor']}")).body
    assert [one["tenant_id"] for one in page["items"]] == ["t1", "t2"]
    page = (await plane.root.get(f"/v1/tenants?limit=2&cursor={page['next_cursor']}")).body
    assert ([one["tenant_id"] for one in page["items"]], page["next_cursor"]) == (["theirs"], None)
