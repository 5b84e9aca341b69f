"""Trials, overrides, add-ons and budgets over HTTP, and what comes of them all."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_core.flows.billing.close import close_due

if TYPE_CHECKING:
    from tests.integration.api.conftest import Answer, Plane

CATALOG: dict[str, Any] = {
    "meters": [
        {"code": "calls", "event": "calls", "aggregation": "sum", "field": "quantity"},
        {"code": "seats", "event": "seats", "aggregation": "max", "field": "quantity"},
    ],
    "features": [
        {"code": "calls", "kind": "metered", "meter": "calls"},
        {"code": "seats", "kind": "gauge", "meter": "seats"},
        {"code": "beta", "kind": "switch"},
        {"code": "tier", "kind": "static"},
    ],
    "plans": [
        {
            "code": "pro",
            "currency": "USD",
            "entitlements": [
                {"feature": "calls", "limits": [{"units": 1000, "interval": "month"}]},
                {"feature": "seats", "limits": [{"units": 5, "anchor": "lifetime"}]},
                {"feature": "tier", "value": "gold"},
            ],
            "spend_caps": [{"level": "key", "amount": "5", "interval": "month"}],
        },
        {"code": "max", "currency": "USD", "entitlements": [{"feature": "calls"}]},
    ],
    "addons": [
        {
            "code": "more",
            "entitlements": [
                {"feature": "calls", "limits": [{"units": 500, "interval": "month"}]},
                {"feature": "seats", "limits": [{"units": 2, "anchor": "lifetime"}]},
            ],
        }
    ],
}
CUSTOMER = "/v1/customers/acme"
GIVEN, BUDGETS, RESOLVED = f"{CUSTOMER}/entitlements", f"{CUSTOMER}/budgets", f"{CUSTOMER}/entitlements/resolved"
TRIAL = {
    "kind": "trial",
    "terms": {"feature": "calls", "limits": [{"units": 9000, "interval": "month"}]},
    "expires_at": "2026-03-08T00:00:00Z",
}


@pytest.fixture
async def subscribed(plane: Plane) -> str:
    """Acme is on `pro`; the subscription's id."""
    assert (await plane.ours.put("/v1/catalog", CATALOG)).status == 200
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    answer = await plane.ours.post("/v1/subscriptions", {"customer_id": "acme", "plan": "pro"})
    assert answer.body["applied"] is True
    return answer.body["subscription_id"]


async def resolved(plane: Plane, feature: str = "calls") -> tuple[dict[str, int], list[str]]:
    """Units by counter, and the sources."""
    shown = (await plane.ours.get(RESOLVED)).body
    for one in shown["features"]:
        if one["feature"] == feature:
            limits = {limit["counter"]: limit["units"] for limit in one["guard"]["limits"]}
            return limits, [part["source"] for part in one["sources"]]
    return {}, []


async def test_what_a_customer_may_do_is_told_with_its_sources(plane: Plane, subscribed: str) -> None:
    """The snapshot in words: windows of now, plan, add-on, trial, budgets by node."""
    await plane.ours.put(f"/v1/subscriptions/{subscribed}/addons/more", {"quantity": 3})
    await plane.ours.post(GIVEN, TRIAL)
    cap = {"amount": "20", "currency": "USD", "interval": "day"}
    await plane.ours.put(BUDGETS, {"nodes": [{"node": "team:ml", "spend_caps": [cap]}]})
    shown = (await plane.ours.get(RESOLVED)).body
    assert (shown["customer_id"], shown["status"]) == ("acme", "active")
    assert shown["plan"] == {"code": "pro", "version": 1, "since_at": "2026-03-01T12:00:00Z"}
    assert shown["stale_at"] == "2026-03-08T00:00:00Z"
    calls = next(one for one in shown["features"] if one["feature"] == "calls")
    assert calls["guard"]["limits"] == [
        {
            "counter": "calls@month",
            "units": 9000,
            "ceiling": 9000,
            "carry_units": 0,
            "window_start_at": "2026-03-01T00:00:00Z",
            "window_end_at": "2026-04-01T00:00:00Z",
        }
    ]
    assert [(part["source"], part["code"], part["quantity"]) for part in calls["sources"][:2]] == [
        ("plan", "pro", None),
        ("addon", "more", 3),
    ]
    assert calls["sources"][2]["source"] == "trial"
    assert await resolved(plane, "seats") == ({"seats@lifetime": 11}, ["plan", "addon"])
    assert [(one["node"], [cap["counter"] for cap in one["spend_caps"]]) for one in shown["budgets"]] == [
        ("key:*", ["$USD@month"]),
        ("team:ml", ["$USD@day"]),
    ]


async def test_a_trial_falls_away_at_its_end_without_a_hand(plane: Plane, subscribed: str) -> None:
    """By the clock alone; it stays in the list."""
    given = await plane.ours.post(GIVEN, TRIAL)
    assert (given.status, given.body["applied"], given.body["ended_at"]) == (201, True, None)
    assert await resolved(plane) == ({"calls@month": 9000}, ["plan", "trial"])
    plane.clock.move(timedelta(days=7))
    assert await resolved(plane) == ({"calls@month": 1000}, ["plan"])
    assert [one["kind"] for one in (await plane.ours.get(GIVEN)).body["items"]] == ["trial"]


async def test_an_override_replaces_until_it_is_ended(plane: Plane, subscribed: str) -> None:
    """A denial too; ending it twice changes nothing."""
    denial = {"kind": "override", "terms": {"feature": "calls", "enabled": False}, "note": "abuse"}
    given = (await plane.ours.post(GIVEN, denial)).body
    shown = (await plane.ours.get(RESOLVED)).body["features"][0]
    assert (shown["feature"], shown["enabled"]) == ("calls", False)
    path = f"{GIVEN}/{given['entitlement_id']}"
    first = await plane.ours.delete(path)
    plane.clock.move(timedelta(hours=1))
    again = await plane.ours.delete(path)
    assert first.body["ended_at"] == again.body["ended_at"] == "2026-03-01T12:00:00Z"
    assert await resolved(plane) == ({"calls@month": 1000}, ["plan"])
    assert (await plane.ours.delete(f"{GIVEN}/ent_nothing")).status == 404


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"kind": "trial", "terms": {"feature": "beta"}}, 400, "expires_at"),
        ({**TRIAL, "expires_at": "2026-03-01T12:00:00Z"}, 400, "expires_at"),
        ({**TRIAL, "effective_at": "2026-04-01T00:00:00Z"}, 400, "expires_at"),
        ({**TRIAL, "terms": {"feature": "beta", "enabled": False}}, 400, "terms.enabled"),
        ({"kind": "override", "terms": {"feature": "none"}}, 400, "terms.feature"),
        ({"kind": "override", "terms": {"feature": "tier"}}, 400, "terms.value"),
        ({"kind": "override", "terms": {"feature": "beta", "concurrent": 2}}, 400, "terms.concurrent"),
        (
            {"kind": "override", "terms": {"feature": "calls", "limits": [{"units": -1, "interval": "day"}]}},
            400,
            "terms.limits[0].units",
        ),
        ({"kind": "gift", "terms": {"feature": "beta"}}, 400, "kind"),
        ({"terms": {"feature": "beta"}}, 400, "kind"),
    ],
)
async def test_what_breaks_a_rule_is_refused_by_field(
    plane: Plane, subscribed: str, body: dict[str, Any], status: int, field: str
) -> None:
    """And nothing is written."""
    before = await plane.count()
    answer = await plane.ours.post(GIVEN, body)
    assert (answer.status, answer.body["field"]) == (status, field)
    assert await plane.count() == before


async def quantities(plane: Plane, subscription: str) -> list[tuple[int, str, str | None, bool]]:
    items = (await plane.ours.get(f"/v1/subscriptions/{subscription}/addons")).body["items"]
    return [(one["quantity"], one["effective_at"], one["expires_at"], one["ended_at"] is not None) for one in items]


async def test_an_add_on_has_one_quantity_at_a_time(plane: Plane, subscribed: str) -> None:
    """Setting it again ends what was; what is to come can be planned and dropped."""
    path = f"/v1/subscriptions/{subscribed}/addons/more"
    first = await plane.ours.put(path, {"quantity": 1})
    assert (first.status, first.body["quantity"], first.body["applied"]) == (200, 1, True)
    plane.clock.move(timedelta(days=1))
    await plane.ours.put(path, {"quantity": 4})
    assert await resolved(plane) == ({"calls@month": 3000}, ["plan", "addon"])
    plane.clock.move(timedelta(seconds=1))
    await plane.ours.put(path, {"quantity": 9, "effective_at": "2026-03-10T00:00:00Z"})
    assert await resolved(plane) == ({"calls@month": 3000}, ["plan", "addon"])
    assert await quantities(plane, subscribed) == [
        (1, "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z", False),
        (4, "2026-03-02T12:00:00Z", "2026-03-10T00:00:00Z", False),
        (9, "2026-03-10T00:00:00Z", None, False),
    ]
    plane.clock.move(timedelta(days=8))
    assert await resolved(plane) == ({"calls@month": 5500}, ["plan", "addon"])
    dropped = await plane.ours.delete(path)
    assert (dropped.status, dropped.body["applied"]) == (200, True)
    assert await resolved(plane) == ({"calls@month": 1000}, ["plan"])
    assert (await plane.ours.delete(path)).status == 404
    assert (await plane.ours.put(f"{path}x", {})).body["field"] == "addon"


async def test_what_was_taken_keeps_its_words_whatever_the_catalog_says_later(
    plane: Plane, subscribed: str
) -> None:
    """The plan's version and the add-on's; taking it again takes today's words."""
    path = f"/v1/subscriptions/{subscribed}/addons/more"
    await plane.ours.put(path, {"quantity": 2})
    later = deepcopy(CATALOG)
    later["plans"][0]["entitlements"][0]["limits"][0]["units"] = 7
    later["addons"][0]["entitlements"][0]["limits"][0]["units"] = 1
    assert (await plane.ours.put("/v1/catalog", later)).body["plans"][0] == {
        "code": "pro",
        "version": 2,
        "changed": True,
    }
    assert await resolved(plane) == ({"calls@month": 2000}, ["plan", "addon"])
    await plane.ours.put(path, {"quantity": 2})
    assert await resolved(plane) == ({"calls@month": 1002}, ["plan", "addon"])
    plane.clock.move(timedelta(hours=1))
    await plane.ours.post(f"/v1/subscriptions/{subscribed}/change", {"plan": "pro", "at": "now"})
    assert await resolved(plane) == ({"calls@month": 9}, ["plan", "addon"])


async def test_a_change_of_plan_counts_from_its_instant(plane: Plane, subscribed: str) -> None:
    """Now at once, and with the end of the period at that end, whether billed yet or not."""
    path = f"/v1/subscriptions/{subscribed}/change"
    coming = await plane.ours.post(path, {"plan": "max", "at": "end"})
    assert (coming.status, coming.body["applied"]) == (200, True)
    assert coming.body["change"] == {"plan_code": "max", "plan_version": 1, "at": "2026-04-01T00:00:00Z"}
    shown = (await plane.ours.get(RESOLVED)).body
    assert (shown["plan"]["code"], shown["stale_at"]) == ("pro", "2026-04-01T00:00:00Z")
    plane.clock.move(timedelta(days=31))
    shown = (await plane.ours.get(RESOLVED)).body
    assert shown["plan"] == {"code": "max", "version": 1, "since_at": "2026-04-01T00:00:00Z"}
    assert await resolved(plane) == ({}, ["plan"])
    async with plane.database.session() as session:
        await session.execute("UPDATE flush_lane SET drained_at = 'infinity'")
    assert await close_due(plane.database, now=plane.clock.now) == 1
    assert (await plane.ours.get(RESOLVED)).body["plan"] == shown["plan"]
    back = await plane.ours.post(path, {"plan": "pro", "at": "now"})
    assert back.body["plan_code"] == "max"
    assert (await resolved(plane))[0] == {"calls@month": 1000}


async def test_who_cancels_is_served_until_the_end_of_the_period_and_no_longer(
    plane: Plane, subscribed: str
) -> None:
    """Whether its last bill is written yet or not."""
    await plane.ours.post(f"/v1/subscriptions/{subscribed}/cancel")
    assert (await plane.ours.get(RESOLVED)).body["stale_at"] == "2026-04-01T00:00:00Z"
    plane.clock.move(timedelta(days=31))
    shown = (await plane.ours.get(RESOLVED)).body
    assert (shown["plan"], shown["features"], shown["stale_at"]) == (None, [], None)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"plan": "none", "at": "now"}, 404, "plan"),
        ({"plan": "max"}, 400, "at"),
        ({"plan": "max", "at": "later"}, 400, "at"),
        ({"at": "now"}, 400, "plan"),
    ],
)
async def test_a_change_that_breaks_a_rule_is_refused_by_field(
    plane: Plane, subscribed: str, body: dict[str, Any], status: int, field: str
) -> None:
    """And nothing is written."""
    before = await plane.count()
    answer = await plane.ours.post(f"/v1/subscriptions/{subscribed}/change", body)
    assert (answer.status, answer.body["field"]) == (status, field)
    assert await plane.count() == before


async def test_budgets_are_written_whole(plane: Plane, subscribed: str) -> None:
    """What a document does not name is gone."""
    assert (await plane.ours.get(BUDGETS)).body == {"customer_id": "acme", "document": {}, "written_at": None}
    guard = {"feature": "calls", "limits": [{"units": 10, "interval": "day"}]}
    first = {"nodes": [{"guards": [guard]}, {"node": "team:*", "guards": [guard]}]}
    written = await plane.ours.put(BUDGETS, first)
    assert (written.status, written.body["document"], written.body["applied"]) == (200, first, True)
    assert await resolved(plane) == ({"calls@month": 1000, "calls@day": 10}, ["plan", "budget"])
    await plane.ours.put(BUDGETS, {})
    assert await resolved(plane) == ({"calls@month": 1000}, ["plan"])
    assert (await plane.ours.get(BUDGETS)).body["document"] == {}


@pytest.mark.parametrize(
    ("nodes", "field"),
    [
        ([{"node": "floor:1"}], "nodes[0].node"),
        ([{"guards": [{"feature": "none"}]}], "nodes[0].guards[0].feature"),
        (
            [{"guards": [{"feature": "calls", "rates": [{"units": 0, "per": "day"}]}]}],
            "nodes[0].guards[0].rates[0].units",
        ),
        (
            [{"spend_caps": [{"amount": "x", "currency": "USD", "interval": "day"}]}],
            "nodes[0].spend_caps[0].amount",
        ),
        (
            [{"spend_caps": [{"amount": "1", "currency": "AIC", "interval": "day"}]}],
            "nodes[0].spend_caps[0].currency",
        ),
        ([{"node": 5}], "nodes[0].node"),
        ([{"surprise": 5}], "nodes[0].surprise"),
    ],
)
async def test_budgets_that_break_a_rule_are_refused_by_field(
    plane: Plane, subscribed: str, nodes: list[Any], field: str
) -> None:
    """And nothing is written."""
    before = await plane.count()
    answer = await plane.ours.put(BUDGETS, {"nodes": nodes})
    assert (answer.status, answer.body["field"]) == (400, field)
    assert await plane.count() == before


async def test_a_suspended_customer_keeps_what_it_has_and_is_told_so(plane: Plane, subscribed: str) -> None:
    """The status stands beside it."""
    await plane.ours.post(f"{CUSTOMER}/suspend")
    shown = (await plane.ours.get(RESOLVED)).body
    assert (shown["status"], len(shown["features"])) == ("suspended", 3)


async def test_a_customer_without_a_plan_may_try(plane: Plane) -> None:
    """Only trials stand on their own."""
    await plane.ours.put("/v1/catalog", CATALOG)
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    await plane.ours.post(GIVEN, TRIAL)
    await plane.ours.post(GIVEN, {"kind": "override", "terms": {"feature": "beta"}})
    shown = (await plane.ours.get(RESOLVED)).body
    assert (shown["plan"], [one["feature"] for one in shown["features"]]) == (None, ["calls"])


async def test_a_path_of_a_key_is_read_strictly(plane: Plane, subscribed: str) -> None:
    """Kinds in their order."""
    answer: Answer = await plane.ours.post(f"{CUSTOMER}/keys", {"path": "key:a/team:b"})
    assert (answer.status, answer.body["field"]) == (400, "path")
    answer = await plane.ours.post(f"{CUSTOMER}/keys", {"path": "team:b/key:a"})
    assert (answer.status, answer.body["path"]) == (201, "team:b/key:a")
