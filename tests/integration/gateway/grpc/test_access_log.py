"""The real Envoy settles holds by its access log, with the configuration as it is shipped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


@pytest.fixture(autouse=True)
async def funded(world: Any) -> None:
    """For a hundred holds of the shipped size."""
    await world.grant(10**11)


async def nothing_is_held(call: Any, world: Any, *, charged: int) -> None:
    """What was set aside above the charge is given back."""
    _, told, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    (wallet,) = told["wallets"]
    assert (wallet["held_nanos"], wallet["balance_nanos"]) == (0, 10**11 - charged * 100)


async def test_a_response_is_settled_by_its_size_exactly(envoy: Any, world: Any, call: Any) -> None:
    """Heads and framing are not counted; nothing of it is told to the client."""
    for times in (1, 5_000, 50_000):
        status, told, body = await envoy.get(f"/metered/x?times={times}")
        assert (status, len(body)) == (200, 6 * times)
        assert not any("hold_" in value for value in told.values())
    for entry in await envoy.settled(6, 30_000, 300_000):
        assert entry.body.properties == {}
    await nothing_is_held(call, world, charged=330_006)


async def test_a_response_is_settled_by_what_its_header_says(envoy: Any, world: Any, call: Any) -> None:
    """Where it says nothing, as held."""
    for query in ("units=77", "units=0", "times=2", "units=3000000"):
        assert (await envoy.get(f"/counted/x?{query}"))[0] == 200
    await envoy.settled(77, 1_000_000, 3_000_000)
    await nothing_is_held(call, world, charged=4_000_077)


async def test_a_response_whose_status_is_free_is_released(
    envoy: Any, world: Any, call: Any, gateway: Any, eventually: Any
) -> None:
    """5xx, as the route says; a 404 is paid for."""
    for status in (503, 404):
        assert (await envoy.get(f"/metered/x?status={status}"))[0] == status
    await envoy.settled(6)
    await eventually(lambda: gateway[0].access_log.read() == {"settled": 1, "released": 1})
    await nothing_is_held(call, world, charged=6)


async def test_an_upstream_that_dies_is_charged_by_what_was_delivered(envoy: Any, world: Any, call: Any) -> None:
    """With the evidence in the usage event, as behind our own proxy."""
    async with envoy.session.get(f"{envoy.url}/metered/x?first=40000&dies", headers=envoy.key) as response:
        with pytest.raises(Exception, match="payload"):
            await response.read()
    (entry,) = await envoy.settled(40_000)
    assert entry.body.properties == {
        "ending": "upstream_lost",
        "policy": "delivered",
        "status": "200",
        "delivered_bytes": "40000",
        "has_usage": "0",
    }
    assert (entry.body.tenant_id, entry.body.customer_id, entry.body.features) == ("t1", "acme", ("tokens",))
    await nothing_is_held(call, world, charged=40_000)


async def test_a_client_that_hangs_up_is_charged_by_what_was_delivered(envoy: Any, world: Any, call: Any) -> None:
    """The same; the upstream would never have ended."""
    async with envoy.session.get(f"{envoy.url}/metered/x?first=50000", headers=envoy.key) as response:
        assert len(await response.content.readexactly(50_000)) == 50_000
        response.close()
    (entry,) = await envoy.settled(50_000)
    told = entry.body.properties
    assert (told["ending"], told["policy"], told["delivered_bytes"]) == ("client_lost", "delivered", "50000")
    await nothing_is_held(call, world, charged=50_000)


class TestMeasures:
    """What else a route may be settled by."""

    @pytest.fixture(
        params=[("request_bytes/1000", 13), ("bytes", 12_351), ("seconds/3600", 1), ("held", 1_000_000)]
    )
    def measure(self, request: pytest.FixtureRequest) -> tuple[str, int]:
        return request.param

    @pytest.fixture
    def said(self, measure: tuple[str, int]) -> dict[str, str]:
        return {'settle: "response_bytes"': f'settle: "{measure[0]}"'}

    async def test_each_counts_what_it_says(
        self, envoy: Any, world: Any, call: Any, measure: tuple[str, int]
    ) -> None:
        """Of 12,345 bytes that go up and 6 that come down."""
        data = bytes(12_345)
        async with envoy.session.post(f"{envoy.url}/metered/x", data=data, headers=envoy.key) as response:
            assert (response.status, await response.read()) == (200, b"served")
        await envoy.settled(measure[1])
        await nothing_is_held(call, world, charged=measure[1])


class TestPolicy:
    """A client that goes is charged as the route says."""

    @pytest.fixture
    def said(self) -> dict[str, str]:
        return {"on_disconnect: delivered": "on_disconnect: held"}

    async def test_a_client_that_hangs_up_may_pay_what_was_held(self, envoy: Any, world: Any, call: Any) -> None:
        """With the evidence."""
        async with envoy.session.get(f"{envoy.url}/metered/x?first=10", headers=envoy.key) as response:
            await response.content.readexactly(10)
            response.close()
        (entry,) = await envoy.settled(1_000_000)
        told = entry.body.properties
        assert (told["ending"], told["policy"], told["delivered_bytes"]) == ("client_lost", "held", "10")
        await nothing_is_held(call, world, charged=1_000_000)


async def test_a_hundred_at_once_are_each_settled_by_their_own_size(envoy: Any, world: Any, call: Any) -> None:
    """In any order, over any connection."""
    sizes = range(1, 101)
    got = await asyncio.gather(*(envoy.get(f"/metered/x?times={times}") for times in sizes))
    assert [len(body) for _, _, body in got] == [6 * times for times in sizes]
    await envoy.settled(*(6 * times for times in sizes))
    await nothing_is_held(call, world, charged=6 * sum(sizes))
