"""No tenant sees or touches another's: a table of every route.

Theirs has one of everything. Ours asks every route for it, by its real ids and with bodies that would be good
at home. What is named in a path is not found; what is listed shows nothing of it; and whatever ours does, every
row of theirs is afterwards what it was before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from billing_core.api.app import ROUTES
from billing_core.api.route import Access, AnyRoute

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

PRICE = {"code": "use", "meter": "m_theirs", "model": "per_unit", "unit_amount": "1"}
CATALOG: dict[str, Any] = {
    "meters": [{"code": "m_theirs", "event": "f_theirs", "aggregation": "sum", "field": "quantity"}],
    "features": [{"code": "f_theirs", "kind": "metered", "meter": "m_theirs"}],
    "plans": [
        {
            "code": "p_theirs",
            "currency": "USD",
            "fee_amount": "20",
            "entitlements": [{"feature": "f_theirs"}],
            "prices": [PRICE],
        }
    ],
    "addons": [{"code": "a_theirs", "entitlements": [{"feature": "f_theirs"}]}],
}
BODIES: dict[str, Any] = {
    "PUT /v1/catalog": {"plans": [{"code": "p_theirs", "currency": "EUR"}]},
    "POST /v1/clock/advance": {"to": "2026-05-01T00:00:00Z"},
    "POST /v1/customers": {"customer_id": "c_theirs", "name": "home"},
    "POST /v1/subscriptions": {"customer_id": "c_theirs", "plan": "p_theirs"},
    "POST /v1/subscriptions/{subscription_id}/change": {"plan": "p_theirs", "at": "now"},
    "PUT /v1/subscriptions/{subscription_id}/addons/{addon}": {"quantity": 2},
    "POST /v1/customers/{customer_id}/entitlements": {"kind": "override", "terms": {"feature": "f_theirs"}},
    "PUT /v1/customers/{customer_id}/budgets": {"nodes": [{"guards": [{"feature": "f_theirs"}]}]},
    "POST /v1/customers/{customer_id}/wallets/{currency}/grants": {"amount": "1"},
    "POST /v1/customers/{customer_id}/grants/{grant_id}/lower": {"amount": "1"},
    "POST /v1/customers/{customer_id}/wallets/{currency}/top-ups": {
        "amount": "1",
        "method": "wire",
        "reference": "r",
    },
    "POST /v1/payments/{payment_id}/receipts": {"method": "wire", "reference": "r"},
    "POST /v1/invoices/{invoice_id}/payments": {"method": "wire", "reference": "r"},
}
REFUSED_FOR_ITS_BODY = {"POST /v1/subscriptions"}


def _name(route: AnyRoute) -> str:
    return f"{route.method} {route.path}"


def _names_something(route: AnyRoute) -> bool:
    return "{" in route.path or _name(route) in REFUSED_FOR_ITS_BODY


OPERATED = sorted(
    (route for route in ROUTES if route.access is Access.OPERATOR),
    key=lambda route: (not _names_something(route), route.method != "GET"),
)
"""What names something comes first, then what shows, then what would give ours things of the same names."""


@pytest.fixture
async def names(plane: Plane) -> dict[str, str]:
    """Theirs has one of everything; its names."""
    theirs = plane.theirs
    await theirs.put("/v1/catalog", CATALOG)
    await theirs.post("/v1/customers", {"customer_id": "c_theirs", "name": "n_theirs"})
    key = (await theirs.post("/v1/customers/c_theirs/keys", {"label": "l_theirs"})).body
    gift = {"amount": "5", "note": "g_theirs"}
    grant = (await theirs.post("/v1/customers/c_theirs/wallets/USD/grants", gift, key="g")).body
    subscription = (await theirs.post("/v1/subscriptions", {"customer_id": "c_theirs", "plan": "p_theirs"})).body
    await theirs.put(f"/v1/subscriptions/{subscription['subscription_id']}/addons/a_theirs", {})
    override = {"kind": "override", "terms": {"feature": "f_theirs"}}
    own = (await theirs.post("/v1/customers/c_theirs/entitlements", override)).body
    await theirs.put("/v1/customers/c_theirs/budgets", {"nodes": [{"guards": [{"feature": "f_theirs"}]}]})
    invoice = (await theirs.get("/v1/invoices")).body["items"][0]
    payment = (await theirs.get("/v1/payments")).body["items"][0]
    token = (await plane.root.get("/v1/tenants/theirs/tokens")).body["items"][0]
    return {
        "tenant_id": "theirs",
        "token_id": token["token_id"],
        "customer_id": "c_theirs",
        "key_id": key["key_id"],
        "grant_id": grant["grant_id"],
        "entitlement_id": own["entitlement_id"],
        "addon": "a_theirs",
        "subscription_id": subscription["subscription_id"],
        "invoice_id": invoice["invoice_id"],
        "payment_id": payment["payment_id"],
        "line_no": "1",
        "currency": "USD",
    }


async def _rows_of_theirs(plane: Plane) -> dict[str, str]:
    """A digest of theirs' rows in every table that knows tenants."""
    tables = await plane.rows(
        """SELECT c.relname AS name FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
           WHERE a.attname = 'tenant_id' AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"""
    )
    digest = """SELECT md5(string_agg(r::text, '|' ORDER BY r::text)) FROM "{}" r WHERE tenant_id = 'theirs'"""
    return {table["name"]: await plane.value(digest.format(table["name"])) for table in tables}


async def test_nobody_sees_or_touches_another_tenants_things(plane: Plane, names: dict[str, str]) -> None:
    """With the real ids of theirs, in the path and in the body."""
    before = await _rows_of_theirs(plane)
    assert sum(digest is not None for digest in before.values()) > 10
    faults: list[object] = []
    for number, route in enumerate(OPERATED):
        path, headers = route.path.format(**names), {"Idempotency-Key": f"i{number}"}
        answer = await plane.ours.ask(route.method, path, body=BODIES.get(_name(route), {}), headers=headers)
        is_found = answer.status < 300
        if not (answer.status == 404 if _names_something(route) else is_found):
            faults.append((_name(route), answer))
        shown = answer.raw.decode() if route.method == "GET" and is_found else ""
        if any(name in shown for name in ("theirs", names["invoice_id"], names["payment_id"])):
            faults.append((_name(route), "shows what is theirs", shown))
        if await _rows_of_theirs(plane) != before:
            faults.append((_name(route), "touched what is theirs"))
    assert faults == []
    assert (await plane.theirs.get("/v1/clock")).body["offset_ms"] == 0


@pytest.mark.parametrize("path", ["/v1/subscriptions", "/v1/invoices", "/v1/payments"])
async def test_a_filter_by_anothers_customer_shows_nothing(plane: Plane, names: dict[str, str], path: str) -> None:
    """Whose customer it is decides the token, not the filter."""
    assert (await plane.ours.get(f"{path}?customer_id=c_theirs")).body == {"items": [], "next_cursor": None}
    assert len((await plane.theirs.get(f"{path}?customer_id=c_theirs")).body["items"]) == 1
