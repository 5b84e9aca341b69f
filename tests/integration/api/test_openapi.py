"""The control plane as it describes itself: a fuzzer that reads the document finds nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from billing_core.api.app import ROUTES
from billing_core.api.description import describe
from billing_core.contract.shipped import shipped
from tests.fuzzer import findings, printed

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

EXAMPLES = ("--max-examples", "2")


async def test_the_document_is_served_to_anybody_and_printed(plane: Plane, tmp_path: Path) -> None:
    """As it is made of the routes."""
    document = describe(ROUTES)
    answer = await plane.nobody.get("/openapi.json")
    assert (answer.status, answer.headers["Content-Type"], answer.raw) == (200, "application/json", document)
    assert msgspec.json.decode(await printed("control", "--url", plane.url, folder=tmp_path)) == answer.body


async def test_a_fuzzer_finds_nothing_as_operator(plane: Plane, tmp_path: Path) -> None:
    """With a customer on a plan, and money in the wallet; another tenant's operator sees nothing of it."""
    ours = plane.ours
    await ours.put("/v1/catalog", tomllib.loads(shipped("catalogs/messaging.toml").read_text("utf-8")))
    await ours.post("/v1/customers", {"customer_id": "acme", "name": "Acme"})
    placed = await ours.post("/v1/subscriptions", {"customer_id": "acme", "plan": "pay-as-you-go"})
    wallet, wire = "/v1/customers/acme/wallets/USD", {"amount": "25.00", "method": "wire", "reference": "W1"}
    paid = await ours.post(f"{wallet}/top-ups", wire, key="t1")
    assert (placed.status, paid.status) == (201, 201), (placed.raw, paid.raw)
    names = {
        "customer_id": "acme",
        "currency": "USD",
        "subscription_id": placed.body["subscription_id"],
        "grant_id": paid.body["grant_id"],
        "payment_id": paid.body["payment"]["payment_id"],
    }
    users = {"token": ours.token, "stranger": plane.theirs.token}
    ended, said = await findings(plane.url, *EXAMPLES, folder=tmp_path, **users, names=names)
    assert ended == 0, said


async def test_a_fuzzer_finds_nothing_as_root(plane: Plane, tmp_path: Path) -> None:
    """Where tenants are founded."""
    tenants = ("--include-path-regex", "^/v1/tenants")
    users = {"token": plane.root.token, "stranger": plane.theirs.token}
    ended, said = await findings(plane.url, *EXAMPLES, *tenants, folder=tmp_path, **users)
    assert ended == 0, said


async def test_a_query_string_is_text(plane: Plane) -> None:
    """What the fuzzer found: `null` was read as nothing, and a number as an instant."""
    for path in ("/v1/invoices?state=null", "/v1/revenue?to=null", "/v1/revenue?to=0.5", "/v1/revenue?from=1"):
        answer = await plane.ours.get(path)
        assert (answer.status, answer.body["code"]) == (400, "invalid_input"), path


async def test_a_path_that_is_named_is_not_taken_for_one_with_a_variable(plane: Plane) -> None:
    """What the fuzzer found: `resolved` is no entitlement's id."""
    answer = await plane.ours.delete("/v1/customers/acme/entitlements/resolved")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert msgspec.json.decode(answer.raw)["code"] == "method_not_allowed"
