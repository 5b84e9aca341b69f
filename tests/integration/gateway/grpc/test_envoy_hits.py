"""How many hits the real Envoy says, and with which status it refuses: each way that its configuration has."""

from __future__ import annotations

from typing import Any

import pytest

KEY = {"X-Api-Key": "tgk_caller"}
FORMAT = 'hits_addend: {format: "%REQ(x-units)%"}'
DENY = "failure_mode_deny: true"


async def charged(world: Any) -> list[int]:
    return [charge.quantity for entry in await world.entries() for charge in entry.charges]


class TestFormat:
    """As shipped: a header of the request says how many."""

    async def test_a_zero_only_looks_and_a_number_is_charged(self, envoy: Any, world: Any) -> None:
        """Whether there is one unit more."""
        for units, status in (("0", 200), ("10", 200), ("0", 429), ("1", 429)):
            assert (await envoy.get("/limited/x", KEY | {"X-Units": units}))[0] == status
        assert await charged(world) == [10]


class TestNone:
    """The request says 0, as it does where nobody has said anything: that is one."""

    @pytest.fixture
    def said(self) -> dict[str, str]:
        return {f"- {FORMAT}  # read here only, not in the route's own\n" + " " * 34 + "actions:": "- actions:"}

    async def test_each_request_is_one(self, envoy: Any, world: Any) -> None:
        """Whatever a client says."""
        for _ in range(10):
            assert (await envoy.get("/limited/x", KEY | {"X-Units": "5"}))[0] == 200
        assert (await envoy.get("/limited/x"))[0] == 429
        assert await charged(world) == [1] * 10


class TestNumber:
    """A constant beside the descriptor."""

    @pytest.fixture
    def said(self) -> dict[str, str]:
        return {FORMAT: "hits_addend: {number: 4}"}

    async def test_each_request_is_as_many(self, envoy: Any, world: Any) -> None:
        """Two fit into ten, and a third does not."""
        assert [(await envoy.get("/limited/x"))[0] for _ in range(3)] == [200, 200, 429]
        assert await charged(world) == [4, 4]


class TestZero:
    """A descriptor that only looks."""

    @pytest.fixture
    def said(self) -> dict[str, str]:
        return {FORMAT: "hits_addend: {number: 0}"}

    async def test_nothing_is_charged(self, envoy: Any, unchanged: Any) -> None:
        """However often; and once all is used up, it says so."""
        async with unchanged():
            assert [(await envoy.get("/limited/x"))[0] for _ in range(20)] == [200] * 20
        assert (await envoy.get("/batch/x"))[0] == 200
        async with unchanged():
            assert (await envoy.get("/limited/x"))[0] == 429


class TestStatus:
    """What Envoy says instead of 429."""

    @pytest.fixture
    def said(self) -> dict[str, str]:
        return {DENY: f"{DENY}\n" + " " * 22 + "rate_limited_status: {code: PaymentRequired}"}

    async def test_a_refusal_may_be_402(self, envoy: Any) -> None:
        """With the reason, and when to come again; through ext_authz each refusal has its own."""
        status, told, _ = await envoy.get("/limited/x", KEY | {"X-Units": "11"})
        assert (status, told["X-Tallygate-Reason"]) == (402, "limit_reached")
        assert int(told["Retry-After"]) > 0
        assert (await envoy.get("/batch/x"))[0] == 200
        assert (await envoy.get("/v1/x"))[0] == 429
