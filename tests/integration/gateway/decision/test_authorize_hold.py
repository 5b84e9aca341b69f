"""What a response costs is known afterwards: proxies hold, and settle by a URL."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from billing_core.errors import Unavailable
from gateway.edge.proxy.settlement import MOST_WAITING, settlement_of

BEARER = {"Authorization": "Bearer tgk_caller"}
HOLD = {"mode": "hold", "ttl_ms": 60_000}
SETTLE = "/v1/authorize/settle"
PROXIES = ("forward", "nginx", "envoy")


def door(proxy: str, feature: str, quantity: int, **options: object) -> str:
    """Where a proxy asks, as its operator has written it down, and behind it what a client has asked for."""
    told = [f"{name}={value}" for name, value in options.items()]
    if proxy == "envoy":
        return f"/v1/authorize/envoy/{feature}/{';'.join([str(quantity), *told])}/a/b?quantity=0"
    return f"/v1/authorize/{proxy}?{'&'.join([*told, f'feature={feature}', f'quantity={quantity}'])}&quantity=0"


async def ask(call: Any, path: str, *, headers: dict[str, str] | None = None) -> tuple[int, Any, Any]:
    return await call(path, method="GET", headers=BEARER | (headers or {}))


async def held(call: Any, proxy: str = "forward", quantity: int = 5, **more: str) -> str:
    """The id of a hold on so many tokens."""
    status, body, told = await ask(call, door(proxy, "tokens", quantity, **HOLD), headers=more)
    assert (status, body) == (200, b"")
    return told["X-Tallygate-Hold"]


async def balance(call: Any, world: Any) -> int:
    _, body, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    (wallet,) = body["wallets"]
    return wallet["balance_nanos"]


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_hold_is_told_to_the_proxy_and_settled_by_a_url(call: Any, world: Any, proxy: str) -> None:
    """By what was used; asked again it says the same again, and nothing is charged twice."""
    await world.grant(1_000)
    hold_id = await held(call, proxy)
    assert await balance(call, world) == 500
    for method in ("GET", "POST", "GET"):
        query = f"free=4xx,5xx&hold={hold_id}&status=200&quantity=3"
        status, body, told = await call(f"{SETTLE}?{query}", method=method, raw=b"{" if method == "POST" else None)
        assert (status, body, "Content-Length" in told) == (204, b"", False)
    (entry,) = await world.entries()
    assert (entry.body.features, [one.quantity for one in entry.charges]) == (("tokens",), [3])
    assert await balance(call, world) == 700


@pytest.mark.parametrize(
    ("query", "left", "quantities"),
    [
        ("hold={}", 500, [5]),
        ("hold={}&status=500", 500, [5]),
        ("hold={}&status=200&quantity=", 500, [5]),
        ("hold={}&status=200&quantity=0", 1_000, []),
        ("hold={}&status=200&quantity=7", 300, [7]),
        ("hold={}&quantity=20", 0, [20]),
        ("free=5xx&hold={}&status=502&quantity=5", 1_000, []),
        ("free=404&hold={}&status=404", 1_000, []),
        ("free=5xx&hold={}&status=404&quantity=2", 800, [2]),
        ("hold={}&free=5xx&status=502&quantity=2", 800, [2]),
    ],
)
async def test_the_response_says_what_is_charged(
    call: Any, world: Any, query: str, left: int, quantities: list[int]
) -> None:
    """As held where nothing is said; what is free is released; above the hold as far as the wallet goes."""
    await world.grant(1_000)
    hold_id = await held(call)
    assert (await ask(call, f"{SETTLE}?{query.format(hold_id)}"))[0] == 204
    assert [one.quantity for entry in await world.entries() for one in entry.charges] == quantities
    assert await balance(call, world) == left


async def test_a_hold_ends_once_and_who_wants_another_end_learns_it(call: Any, world: Any, unchanged: Any) -> None:
    """404 for what nobody knows, 409 for what has ended otherwise, 400 for words that mean nothing."""
    await world.grant(1_000)
    settled, released = await held(call), await held(call)
    assert (await ask(call, f"{SETTLE}?hold={settled}&quantity=3"))[0] == 204
    assert (await ask(call, f"{SETTLE}?free=5xx&hold={released}&status=500"))[0] == 204
    async with unchanged():
        for query, told in (
            (f"free=5xx&hold={settled}&status=500", (409, "conflict", "hold")),
            (f"hold={settled}&quantity=4", (409, "idempotency_conflict", "charges")),
            (f"hold={settled}", (409, "idempotency_conflict", "charges")),
            (f"hold={released}&status=200", (409, "conflict", "hold")),
            (f"hold=hold_{'0' * 32}", (404, "not_found", "hold")),
            (f"hold=hold_fff{'0' * 29}", (404, "not_found", "hold")),
            ("hold=%00%ff..", (404, "not_found", "hold")),
            (f"hold={settled}%20&quantity=3", (404, "not_found", "hold")),
            (f"hold={settled}&quantity=x", (400, "invalid_input", "quantity")),
            ("quantity=3", (400, "invalid_input", "hold")),
        ):
            status, problem, _ = await ask(call, f"{SETTLE}?{query}")
            assert (status, problem["code"], problem["field"]) == told, query
        assert (await ask(call, f"{SETTLE}?hold=&status=401&quantity=9"))[0] == 204


async def test_what_expired_is_charged_late(call: Any, world: Any) -> None:
    """Its deadline was over before the response was: nothing of the work is lost."""
    await world.grant(1_000)
    _, _, told = await ask(call, door("forward", "tokens", 5, mode="hold", ttl_ms=1))
    await ask(call, door("forward", "tokens", 1))  # a decision ends what is due
    hold_id = told["X-Tallygate-Hold"]
    for _ in range(2):
        assert (await ask(call, f"{SETTLE}?hold={hold_id}&quantity=4"))[0] == 204
    assert await balance(call, world) == 500


@pytest.mark.parametrize("proxy", ["nginx", "envoy"])
async def test_a_request_that_asks_twice_holds_once(
    world: Any, settings: Any, open_gateway: Any, proxy: str
) -> None:
    """nginx after an internal redirect, Envoy where it retries: the same hold is told again, also after its end."""
    _, call = await open_gateway(msgspec.structs.replace(settings, envoy_request_id_header="X-Request-Id"))
    await world.grant(1_000)
    ids = {await held(call, proxy, **{"X-Request-Id": "a5f3"}) for _ in range(3)}
    (hold_id,) = ids
    assert await balance(call, world) == 500
    assert (await ask(call, f"{SETTLE}?hold={hold_id}&quantity=2"))[0] == 204
    assert await held(call, proxy, **{"X-Request-Id": "a5f3"}) == hold_id
    status, _, told = await ask(call, door(proxy, "tokens", 5), headers={"X-Request-Id": "a5f3"})
    assert (status, "X-Tallygate-Hold" in told) == (200, False)
    assert await balance(call, world) == 300
    assert await held(call, proxy, 3, **{"X-Request-Id": "b0"}) != hold_id


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_hundred_holds_at_once_on_a_wallet_for_ten_are_ten(call: Any, world: Any, proxy: str) -> None:
    """And what was refused has no id."""
    await world.grant(1_000)
    answers = await asyncio.gather(*(ask(call, door(proxy, "tokens", 1, **HOLD)) for _ in range(100)))
    assert sorted({status for status, _, _ in answers}) == [200, 403 if proxy == "nginx" else 402]
    ids = [told["X-Tallygate-Hold"] for status, _, told in answers if status == 200]
    assert (len(ids), len(set(ids))) == (10, 10)
    assert all("X-Tallygate-Hold" not in told for status, _, told in answers if status != 200)
    ended = await asyncio.gather(*(ask(call, f"{SETTLE}?hold={hold_id}&quantity=1") for hold_id in ids * 3))
    assert {status for status, _, _ in ended} == {204}
    assert len(await world.entries()) == 10


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_peek_charges_nothing(call: Any, unchanged: Any, proxy: str) -> None:
    """Also under a request's id."""
    async with unchanged():
        for quantity, statuses in ((10, (200, 200)), (11, (429, 403))):
            path = door(proxy, "calls", quantity, mode="peek")
            status, _, told = await ask(call, path, headers={"X-Request-Id": "a5f3"})
            assert (status, told["RateLimit"].partition(";t")[0]) == (statuses[proxy == "nginx"], '"calls";r=10')


async def test_envoy_is_told_what_a_client_must_not_say_in_our_place(call: Any, world: Any) -> None:
    """It removes from the request what no answer of ours replaces."""
    removed = "x-envoy-auth-headers-to-remove"
    seldom = "X-Tallygate-Hold, X-Tallygate-Would, X-Tallygate-Degraded"
    for _ in range(3):
        assert (await ask(call, door("envoy", "export", 1)))[2][removed] == seldom
    _, _, told = await ask(call, door("envoy", "tokens", 5, **HOLD, shadow=1))
    assert told[removed] == "X-Tallygate-Degraded"
    assert removed not in (await ask(call, door("envoy", "tokens", 5)))[2]
    assert removed not in (await ask(call, door("forward", "export", 1)))[2]


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_hold_in_shadow_can_be_settled(call: Any, world: Any, proxy: str) -> None:
    """It holds nothing, and charges nothing."""
    status, _, told = await ask(call, door(proxy, "tokens", 5, **HOLD, shadow=1))
    assert (status, told["X-Tallygate-Would"]) == (200, "insufficient_balance")
    assert (await ask(call, f"{SETTLE}?hold={told['X-Tallygate-Hold']}&quantity=3"))[0] == 204
    assert {entry.kind.value for entry in await world.entries()} == {"shadow"}


class Deaf:
    """A link to nobody."""

    async def run(self, *_: Any, **__: Any) -> None:
        raise Unavailable("Redis is away")


async def test_a_settlement_that_redis_does_not_hear_is_told_again(
    gateway: Any, world: Any, eventually: Any
) -> None:
    """The proxy hears 503 and may ask again; if it does not, the hold is settled all the same, once."""
    worker, call = gateway
    await world.grant(1_000)
    hold_id = await held(call)
    settlements = worker.settlements
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settlements, "_end", Deaf().run)
        status, problem, told = await ask(call, f"{SETTLE}?hold={hold_id}&quantity=3")
        assert (status, problem["code"], told["Retry-After"]) == (503, "unavailable", "1")
        _, page, _ = await call.get("/metrics")
        assert b"tallygate_settlements_waiting" in page
        assert settlements.waiting_count == 1
    await eventually(lambda: settlements.settled == 1)
    assert (await ask(call, f"{SETTLE}?hold={hold_id}&quantity=3"))[0] == 204
    assert (await balance(call, world), settlements.waiting_count) == (700, 0)
    assert len(await world.entries()) == 1


async def test_a_stranger_leaves_room_for_the_settlements_of_others(gateway: Any, monkeypatch: Any) -> None:
    """While Redis is away nobody can say which holds there are: half of the places are not for strangers."""
    worker, call = gateway
    worker.settlements._waiting.extend([settlement_of("hold_x", None)] * (MOST_WAITING // 2 - 1))
    monkeypatch.setattr(worker.settlements, "_end", Deaf().run)
    statuses = [(await ask(call, f"{SETTLE}?hold=hold_{number:032x}"))[0] for number in range(3)]
    assert (statuses, worker.settlements.waiting_count) == ([503] * 3, MOST_WAITING // 2)
    with pytest.raises(Unavailable):
        await worker.settlements.end(settlement_of("hold_y", None))
    assert worker.settlements.waiting_count == MOST_WAITING // 2 + 1
    worker.settlements._waiting.clear()


@pytest.mark.parametrize("proxy", PROXIES)
async def test_the_upstream_is_told_the_plan(call: Any, world: Any, eventually: Any, proxy: str) -> None:
    """On every way to an answer; another one is told from the next request on, and nothing where there is none."""
    features = world.features | {
        code: msgspec.structs.replace(world.features[code], plan="pro") for code in ("export", "calls")
    }
    await world.project(features=features)
    path = door(proxy, "export", 1)
    for _ in range(4):
        assert (await ask(call, path))[2]["X-Tallygate-Plan"] == "pro"
    assert (await ask(call, door(proxy, "calls", 1, **HOLD)))[2]["X-Tallygate-Plan"] == "pro"
    assert (await ask(call, door(proxy, "tier", 1)))[2]["X-Tallygate-Plan"] == ""
    features["export"] = msgspec.structs.replace(features["export"], plan="team")
    await world.project(features=features)
    for _ in range(3):
        assert (await ask(call, path))[2]["X-Tallygate-Plan"] == "team"
