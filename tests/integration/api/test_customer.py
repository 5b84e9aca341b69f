"""Customers and their keys over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from billing_core.contract.keys import KeyRecord, Role, api_key_name, customer_keys, digest_of
from billing_core.store.projection import credentials

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

ACME = {
    "customer_id": "acme",
    "name": "Acme",
    "time_zone": "Europe/Berlin",
    "status": "active",
    "collection": "offline",
    "payment_terms_days": 30,
    "stripe_customer": "",
    "stripe_payment_method": "",
    "created_at": "2026-03-01T12:00:00Z",
    "operator_suspended_at": None,
    "dunning_suspended_at": None,
}


async def status_at_the_gate(plane: Plane) -> str | None:
    """What the gateway's snapshot of acme says."""
    return await plane.redis.hget(customer_keys("ours", "acme").snapshot, "st")


async def test_a_customer_is_created_once_and_the_gateway_is_told(plane: Plane) -> None:
    """The answer shows all defaults; a second one of the same id is a conflict that writes nothing."""
    made = await plane.ours.post(
        "/v1/customers", {"customer_id": "acme", "name": "Acme", "time_zone": "Europe/Berlin"}
    )
    assert (made.status, made.body) == (201, {**ACME, "applied": True})
    assert (await plane.ours.get("/v1/customers/acme")).body == ACME
    assert await status_at_the_gate(plane) == b"active"
    assert await plane.value("SELECT count(*) FROM outbox WHERE customer_id = 'acme'") == 0
    before = await plane.count()
    again = await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    assert (again.status, again.body["code"], again.body["field"]) == (409, "conflict", "customer_id")
    assert await plane.count() == before


async def test_stripe_collects_only_from_a_known_payment_method(plane: Plane) -> None:
    """The constraint's name is the sentence that the caller reads."""
    before = await plane.count()
    answer = await plane.ours.post("/v1/customers", {"customer_id": "acme", "collection": "stripe"})
    assert answer.status == 422
    assert answer.body["detail"] == "stripe collects from a known payment method"
    assert await plane.count() == before
    whole = {
        "customer_id": "acme",
        "collection": "stripe",
        "stripe_customer": "cus_1",
        "stripe_payment_method": "pm_1",
    }
    assert (await plane.ours.post("/v1/customers", whole)).body["collection"] == "stripe"


async def test_a_customer_is_suspended_and_resumed(plane: Plane) -> None:
    """The gateway knows before the answer comes; twice is once, and the first instant stays."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    for act, status, since in (
        ("suspend", "suspended", "2026-03-01T12:00:00Z"),
        ("suspend", "suspended", "2026-03-01T12:00:00Z"),
        ("resume", "active", None),
    ):
        answer = await plane.ours.post(f"/v1/customers/acme/{act}")
        assert (answer.status, answer.body["status"], answer.body["applied"]) == (200, status, True)
        assert answer.body["operator_suspended_at"] == since
        assert await status_at_the_gate(plane) == status.encode()
        plane.clock.move(timedelta(minutes=1))


async def test_dunning_and_the_operator_suspend_each_for_itself(plane: Plane) -> None:
    """Resuming lifts the operator's word only; the other cause is shown."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    await plane.ours.post("/v1/customers/acme/suspend")
    await plane.value("UPDATE customer SET dunning_suspended_at = '2026-02-01T00:00:00Z'")
    resumed = (await plane.ours.post("/v1/customers/acme/resume")).body
    assert (resumed["status"], resumed["operator_suspended_at"]) == ("suspended", None)
    assert resumed["dunning_suspended_at"] == "2026-02-01T00:00:00Z"


async def test_what_redis_does_not_hear_is_done_all_the_same(plane: Plane) -> None:
    """The answer says that it has not reached the gateway; the relay will bring it, and a retry says so."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    epoch = customer_keys("ours", "acme").epoch
    kept = await plane.redis.getdel(epoch)
    given = await plane.ours.post("/v1/customers/acme/wallets/USD/grants", {"amount": "1"}, key="g")
    assert (given.status, given.body["applied"]) == (201, False)
    assert await plane.value("SELECT count(*) FROM outbox WHERE customer_id = 'acme'") == 1
    await plane.redis.set(epoch, kept)
    again = await plane.ours.post("/v1/customers/acme/wallets/USD/grants", {"amount": "1"}, key="g")
    assert again.body == {**given.body, "applied": True}
    assert await plane.value("SELECT count(*) FROM outbox WHERE customer_id = 'acme'") == 0


async def test_customers_are_listed_page_by_page(plane: Plane) -> None:
    """The order is that of the ids, and other tenants' customers are nowhere in it."""
    for name in ("b", "a", "c"):
        await plane.ours.post("/v1/customers", {"customer_id": name})
    await plane.theirs.post("/v1/customers", {"customer_id": "aa"})
    page = (await plane.ours.get("/v1/customers?limit=2")).body
    assert [one["customer_id"] for one in page["items"]] == ["a", "b"]
    last = (await plane.ours.get(f"/v1/customers?limit=2&cursor={page['next_cursor']}")).body
    assert ([one["customer_id"] for one in last["items"]], last["next_cursor"]) == (["c"], None)


async def test_a_key_is_shown_once_and_revoked_for_good(plane: Plane) -> None:
    """What is kept is a digest and a hint; what the gateway is told of is the digest."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    made = await plane.ours.post("/v1/customers/acme/keys", {"label": "web", "path": "team:ml/project:app"})
    assert made.status == 201
    secret = made.body["key"]
    assert secret.startswith("tgk_")
    assert made.body["applied"]
    assert await plane.redis.exists(api_key_name(digest_of(secret))) == 1
    assert made.body["hint"] == secret[-4:]
    async with plane.database.transaction() as tx:
        record = KeyRecord(
            tenant_id="ours",
            role=Role.CALLER,
            customer_id="acme",
            hint=secret[-4:],
            path=("team:ml", "project:app"),
        )
        assert await credentials(tx, [digest_of(secret)]) == {digest_of(secret): record}
    listed = (await plane.ours.get("/v1/customers/acme/keys")).body["items"]
    assert [(one["label"], one["path"], one["revoked_at"]) for one in listed] == [
        ("web", "team:ml/project:app", None)
    ]
    assert secret not in str(listed) + str(await plane.rows("SELECT * FROM api_key"))
    path = f"/v1/customers/acme/keys/{made.body['key_id']}"
    first = await plane.ours.delete(path)
    assert (first.status, first.body["revoked_at"]) == (200, "2026-03-01T12:00:00Z")
    assert (await plane.ours.delete(path)).body == first.body
    async with plane.database.transaction() as tx:
        assert await credentials(tx, [digest_of(secret)]) == {digest_of(secret): None}
    assert first.body["applied"]
    assert await plane.redis.exists(api_key_name(digest_of(secret))) == 0


async def test_an_operator_token_is_a_credential_of_the_gateway_too(plane: Plane) -> None:
    """One look-up by digest answers for both kinds."""
    digest = digest_of(plane.ours.token)
    async with plane.database.transaction() as tx:
        found = await credentials(tx, [digest])
    assert found == {digest: KeyRecord(tenant_id="ours", role=Role.OPERATOR, hint=plane.ours.token[-4:])}
