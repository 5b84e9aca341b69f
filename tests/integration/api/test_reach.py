"""What an operator says reaches a running gateway's next decision in one step, and never half.

A whole line: the control plane over HTTP, Postgres, the relay within the answer, Valkey, a gateway over HTTP.
Nothing here waits for a time to pass: where an answer says `applied`, the very next decision must go by it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from billing_core.adapters.projection import Projection
from billing_core.adapters.redis_client import connect
from billing_core.flows.billing.close import close_due
from billing_core.flows.project import Relay, RelayTally
from gateway.edge.server import Server
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane


def plan(code: str, *, tier: str, units: int, **more: Any) -> dict[str, Any]:
    entitlements = [
        {"feature": "calls", "limits": [{"units": units, "interval": "month"}]},
        {"feature": "tier", "value": tier},
    ]
    return {"code": code, "currency": "USD", "entitlements": entitlements, **more}


CATALOG: dict[str, Any] = {
    "meters": [
        {"code": "calls", "event": "calls", "aggregation": "sum", "field": "quantity"},
        {"code": "seats", "event": "seats", "aggregation": "max", "field": "quantity"},
    ],
    "features": [
        {"code": "calls", "kind": "metered", "meter": "calls"},
        {"code": "tier", "kind": "static"},
        {"code": "beta", "kind": "switch"},
        {"code": "seats", "kind": "gauge", "meter": "seats"},
    ],
    "plans": [plan("pro", tier="gold", units=1000), plan("basic", tier="iron", units=50)],
    "addons": [
        {
            "code": "more",
            "entitlements": [
                {"feature": "calls", "limits": [{"units": 500, "interval": "month"}]},
                {"feature": "tier", "value": "platinum"},
            ],
        },
        {"code": "crew", "entitlements": [{"feature": "seats", "limits": [{"units": 2, "anchor": "lifetime"}]}]},
    ],
}
SECOND = timedelta(seconds=1)
GIVEN, BUDGETS = "/v1/customers/acme/entitlements", "/v1/customers/acme/budgets"


class Line:
    """A customer on `pro`, its keys, and a gateway that decides for them."""

    def __init__(self, plane: Plane, session: ClientSession, url: str) -> None:
        self.plane = plane
        self.operator = plane.ours
        self._session = session
        self._url = url
        self.key = self.subscription = ""

    async def found(self) -> None:
        assert (await self.operator.put("/v1/catalog", CATALOG)).status == 200
        assert (await self.operator.post("/v1/customers", {"customer_id": "acme"})).body["applied"]
        made = await self.operator.post("/v1/subscriptions", {"customer_id": "acme", "plan": "pro"})
        self.subscription = made.body["subscription_id"]
        self.key = await self.issue("")

    async def issue(self, path: str) -> str:
        made = await self.operator.post("/v1/customers/acme/keys", {"path": path})
        assert (made.status, made.body["applied"]) == (201, True)
        return made.body["key"]

    async def check(self, *features: str, mode: str = "consume", key: str = "", **more: Any) -> dict[str, Any]:
        charges = [{"feature": feature, **more} for feature in features]
        body = {"key": key or self.key, "mode": mode, "charges": charges}
        async with self._session.post(f"{self._url}/v1/check", json=body) as answer:
            assert answer.status == 200, await answer.read()
            return await answer.json()

    async def seen(self) -> tuple[str, int]:
        """The tier and the limit, out of one decision."""
        answer = await self.check("tier", "calls", mode="peek")
        tier, calls = answer["charges"]
        return tier["value"], calls["limit_units"]

    async def say(self, asked: Awaitable[Any]) -> dict[str, Any]:
        """A change that the gateway knows once it is answered."""
        answer = await asked
        assert answer.status in {200, 201}, answer.raw
        assert answer.body["applied"] is True
        return answer.body

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[list[list[tuple[str, int]]]]:
        """Four readers that peek without a pause; what each saw one after another, repetitions left out."""
        seen: list[list[tuple[str, int]]] = [[] for _ in range(4)]
        stop = asyncio.Event()

        async def read(own: list[tuple[str, int]]) -> None:
            while not stop.is_set():
                one = await self.seen()
                own += [one] if own[-1:] != [one] else []

        async with asyncio.TaskGroup() as group:
            for own in seen:
                group.create_task(read(own))
            yield seen
            stop.set()


@pytest.fixture
async def line(plane: Plane, redis_url: str, free_port: Callable[[], int]) -> AsyncIterator[Line]:
    """See the class. The gateway is patient, so that a busy machine fails no test."""
    async with connect(redis_url) as client:
        redis = Projection(client)
        await redis.vouch(await redis.run_id())
    port = free_port()
    settings = GatewaySettings(redis_url=redis_url, port=port, decision_deadline_ms=10_000, bulk_deadline_ms=10_000)
    server = Server(Worker(settings))
    await server.start()
    try:
        async with ClientSession() as session:
            made = Line(plane, session, f"http://127.0.0.1:{port}")
            await made.found()
            yield made
    finally:
        await server.stop()


async def bill(plane: Plane, *, now: datetime) -> None:
    """Close what is due, as a worker would moments later."""
    async with plane.database.session() as session:
        await session.execute("UPDATE flush_lane SET drained_at = 'infinity'")
    await close_due(plane.database, now=now)


async def test_each_change_counts_from_the_very_next_decision_and_is_never_seen_half(line: Line) -> None:
    """Plan, override, add-on: tier and limit are of one source at every moment, and no old one comes back."""
    change = f"/v1/subscriptions/{line.subscription}/change"
    addon = f"/v1/subscriptions/{line.subscription}/addons/more"
    told = [("gold", 1000)]
    assert await line.seen() == told[0]
    async with line.watched() as seen:
        line.plane.clock.move(SECOND)
        await line.say(line.operator.post(change, {"plan": "basic", "at": "now"}))
        told.append(await line.seen())
        await bill(line.plane, now=line.plane.clock.now)
        await line.say(line.operator.put(addon, {"quantity": 3}))
        told.append(await line.seen())
        await line.say(line.operator.delete(addon))
        told.append(await line.seen())
        line.plane.clock.move(SECOND)
        await line.say(line.operator.post(change, {"plan": "pro", "at": "now"}))
        told.append(await line.seen())
    assert told == [("gold", 1000), ("iron", 50), ("platinum", 1550), ("iron", 50), ("gold", 1000)]
    for own in seen:
        states = iter(told)
        assert all(one in states for one in own), own


async def test_what_was_used_outlives_a_change_of_plan(line: Line) -> None:
    """The counter is the feature's and the month's, not the plan's."""
    await line.check("calls", quantity=40)
    line.plane.clock.move(SECOND)
    await line.say(
        line.operator.post(f"/v1/subscriptions/{line.subscription}/change", {"plan": "basic", "at": "now"})
    )
    assert (await line.check("calls", quantity=11))["reason"] == "limit_reached"
    assert (await line.check("calls", quantity=10))["charges"][0]["remaining_units"] == 0


async def test_an_override_denies_and_its_end_allows(line: Line) -> None:
    """From one decision to the next."""
    denial = {"kind": "override", "terms": {"feature": "calls", "enabled": False}}
    given = await line.say(line.operator.post(GIVEN, denial))
    assert (await line.check("calls"))["reason"] == "not_entitled"
    await line.say(line.operator.delete(f"{GIVEN}/{given['entitlement_id']}"))
    assert (await line.check("calls"))["allowed"]


async def test_budgets_hold_each_node_and_name_the_one_that_refused(line: Line) -> None:
    """A team's limit, a key's default, and their end."""
    limit = {"feature": "calls", "limits": [{"units": 3, "interval": "day"}]}
    two = {"feature": "calls", "limits": [{"units": 2, "interval": "day"}]}
    one, other = await line.issue("team:ml/key:a"), await line.issue("team:ml/key:b")
    await line.say(
        line.operator.put(
            BUDGETS, {"nodes": [{"node": "team:ml", "guards": [limit]}, {"node": "key:*", "guards": [two]}]}
        )
    )
    assert (await line.check("calls", key=one, quantity=2))["allowed"]
    refused = await line.check("calls", key=one)
    assert (refused["reason"], refused["level"]) == ("limit_reached", "team:ml/key:a")
    assert (await line.check("calls", key=other))["allowed"]
    refused = await line.check("calls", key=other)
    assert (refused["reason"], refused["level"]) == ("limit_reached", "team:ml")
    assert (await line.check("calls"))["allowed"]
    await line.say(line.operator.put(BUDGETS, {}))
    assert (await line.check("calls", key=other))["allowed"]


async def test_a_trial_ends_by_itself(line: Line, redis_url: str) -> None:
    """A relay that looks for what goes stale tells it at the trial's end; nobody wrote anything."""
    trial = {"kind": "trial", "terms": {"feature": "beta"}, "expires_at": "2026-03-08T00:00:00Z"}
    await line.say(line.operator.post(GIVEN, trial))
    assert (await line.check("beta"))["allowed"]
    ends_at = line.plane.clock.now.replace(day=8, hour=0)
    async with connect(redis_url) as client:
        relay = Relay(line.plane.database, Projection(client), tally=RelayTally())
        await relay.project(now=line.plane.clock.now, most=100)
        assert await relay.push_stale(now=ends_at - SECOND, most=10) == 0
        assert await relay.push_stale(now=ends_at, most=10) == 1
        assert await relay.project(now=ends_at, most=10) == 1
    assert (await line.check("beta"))["reason"] == "not_entitled"


async def test_who_is_suspended_is_refused_whatever_it_may(line: Line) -> None:
    """And served again with all that it has."""
    await line.say(line.operator.put(f"/v1/subscriptions/{line.subscription}/addons/more", {"quantity": 1}))
    await line.say(line.operator.post("/v1/customers/acme/suspend"))
    assert (await line.check("calls"))["reason"] == "suspended"
    await line.say(line.operator.post("/v1/customers/acme/resume"))
    assert await line.seen() == ("platinum", 1500)


async def test_a_gauge_is_held_by_what_was_taken(line: Line) -> None:
    """Two seats for each add-on."""
    path = f"/v1/subscriptions/{line.subscription}/addons/crew"
    await line.say(line.operator.put(path, {"quantity": 2}))
    assert (await line.check("seats", quantity=4))["allowed"]
    assert (await line.check("seats"))["reason"] == "limit_reached"
    await line.say(line.operator.put(path, {"quantity": 3}))
    assert (await line.check("seats"))["allowed"]
    await line.say(line.operator.put(path, {"quantity": 1}))
    assert (await line.check("seats", quantity=-3))["allowed"]
    assert (await line.check("seats"))["reason"] == "limit_reached"


EVERYTHING = {
    "limits": [
        {
            "units": 1000,
            "interval": interval,
            "anchor": anchor,
            "rollover_units": rollover,
            "on_plan_change": "reset",
        }
        for interval, anchor, rollover in (
            ("minute", "calendar", 5),
            ("hour", "subscription", 5000),
            ("day", "rolling", 0),
            ("week", "calendar", 0),
            ("month", "subscription", 500),
            ("quarter", "rolling", 0),
            ("year", "calendar", 100),
        )
    ]
    + [{"units": 2**53 - 1, "anchor": "lifetime", "mode": "soft"}],
    "rates": [
        {"units": 9007199254740, "per": "second"},
        {"units": 104249991, "per": "day", "counts": "units"},
        {"units": 10, "per": "minute", "burst": 10**6},
        {"units": 10**6, "per": "hour"},
    ],
    "concurrent": 5,
}
CAPS = [
    {"amount": "9007199.254740991", "currency": "USD", "anchor": "lifetime", "mode": "soft"},
    {"amount": "10", "currency": "USD", "interval": "day", "grace_percent": 50},
    {"amount": "10", "currency": "EUR", "interval": "month", "anchor": "subscription"},
]


async def test_the_gate_takes_every_word_that_the_rules_allow(line: Line) -> None:
    """A plan that is full of them, and budgets of hundreds of nodes, where clocks are moved twice a year."""
    price = {"code": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "0.0000083", "per": 3}
    full = {
        "code": "full",
        "currency": "USD",
        "time_zone": "Europe/Berlin",
        "enforcement": "shadow",
        "entitlements": [
            {
                "feature": "calls",
                **EVERYTHING,
                "levels": dict.fromkeys(("team", "project", "user", "key"), EVERYTHING),
            },
            {"feature": "tier", "value": "x" * 1000},
            {"feature": "seats", "limits": [{"units": 5, "anchor": "lifetime", "grace_percent": 20}]},
            {"feature": "beta", "enabled": False},
        ],
        "prices": [price],
        "spend_caps": [cap | {"level": level} for cap in CAPS for level in ("customer", "team", "key")],
    }
    assert (await line.operator.put("/v1/catalog", {**CATALOG, "plans": [full]})).status == 200
    line.plane.clock.move(SECOND)
    await line.say(
        line.operator.post(f"/v1/subscriptions/{line.subscription}/change", {"plan": "full", "at": "now"})
    )
    nodes = [{"node": f"team:t{n}/key:k{n}", "spend_caps": CAPS[:2]} for n in range(300)]
    nodes += [{"guards": [{"feature": "calls", **EVERYTHING}], "spend_caps": CAPS}, {"node": "user:*"}]
    await line.say(line.operator.put(BUDGETS, {"nodes": nodes}))
    key = await line.issue("team:t1/key:k1")
    assert (await line.check("calls", key=key, quantity=3))["charges"][0]["cost_nanos"] == 8_300
    assert (await line.check("beta"))["would"] == "not_entitled"
