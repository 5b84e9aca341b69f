"""External authorization, asked by the official client."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

BEARER = {"authorization": "Bearer tgk_caller"}
CALLS = {"feature": "calls", "quantity": "1"}


def added(options: Any) -> dict[str, str]:
    assert {option.append_action for option in options} <= {2}  # OVERWRITE_IF_EXISTS_OR_ADD
    return {option.header.key: option.header.value for option in options}


@pytest.mark.parametrize("headers", [BEARER, {"x-api-key": "tgk_caller"}, {"authorization": "BEARER tgk_caller"}])
async def test_who_may_pass_is_told_to_the_upstream(port: Any, headers: dict[str, str]) -> None:
    """Customer and decision go up, in place of whatever the client sent; limits go to the client."""
    told = await port.check(CALLS | {"quantity": "2"}, headers)
    assert (told.status.code, told.WhichOneof("http_response")) == (0, "ok_response")
    up = added(told.ok_response.headers)
    assert (up["X-Tallygate-Customer"], up["X-Tallygate-Decision"][:4]) == ("acme", "dec_")
    down = added(told.ok_response.response_headers_to_add)
    assert down["RateLimit"].startswith('"calls";r=8;t=')
    unsaid = ["X-Tallygate-Hold", "X-Tallygate-Would", "X-Tallygate-Degraded"]
    assert told.ok_response.headers_to_remove == unsaid
    assert not told.HasField("dynamic_metadata")


async def test_the_upstream_is_told_the_plan(port: Any, world: Any) -> None:
    """In place of whatever the client sent, also where there is none."""
    assert added((await port.check(CALLS, BEARER)).ok_response.headers)["X-Tallygate-Plan"] == ""
    await world.project(features={"calls": msgspec.structs.replace(world.features["calls"], plan="pro")})
    assert added((await port.check(CALLS, BEARER)).ok_response.headers)["X-Tallygate-Plan"] == "pro"


@pytest.mark.parametrize(
    ("extensions", "headers", "status", "code", "reason"),
    [
        (CALLS, {}, 401, 16, "unknown_key"),
        (CALLS, {"x-api-key": "tgk_nobody"}, 401, 16, "unknown_key"),
        (CALLS, {"x-api-key": "tgo_operator"}, 401, 16, "unknown_key"),
        ({"feature": "nothing", "quantity": "1"}, BEARER, 403, 7, "not_entitled"),
        ({"feature": "calls", "quantity": "11"}, BEARER, 429, 8, "limit_reached"),
        ({"feature": "tokens", "quantity": "1"}, BEARER, 402, 8, "insufficient_balance"),
    ],
)
async def test_a_refusal_is_the_same_as_over_http(
    port: Any,
    call: Any,
    unchanged: Any,
    extensions: dict[str, str],
    headers: dict[str, str],
    status: int,
    code: int,
    reason: str,
) -> None:
    """Status, problem and headers; nothing is written."""
    query = "&".join(f"{name}={value}" for name, value in extensions.items())
    async with unchanged():
        told = await port.check(extensions, headers)
        got, problem, spoken = await call(f"/v1/authorize/forward?{query}", method="GET", headers=headers)
    denied = told.denied_response
    assert (told.status.code, denied.status.code, got) == (code, status, status)
    body = msgspec.json.decode(denied.body)
    assert (body["code"], body["status"]) == (reason, status)
    assert body | {"decision_id": ""} == problem | {"decision_id": ""}
    down = added(denied.headers)
    for name in ("Content-Type", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"):
        assert down.get(name) == spoken.get(name), name


@pytest.mark.parametrize(
    ("extensions", "field"),
    [
        ({}, "feature"),
        ({"feature": "calls"}, "quantity"),
        ({"feature": "no code", "quantity": "1"}, "feature"),
        ({"feature": "calls", "quantity": "-1"}, "quantity"),
        ({"feature": "calls", "quantity": "9007199254740992"}, "quantity"),
        (CALLS | {"mode": "record"}, "mode"),
        (CALLS | {"mode": "hold"}, "ttl_ms"),
        (CALLS | {"mode": "hold", "ttl_ms": "0"}, "ttl_ms"),
        (CALLS | {"mode": "hold", "ttl_ms": "1000", "on_expiry": "keep"}, "on_expiry"),
        (CALLS | {"ttl_ms": "1000"}, "ttl_ms"),
    ],
)
async def test_a_route_that_says_too_little_is_a_mistake_that_is_told(
    port: Any, failure: Any, unchanged: Any, extensions: dict[str, str], field: str
) -> None:
    """The call fails; by default Envoy then lets nobody through."""
    async with unchanged():
        code, text = await failure(port.check(extensions, BEARER))
    assert (code, text.split(":")[0]) == ("INVALID_ARGUMENT", field)


async def test_a_look_charges_nothing(port: Any, unchanged: Any) -> None:
    """`mode: peek`."""
    async with unchanged():
        assert (await port.check(CALLS | {"mode": "peek"}, BEARER)).status.code == 0
        assert (await port.check({"feature": "calls", "quantity": "11", "mode": "peek"}, BEARER)).status.code == 8


async def test_a_hold_tells_its_id_as_metadata_and_can_be_settled(port: Any, world: Any, call: Any) -> None:
    """Whoever knows the cost settles it, by the id that travels with the request."""
    await world.grant(10_000)
    asked = {"feature": "tokens", "quantity": "50", "mode": "hold", "ttl_ms": "60000", "on_expiry": "charge"}
    told = await port.check(asked, BEARER)
    (name,) = told.dynamic_metadata
    assert name == "hold"
    hold = told.dynamic_metadata["hold"]
    status, body, _ = await call(f"/v1/holds/{hold}/settle", {"feature": "tokens", "quantity": 20})
    assert (status, body["outcome"], body["charged_nanos"]) == (200, "settled", 2_000)


async def test_shadow_mode_lets_through_and_says_what_it_would_have_done(port: Any) -> None:
    """To the upstream."""
    told = await port.check({"feature": "calls", "quantity": "11", "shadow": "1"}, BEARER)
    assert added(told.ok_response.headers)["X-Tallygate-Would"] == "limit_reached"


async def test_a_request_id_counts_only_where_the_settings_name_it(
    port: Any, world: Any, settings: Any, open_gateway: Any, opened: Any, free_port: Any
) -> None:
    """A client could choose it otherwise, and pay once for ever."""
    headers = BEARER | {"x-request-id": "r1"}
    for _ in range(2):
        await port.check(CALLS, headers)
    assert len(await world.entries()) == 2
    named = msgspec.structs.replace(
        settings, port=free_port(), grpc_port=free_port(), envoy_request_id_header="X-Request-Id"
    )
    await open_gateway(named)
    async with opened(named.grpc_port) as other:
        told = [await other.check(CALLS, headers) for _ in range(3)]
        assert len({added(one.ok_response.headers)["X-Tallygate-Decision"] for one in told}) == 1
        await other.check(CALLS | {"quantity": "2"}, headers)
    assert len(await world.entries()) == 4


async def test_ten_units_are_ten_units_however_many_ask_at_once(port: Any) -> None:
    """A hundred at the same time, exactly ten pass."""
    told = await asyncio.gather(*(port.check(CALLS, BEARER) for _ in range(100)))
    assert sorted(one.status.code for one in told) == [0] * 10 + [8] * 90
