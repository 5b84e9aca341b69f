"""Customers and their keys over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_core.contract.keys import KeyRecord, Role, digest_of
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
}


async def test_a_customer_is_created_once_and_the_gateway_is_told(plane: Plane) -> None:
    """The answer shows all defaults; a second one of the same id is a conflict that writes nothing."""
    made = await plane.ours.post(
        "/v1/customers", {"customer_id": "acme", "name": "Acme", "time_zone": "Europe/Berlin"}
    )
    assert (made.status, made.body) == (201, ACME)
    assert (await plane.ours.get("/v1/customers/acme")).body == ACME
    told = await plane.rows("SELECT tenant_id, customer_id FROM outbox WHERE kind = 'snapshot'")
    assert told == [{"tenant_id": "ours", "customer_id": "acme"}]
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
    """Each change, and each repetition, has the snapshot made anew."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    for act, status in (("suspend", "suspended"), ("suspend", "suspended"), ("resume", "active")):
        answer = await plane.ours.post(f"/v1/customers/acme/{act}")
        assert (answer.status, answer.body["status"]) == (200, status)
    assert await plane.value("SELECT count(*) FROM outbox WHERE kind = 'snapshot'") == 4


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
    made = await plane.ours.post("/v1/customers/acme/keys", {"label": "web", "path": ["team", "app"]})
    assert made.status == 201
    secret = made.body["key"]
    assert secret.startswith("tgk_")
    assert made.body["hint"] == secret[-4:]
    async with plane.database.transaction() as tx:
        record = KeyRecord(
            tenant_id="ours", role=Role.CALLER, customer_id="acme", hint=secret[-4:], path=("team", "app")
        )
        assert await credentials(tx, [digest_of(secret)]) == {digest_of(secret): record}
    listed = (await plane.ours.get("/v1/customers/acme/keys")).body["items"]
    assert [(one["label"], one["path"], one["revoked_at"]) for one in listed] == [("web", ["team", "app"], None)]
    assert secret not in str(listed) + str(await plane.rows("SELECT * FROM api_key"))
    path = f"/v1/customers/acme/keys/{made.body['key_id']}"
    first = await plane.ours.delete(path)
    assert (first.status, first.body["revoked_at"]) == (200, "2026-03-01T12:00:00Z")
    assert (await plane.ours.delete(path)).body == first.body
    async with plane.database.transaction() as tx:
        assert await credentials(tx, [digest_of(secret)]) == {digest_of(secret): None}
    assert await plane.value("SELECT count(*) FROM outbox WHERE subject = $1", digest_of(secret)) == 3


async def test_an_operator_token_is_a_credential_of_the_gateway_too(plane: Plane) -> None:
    """One look-up by digest answers for both kinds."""
    digest = digest_of(plane.ours.token)
    async with plane.database.transaction() as tx:
        found = await credentials(tx, [digest])
    assert found == {digest: KeyRecord(tenant_id="ours", role=Role.OPERATOR, hint=plane.ours.token[-4:])}
