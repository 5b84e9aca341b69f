"""How many hits the real Envoy says, and with which status it refuses: each way that its configuration has."""

from __future__ import annotations

from typing import Any

import pytest

KEY = {"X-Api-Key": "tgk_caller"}
UNITS = KEY | {"X-Units": "9"}
FORMAT = 'hits_addend: {format: "%REQ(x-units)%"}'
DENY = "failure_mode_deny: true"


async def charged(world: Any) -> list[int]:
    return [charge.quantity for entry in await world.entries() for charge in entry.charges]


class TestFormat:
    """As shipped: a header of the request says how many."""

    async def test_each_request_is_as_many_as_it_says(self, envoy: Any, world: Any) -> None:
        """Ten fit into ten, and an eleventh does not."""
        for units, status in (("11", 429), ("7", 200), ("3", 200), ("1", 429)):
            assert (await envoy.get("/limited/x", KEY | {"X-Units": units}))[0] == status
        assert await charged(world) == [7, 3]

    async def test_who_says_nothing_or_no_number_pays_for_one(self, envoy: Any, world: Any) -> None:
        """The request says 0 then, which is 1; Envoy would not have asked at all, and let it pass for nothing."""
        for units in ("", "0", "x", "-3", "1.5", "00", "1,1", "9" * 30):
            await envoy.get("/limited/x", KEY | {"X-Units": units})
        assert await charged(world) == [1] * 8
        assert [(await envoy.get("/limited/x"))[0] for _ in range(3)] == [200, 200, 429]


class TestNumber:
    """A constant beside the descriptor."""

    @pytest.fixture
    def said(self) -> dict[str, str]:
        return {FORMAT: "hits_addend: {number: 4}"}

    async def test_each_request_is_as_many(self, envoy: Any, world: Any) -> None:
        """Two fit into ten, and a third does not."""
        assert [(await envoy.get("/limited/x", UNITS))[0] for _ in range(3)] == [200, 200, 429]
        assert await charged(world) == [4, 4]


class TestZero:
    """A descriptor that only looks."""

    @pytest.fixture
    def said(self) -> dict[str, str]:
        return {FORMAT: "hits_addend: {number: 0}"}

    async def test_nothing_is_charged(self, envoy: Any, unchanged: Any) -> None:
        """However often; and once all is used up, it says so."""
        async with unchanged():
            assert [(await envoy.get("/limited/x", UNITS))[0] for _ in range(20)] == [200] * 20
        assert (await envoy.get("/batch/x"))[0] == 200
        async with unchanged():
            assert (await envoy.get("/limited/x", UNITS))[0] == 429


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
