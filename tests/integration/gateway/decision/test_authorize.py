"""The status code is the decision: what proxies ask and get."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from billing_core.contract.keys import api_key_name, digest_of

FORWARD, NGINX = "/v1/authorize/forward", "/v1/authorize/nginx"
BY_ANY = (
    FORWARD + "?feature={}&quantity={}",
    NGINX + "?feature={}&quantity={}",
    "/v1/authorize/envoy/{}/{}/a/b?c=d",
)
BEARER = {"Authorization": "Bearer tgk_caller"}


async def ask(call: Any, path: str, *, headers: dict[str, str] | None = None, method: str = "GET") -> Any:
    return await call(path, method=method, headers=BEARER if headers is None else headers)


@pytest.mark.parametrize("path", BY_ANY)
@pytest.mark.parametrize("headers", [BEARER, {"X-Api-Key": "tgk_caller"}, {"authorization": "BEARER tgk_caller"}])
async def test_who_may_pass_gets_200_and_no_body(call: Any, world: Any, path: str, headers: dict[str, str]) -> None:
    """With headers for the upstream and for the client."""
    await world.grant(5_000)
    status, body, told = await ask(call, path.format("calls", 2), headers=headers)
    assert (status, body, told["Content-Length"]) == (200, b"", "0")
    assert told["X-Tallygate-Customer"] == "acme"
    assert told["X-Tallygate-Decision"].startswith("dec_")
    assert told["RateLimit-Policy"] == '"calls";q=10'
    assert told["RateLimit"].startswith('"calls";r=8;t=')
    assert ("X-Tallygate-Hold" in told, told["X-Tallygate-Plan"]) == (False, "")
    _, _, told = await ask(call, path.format("tokens", 2), headers=headers)
    assert told["X-Tallygate-Balance"] == "4800 USD"


@pytest.mark.parametrize(
    ("query", "headers", "status", "reason"),
    [
        ("feature=calls&quantity=1", {}, 401, "unknown_key"),
        ("feature=calls&quantity=1", {"X-Api-Key": "tgk_nobody"}, 401, "unknown_key"),
        ("feature=calls&quantity=1", {"X-Api-Key": "t\udcffx"}, 401, "unknown_key"),
        ("feature=calls&quantity=1", {"X-Api-Key": "tgo_operator"}, 401, "unknown_key"),
        ("feature=nothing&quantity=1", BEARER, 403, "not_entitled"),
        ("feature=calls&quantity=11", BEARER, 429, "limit_reached"),
        ("feature=tokens&quantity=1", BEARER, 402, "insufficient_balance"),
    ],
)
async def test_a_refusal_has_its_own_status_and_nginx_hears_what_it_understands(
    call: Any, unchanged: Any, query: str, headers: dict[str, str], status: int, reason: str
) -> None:
    """Envoy the same as others; nothing is written by either."""
    words = [word.partition("=")[2] for word in query.split("&")]
    async with unchanged():
        got, problem, told = await ask(call, f"{FORWARD}?{query}", headers=headers)
        envoy, envoys, envoy_told = await ask(call, BY_ANY[2].format(*words), headers=headers)
        nginx, body, nginx_told = await ask(call, f"{NGINX}?{query}", headers=headers)
    assert (got, problem["status"], problem["code"]) == (status, status, reason)
    assert told["Content-Type"] == "application/problem+json"
    assert (envoy, envoys | {"decision_id": ""}) == (status, problem | {"decision_id": ""})
    names = ("Content-Type", "RateLimit-Policy", "WWW-Authenticate")
    assert [envoy_told.get(name) for name in names] == [told.get(name) for name in names]
    assert (nginx, body) == (status if status in (401, 403) else 403, b"")
    assert (nginx_told["X-Tallygate-Status"], nginx_told["X-Tallygate-Reason"]) == (str(status), reason)
    assert ("Retry-After" in told) == ("Retry-After" in nginx_told) == (status == 429)
    assert ("WWW-Authenticate" in told) == (status == 401)


async def test_a_reached_limit_is_told_in_the_drafts_words(call: Any) -> None:
    """Type, violated policies, and the time of the reset."""
    _, problem, told = await ask(call, f"{FORWARD}?feature=calls&quantity=11")
    assert problem["type"].endswith("#quota-exceeded")
    assert problem["violated-policies"] == ["calls"]
    assert told["RateLimit"] == f'"calls";r=10;t={told["Retry-After"]}'


async def test_an_index_redirect_of_nginx_is_charged_once(call: Any, world: Any) -> None:
    """The same request id asks again, and gets the first answer; another feature of that request is another act."""
    headers = BEARER | {"X-Request-Id": "a5f3"}
    for _ in range(3):
        assert (await ask(call, f"{NGINX}?feature=calls&quantity=1", headers=headers))[0] == 200
    assert (await ask(call, f"{NGINX}?feature=export&quantity=1", headers=headers))[0] == 200
    assert len(await world.entries()) == 2
    await ask(call, f"{NGINX}?feature=calls&quantity=1", headers=BEARER | {"X-Request-Id": "b" * 5_000})
    assert len(await world.entries()) == 3


async def test_a_client_cannot_choose_the_request_id_where_the_proxy_makes_none(call: Any, world: Any) -> None:
    """Or it would pay once and pass for ever."""
    headers = BEARER | {"X-Request-Id": "mine"}
    for _ in range(3):
        await ask(call, f"{FORWARD}?feature=calls&quantity=1", headers=headers)
    assert len(await world.entries()) == 3


async def test_a_proxy_that_makes_request_ids_is_trusted_by_name(
    world: Any, settings: Any, open_gateway: Any
) -> None:
    """The settings name its header."""
    _, call = await open_gateway(msgspec.structs.replace(settings, forward_request_id_header="X-Edge-Id"))
    headers = BEARER | {"X-Edge-Id": "a5f3"}
    for _ in range(3):
        assert (await ask(call, f"{FORWARD}?feature=calls&quantity=1", headers=headers))[0] == 200
    assert len(await world.entries()) == 1


async def test_a_client_cannot_change_what_it_is_charged(call: Any, world: Any) -> None:
    """Caddy appends the client's query to ours: the first of each name counts."""
    await ask(call, f"{FORWARD}?feature=calls&quantity=4&quantity=0&feature=export&a=%zz&=&&x")
    (entry,) = await world.entries()
    assert (entry.charges[0].feature, entry.charges[0].quantity) == ("calls", 4)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "feature"),
        ("feature=calls", "quantity"),
        ("quantity=1", "feature"),
        ("feature=&quantity=1", "feature"),
        ("feature=a%3Ab&quantity=1", "feature"),
        ("feature=calls&quantity=", "quantity"),
        ("feature=calls&quantity=-1", "quantity"),
        ("feature=calls&quantity=1.5", "quantity"),
        ("feature=calls&quantity=9007199254740992", "quantity"),
        ("feature=calls&quantity=%D9%A1", "quantity"),
        ("feature=calls&quantity=" + "9" * 5_000, "quantity"),
    ],
)
async def test_a_proxy_that_is_configured_wrongly_is_told(
    call: Any, unchanged: Any, query: str, field: str
) -> None:
    """Nobody passes."""
    async with unchanged():
        status, problem, _ = await ask(call, f"{FORWARD}?{query}")
        nginx, body, told = await ask(call, f"{NGINX}?{query}")
    assert (status, problem["field"]) == (400, field)
    assert (nginx, body, told["X-Tallygate-Status"]) == (403, b"", "400")


@pytest.mark.parametrize("path", BY_ANY)
async def test_any_method_may_ask(call: Any, path: str) -> None:
    """HAProxy's auth-intercept sends what it is told to, and Envoy what the client sent."""
    for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE", "PATCH"):
        assert (await ask(call, path.format("export", 1), method=method))[0] == 200


@pytest.mark.parametrize("path", BY_ANY)
async def test_a_hundred_at_once_on_a_wallet_for_ten_admit_ten(call: Any, world: Any, path: str) -> None:
    """Through each dialect."""
    await world.grant(1_000)
    answers = await asyncio.gather(*(ask(call, path.format("tokens", 1)) for _ in range(100)))
    assert sum(status == 200 for status, _, _ in answers) == 10


async def test_a_fault_of_ours_is_reported_and_nobody_passes(gateway: Any, world: Any) -> None:
    """Through each dialect, and counted."""
    worker, call = gateway
    await world.valkey.set(api_key_name(digest_of("tgk_odd")), b"\xc1")
    for path in BY_ANY:
        status, problem, _ = await ask(call, path.format("calls", 1), headers={"X-Api-Key": "tgk_odd"})
        assert (status, problem["code"]) == (500, "invariant_broken")
    assert worker.door.faults == 3
