"""The catalog over HTTP."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from billing_core.errors import NotFound
from billing_core.store.setup.catalog import meters_of, offered_version, plan_version

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

CATALOG: dict[str, Any] = {
    "meters": [{"code": "tokens", "event": "tokens", "aggregation": "sum", "field": "quantity"}],
    "features": [{"code": "tokens", "kind": "metered", "meter": "tokens"}],
    "plans": [
        {
            "code": "pro",
            "currency": "USD",
            "fee_amount": "20",
            "entitlements": [{"feature": "tokens"}],
            "prices": [
                {"code": "use", "meter": "tokens", "model": "per_unit", "unit_amount": "2.50", "per": 1000000}
            ],
        },
        {"code": "free", "currency": "USD", "entitlements": [{"feature": "tokens"}]},
    ],
}


async def test_a_plan_gets_a_new_version_only_when_its_terms_change(plane: Plane) -> None:
    """Applying a document twice changes nothing; a changed price is a new version of that plan alone."""
    first = await plane.ours.put("/v1/catalog", CATALOG)
    assert (first.status, first.body) == (
        200,
        {
            "plans": [
                {"code": "pro", "version": 1, "changed": True},
                {"code": "free", "version": 1, "changed": True},
            ]
        },
    )
    again = (await plane.ours.put("/v1/catalog", CATALOG)).body["plans"]
    assert again == [
        {"code": "pro", "version": 1, "changed": False},
        {"code": "free", "version": 1, "changed": False},
    ]
    dearer = deepcopy(CATALOG)
    dearer["plans"][0]["prices"][0]["unit_amount"] = "3"
    changed = (await plane.ours.put("/v1/catalog", dearer)).body["plans"]
    assert changed == [
        {"code": "pro", "version": 2, "changed": True},
        {"code": "free", "version": 1, "changed": False},
    ]
    async with plane.database.transaction() as tx:
        old = await plan_version(tx, "ours", plan_code="pro", version=1)
        assert old.terms.price("use").unit_amount == "2.50"
        assert (await offered_version(tx, "ours", plan_code="pro")).terms.price("use").unit_amount == "3"
    assert await plane.value("SELECT count(*) FROM outbox WHERE kind = 'meters'") == 3


async def test_the_catalog_that_is_read_is_the_one_that_was_applied(plane: Plane) -> None:
    """With the version of each plan beside it; before the first one it is empty."""
    assert (await plane.ours.get("/v1/catalog")).body == {
        "units": [],
        "meters": [],
        "features": [],
        "plans": [],
        "addons": [],
        "versions": {},
    }
    await plane.ours.put("/v1/catalog", CATALOG)
    read = (await plane.ours.get("/v1/catalog")).body
    assert read.pop("versions") == {"pro": 1, "free": 1}
    assert read == {**CATALOG, "units": [], "addons": []}


async def test_a_plan_that_is_no_longer_named_is_no_longer_offered(plane: Plane) -> None:
    """Its versions stay for those who are on it, and so do the meters that they read."""
    await plane.ours.put("/v1/catalog", CATALOG)
    await plane.ours.put("/v1/catalog", {"plans": [{"code": "other", "currency": "EUR"}]})
    async with plane.database.transaction() as tx:
        with pytest.raises(NotFound, match="there is no plan 'pro'"):
            await offered_version(tx, "ours", plan_code="pro")
        assert (await plan_version(tx, "ours", plan_code="pro", version=1)).terms.meter("tokens").event == "tokens"
        assert [meter.code for meter in await meters_of(tx, "ours")] == ["tokens"]


def _with(path: str, value: object) -> dict[str, Any]:
    """The catalog with one place changed: `plans.0.currency`."""
    document: Any = deepcopy(CATALOG)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place = document
    for part in parents:
        place = place[part]
    place[last] = value
    return document


CLOSED = [{"upto": 10, "unit_amount": "1"}]
PRICE = "plans.0.prices.0"
FAULTS = [
    ("plans.0.currency", "XXZ", "plans[0].currency"),
    ("plans.0.time_zone", "Mars/Olympus", "plans[0].time_zone"),
    ("plans.0.fee_amount", "-1", "plans[0].fee_amount"),
    ("plans.0.fee_amount", "0.001", "plans[0].fee_amount"),
    ("plans.0.fee_amount", 1.5, "plans[0].fee_amount"),
    ("plans.0.surprise", 1, "plans[0].surprise"),
    ("plans.0.code", "has space", "plans[0].code"),
    ("plans.0.name", "a\0b", "plans[0].name"),
    ("plans.0.name", "x" * 1001, "plans[0].name"),
    ("plans.1.code", "pro", "plans[1].code"),
    (
        "plans.0.entitlements.0.limits",
        [{"units": -1, "interval": "day"}],
        "plans[0].entitlements[0].limits[0].units",
    ),
    (
        "plans.0.entitlements.0.limits",
        [{"units": 2**53, "interval": "day"}],
        "plans[0].entitlements[0].limits[0].units",
    ),
    ("plans.0.entitlements.0.levels", {"floor": {}}, "plans[0].entitlements[0].levels.floor"),
    ("plans.0.spend_caps", [{"amount": "-1", "interval": "day"}], "plans[0].spend_caps[0].amount"),
    ("plans.0.entitlements.0.feature", "none", "plans[0].entitlements[0].feature"),
    (
        f"{PRICE}",
        {"code": "use", "meter": "tokens", "model": "graduated", "tiers": CLOSED},
        "plans[0].prices[0].tiers",
    ),
    (f"{PRICE}.per", 0, "plans[0].prices[0].per"),
    (f"{PRICE}.per", 2**70, "plans[0].prices[0].per"),
    (f"{PRICE}.unit_amount", "1e5", "plans[0].prices[0].unit_amount"),
    (f"{PRICE}.unit_amount", "NaN", "plans[0].prices[0].unit_amount"),
    (f"{PRICE}.meter", "none", "plans[0].prices[0].meter"),
    (f"{PRICE}.model", "guess", "plans[0].prices[0].model"),
    ("meters.0.aggregation", "median", "meters[0].aggregation"),
    ("meters.0.scale", 10**30, "meters[0].scale"),
    ("features.0.meter", "none", "features[0].meter"),
    ("meters", {}, "meters"),
]


@pytest.mark.parametrize(("path", "value", "field"), FAULTS)
async def test_a_document_that_is_no_catalog_is_refused_by_field_and_rule(
    plane: Plane, path: str, value: object, field: str
) -> None:
    """The first fault names its place, and nothing is written."""
    before = await plane.count()
    answer = await plane.ours.put("/v1/catalog", _with(path, value))
    assert (answer.status, answer.body["field"], answer.headers["Content-Type"]) == (
        400,
        field,
        "application/problem+json",
    )
    assert answer.body["detail"]
    assert await plane.count() == before


async def test_two_who_apply_at_once_come_one_after_the_other(plane: Plane) -> None:
    """Each changed document is a version of its own, and the last one is the one in force."""
    documents = [_with("plans.0.fee_amount", str(20 + number)) for number in range(6)]
    answers = await asyncio.gather(*(plane.ours.put("/v1/catalog", document) for document in documents))
    assert {answer.status for answer in answers} == {200}
    assert sorted(answer.body["plans"][0]["version"] for answer in answers) == [1, 2, 3, 4, 5, 6]
    last = max(range(6), key=lambda number: answers[number].body["plans"][0]["version"])
    assert (await plane.ours.get("/v1/catalog")).body["plans"][0]["fee_amount"] == str(20 + last)
