"""The real Envoy in front, with the configuration as it is shipped, but for addresses, patience and a feature."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from multidict import CIMultiDict

from gateway.edge.server import Server
from gateway.edge.worker import Worker

KEY = {"X-Api-Key": "tgk_caller"}


async def test_who_may_pass_reaches_the_upstream_with_a_name(envoy: Any) -> None:
    """Whatever the client says of itself; limits are told to the client."""
    liar = {"X-Tallygate-Customer": "somebody", "X-Tallygate-Decision": "dec_0", "X-Tallygate-Would": "x"}
    status, told, body = await envoy.get("/v1/things?quantity=0", KEY | liar)
    assert (status, body) == (200, b"served")
    assert told["RateLimit"].startswith('"calls";r=9;t=')
    assert told["RateLimit-Policy"] == '"calls";q=10'
    (seen,) = envoy.seen
    assert seen.getall("X-Tallygate-Customer") == ["acme"]
    (decision,) = seen.getall("X-Tallygate-Decision")
    assert decision.startswith("dec_")
    assert decision != "dec_0"
    assert "X-Tallygate-Would" not in seen


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [({}, 401, "unknown_key"), ({"X-Api-Key": "tgk_nobody"}, 401, "unknown_key"), (KEY, 429, "limit_reached")],
)
async def test_a_refusal_reaches_the_client_as_it_is(
    envoy: Any, headers: dict[str, str], status: int, reason: str
) -> None:
    """Status, problem and headers; the upstream hears nothing."""
    assert (await envoy.get("/batch/all"))[0] == 200
    got, told, body = await envoy.get("/v1/things", headers)
    assert (got, msgspec.json.decode(body)["code"]) == (status, reason)
    assert told["Content-Type"] == "application/problem+json"
    assert ("Retry-After" in told) == (status == 429)
    assert len(envoy.seen) == 1


async def test_the_rate_limit_service_counts_units_and_says_when(envoy: Any, world: Any) -> None:
    """How many stands in the request; what is too much is refused with 429."""
    for units, status, left in (("4", 200, 6), ("7", 429, 6), ("6", 200, 0), ("1", 429, 0)):
        got, told, _ = await envoy.get("/limited/x", KEY | {"X-Units": units})
        assert (got, told["RateLimit"].split(";t=")[0]) == (status, f'"calls";r={left}')
        assert told.get("X-Tallygate-Reason") == ("limit_reached" if status == 429 else None)
    assert len(envoy.seen) == 2
    assert (await envoy.get("/limited/x", {"X-Api-Key": "tgk_nobody", "X-Units": "1"}))[0] == 429
    charged = [charge.quantity for entry in await world.entries() for charge in entry.charges]
    assert charged == [4, 6]


@pytest.mark.parametrize("keys", [[], [""], ["", "tgk_caller"], [" "], ["", ""]])
async def test_whom_the_rate_limit_service_is_not_asked_about_has_shown_no_key(
    envoy: Any, world: Any, keys: list[str]
) -> None:
    """Envoy makes no descriptor of a header that is not there, and would let such a request pass."""
    shown = CIMultiDict([*(("X-Api-Key", key) for key in keys), ("X-Units", "1")])
    status, _, _ = await envoy.get("/limited/x", shown)
    assert status == (429 if "tgk_caller" in keys else 401)
    assert (envoy.seen, await world.entries()) == ([], [])


async def test_a_response_is_settled_by_what_was_sent(envoy: Any, world: Any, call: Any) -> None:
    """The hold is placed before and ends with the response; what was set aside above that is given back."""
    await world.grant(10**9)
    for times in (1, 5_000):
        status, _, body = await envoy.get(f"/sent/x?times={times}")
        assert (status, len(body)) == (200, 6 * times)

    async def charged() -> list[int]:
        return [charge.quantity for entry in await world.entries() for charge in entry.charges]

    async with asyncio.timeout(30):
        while len(await charged()) < 2:  # noqa: ASYNC110 - Envoy settles when it has answered
            await asyncio.sleep(0.01)
    assert sorted(await charged()) == [6, 30_000]
    _, told, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    (wallet,) = told["wallets"]
    assert (wallet["held_nanos"], wallet["balance_nanos"]) == (0, 10**9 - 30_006 * 100)


@pytest.mark.parametrize("path", ["/v1/x", "/limited/x"])
async def test_a_hundred_at_once_and_exactly_ten_pass(envoy: Any, path: str) -> None:
    """Through either filter."""
    got = await asyncio.gather(*(envoy.get(path, KEY | {"X-Units": "1"}) for _ in range(100)))
    assert Counter(status for status, _, _ in got) == {200: 10, 429: 90}
    assert len(envoy.seen) == 10


async def test_where_nothing_can_be_decided_nobody_passes(envoy: Any, gateway: Any) -> None:
    """The operator has said so: `failure_mode_allow: false`, `failure_mode_deny: true`; 503 is not a refusal."""
    await gateway[0].links["decision"].stop()
    assert (await envoy.get("/v1/x"))[0] == 503
    assert (await envoy.get("/limited/x", KEY | {"X-Units": "1"}))[0] == 500
    assert envoy.seen == []


async def test_a_gateway_is_replaced_behind_envoy_without_a_failed_request(
    envoy: Any, world: Any, settings: Any
) -> None:
    """A thousand requests over one connection, while another gateway takes the port and leaves again."""
    await world.project(features={"calls": world.features["tokens"]})
    await world.grant(10**9)
    for _ in range(4):
        worker = Worker(settings)
        server = Server(worker)
        await server.start()
        for _ in range(250):
            assert (await envoy.get("/v1/x"))[0] == 200
        await server.stop()
    assert len(envoy.seen) == 1_000
    assert sum(1 for entry in await world.entries() if entry.charges) == 1_000
