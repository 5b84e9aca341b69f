"""The rate limit service, asked by the official client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing_core.contract.keys import KeyRecord, Role

OK, OVER = 1, 2
CALLS = {"key": "tgk_caller", "feature": "calls"}
TOKENS = {"key": "tgk_caller", "feature": "tokens"}
OPERATOR = {"metadata": (("authorization", "Bearer tgo_operator"),)}


def codes(told: Any) -> list[int]:
    return [status.code for status in told.statuses]


def headers(told: Any) -> dict[str, str]:
    return {header.key: header.value for header in told.response_headers_to_add}


async def test_a_descriptor_is_charged_and_told_what_is_left(port: Any, world: Any) -> None:
    """One hit where nothing is said; the limit, what remains of it, and when its window starts anew."""
    told = await port.limit(CALLS)
    assert (told.overall_code, codes(told)) == (OK, [OK])
    (status,) = told.statuses
    assert (status.current_limit.requests_per_unit, status.current_limit.name) == (10, "calls")
    assert status.limit_remaining == 9
    assert 0 < status.duration_until_reset.seconds <= 86_400
    assert headers(told)["RateLimit"].startswith('"calls";r=9;t=')
    assert headers(told)["RateLimit-Policy"] == '"calls";q=10'
    (entry,) = await world.entries()
    assert [(one.feature, one.quantity) for one in entry.charges] == [("calls", 1)]


async def test_hits_addend_is_the_quantity(port: Any) -> None:
    """Of the request, unless the descriptor has its own; what does not fit is refused whole."""
    assert (await port.limit(CALLS, hits=4)).statuses[0].limit_remaining == 6
    assert (await port.limit(CALLS | {"hits": "5"}, hits=1)).statuses[0].limit_remaining == 1
    told = await port.limit(CALLS, hits=2)
    assert (told.overall_code, codes(told), told.statuses[0].limit_remaining) == (OVER, [OVER], 1)
    assert headers(told)["X-Tallygate-Reason"] == "limit_reached"
    assert int(headers(told)["Retry-After"]) == -(-told.statuses[0].duration_until_reset.ToMilliseconds() // 1_000)
    assert (await port.limit(CALLS, hits=1)).overall_code == OK


async def test_an_explicit_zero_of_a_descriptor_only_looks(port: Any, unchanged: Any) -> None:
    """Whether there is one unit more; nothing is written."""
    async with unchanged():
        assert (await port.limit(CALLS | {"hits": "0"})).overall_code == OK
    await port.limit(CALLS, hits=10)
    async with unchanged():
        assert (await port.limit(CALLS | {"hits": "0"})).overall_code == OVER


@pytest.mark.parametrize("credential", ["tgk_caller", "Bearer tgk_caller", "bearer tgk_caller"])
async def test_a_key_stands_bare_or_as_its_header_has_it(port: Any, credential: str) -> None:
    """So `request_headers` of Authorization will do."""
    assert (await port.limit(CALLS | {"key": credential})).overall_code == OK


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (CALLS | {"key": "tgk_nobody"}, "unknown_key"),
        (CALLS | {"key": "tgo_operator"}, "unknown_key"),
        (CALLS | {"key": ""}, "unknown_key"),
        (CALLS | {"feature": "nothing"}, "not_entitled"),
        (CALLS | {"feature": "closed"}, "not_entitled"),
        (TOKENS, "insufficient_balance"),
    ],
)
async def test_every_refusal_is_over_limit_and_says_why(
    port: Any, unchanged: Any, entries: dict[str, str], reason: str
) -> None:
    """A made-up key is not let through; nothing is written."""
    async with unchanged():
        told = await port.limit(entries)
    assert (told.overall_code, codes(told), headers(told)["X-Tallygate-Reason"]) == (OVER, [OVER], reason)


async def test_descriptors_of_one_caller_are_all_charged_or_none(port: Any, world: Any, unchanged: Any) -> None:
    """Each has its own answer; the one that refused says so, and the other one was not charged."""
    async with unchanged():
        told = await port.limit(CALLS, TOKENS)
    assert (told.overall_code, codes(told)) == (OVER, [OK, OVER])
    await world.grant(100)
    told = await port.limit(CALLS, TOKENS)
    assert (told.overall_code, codes(told), told.statuses[0].limit_remaining) == (OK, [OK, OK], 9)
    assert [len(entry.charges) for entry in await world.entries() if entry.charges] == [2]


async def test_the_same_feature_twice_is_added_up(port: Any) -> None:
    """Two descriptors of four are eight."""
    told = await port.limit(CALLS | {"hits": "4"}, CALLS | {"hits": "4"})
    assert [status.limit_remaining for status in told.statuses] == [2, 2]
    assert codes(await port.limit(CALLS, CALLS, CALLS)) == [OVER] * 3


async def test_descriptors_of_several_customers_are_decided_each_for_itself(port: Any, world: Any) -> None:
    """One is over, the other is charged."""
    await world.project(customer="other")
    await world.credential("tgk_other", KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="other"))
    await port.limit(CALLS, hits=10)
    named = {"customer": "other", "feature": "calls"}
    told = await port.limit(CALLS, CALLS | {"key": "tgk_other"}, named, **OPERATOR)
    assert (told.overall_code, codes(told)) == (OVER, [OVER, OK, OK])
    assert headers(told)["X-Tallygate-Reason"] == "limit_reached"
    assert (await port.limit(CALLS | {"key": "tgk_other"})).statuses[0].limit_remaining == 7


async def test_an_operator_names_the_customer_and_the_place(port: Any, world: Any, failure: Any) -> None:
    """With its token in the call's metadata; a caller's key is no token, and none is no token either."""
    who = {"customer": "acme", "path": "team:ml", "feature": "calls"}
    assert (await port.limit(who, **OPERATOR)).overall_code == OK
    (entry,) = await world.entries()
    assert entry.body.path == "team:ml"
    as_caller = {"metadata": (("authorization", "Bearer tgk_caller"),)}
    assert (await failure(port.limit(who, **as_caller)))[0] == "PERMISSION_DENIED"
    assert (await failure(port.limit(who)))[0] == "UNAUTHENTICATED"
    assert (await failure(port.limit(who | {"customer": "nobody"}, **OPERATOR)))[0] == "NOT_FOUND"


async def test_a_domain_is_a_tenant_or_any(port: Any, failure: Any, unchanged: Any) -> None:
    """A credential of another tenant is a mistake of the configuration, and the call fails."""
    assert (await port.limit(CALLS, domain="*")).overall_code == OK
    async with unchanged():
        assert (await failure(port.limit(CALLS, domain="t2")))[0] == "PERMISSION_DENIED"
        who = {"customer": "acme", "feature": "calls"}
        assert (await failure(port.limit(who, domain="t2", **OPERATOR)))[0] == "PERMISSION_DENIED"


async def test_what_is_none_of_ours_is_not_limited(port: Any, unchanged: Any) -> None:
    """As Envoy's own service does not limit what it has no rule for; beside one of ours it changes nothing."""
    async with unchanged():
        told = await port.limit({"remote_address": "10.0.0.1"}, {"mode": "x"})
        assert (told.overall_code, codes(told), headers(told)) == (OK, [OK, OK], {})
    told = await port.limit({"remote_address": "10.0.0.1"}, CALLS)
    assert [status.limit_remaining for status in told.statuses] == [0, 9]
    assert not told.statuses[0].HasField("current_limit")


@pytest.mark.parametrize(
    ("entries", "field"),
    [
        ({"key": "tgk_caller"}, "feature"),
        ({"feature": "calls"}, "key"),
        (CALLS | {"feature": "no code"}, "feature"),
        (CALLS | {"customer": "acme"}, "key"),
        ({"customer": "a:b", "feature": "calls"}, "customer"),
        ({"hold": "", "feature": "calls"}, "hold"),
        ({"hold": "hold_1", "feature": "calls", "mode": "record"}, "mode"),
        (CALLS | {"hold": "hold_1"}, "key"),
        (CALLS | {"path": "team:ml"}, "path"),
        ({"customer": "acme", "feature": "calls", "path": "nowhere"}, "path"),
        (CALLS | {"mode": "hold"}, "mode"),
        (CALLS | {"hits": str(2**53)}, "hits_addend"),
    ],
)
async def test_half_a_descriptor_is_a_mistake_that_is_told(
    port: Any, failure: Any, unchanged: Any, entries: dict[str, str], field: str
) -> None:
    """The call fails, so that the proxy counts an error and does what its operator wants."""
    async with unchanged():
        code, text = await failure(port.limit(entries, **OPERATOR))
    assert (code, text.split(":")[0]) == ("INVALID_ARGUMENT", field)


async def test_a_request_without_domain_or_descriptors_is_a_mistake(port: Any, failure: Any) -> None:
    """As it is for Envoy's own service."""
    for call in (port.limit(CALLS, domain=""), port.limit()):
        assert (await failure(call))[0] == "INVALID_ARGUMENT"


async def test_a_request_id_is_charged_once(port: Any, world: Any) -> None:
    """A retry gets the first answer; another request, or another quantity of it, is another act."""
    for _ in range(3):
        assert (await port.limit(CALLS | {"request_id": "r1"})).statuses[0].limit_remaining == 9
    assert (await port.limit(CALLS | {"request_id": "r2"})).statuses[0].limit_remaining == 8
    assert (await port.limit(CALLS | {"request_id": "r2"}, hits=2)).statuses[0].limit_remaining == 6
    assert len(await world.entries()) == 3


async def test_what_was_done_already_is_recorded_and_never_refused(port: Any, world: Any) -> None:
    """For a descriptor that is sent when the response is over."""
    told = await port.limit(CALLS | {"mode": "record"}, hits=25)
    assert (told.overall_code, codes(told)) == (OK, [OK])
    assert (await port.limit(CALLS)).overall_code == OVER
    assert [charge.quantity for entry in await world.entries() for charge in entry.charges] == [25]


async def test_a_descriptor_that_names_a_hold_ends_it(port: Any, world: Any, failure: Any) -> None:
    """By what was used, once; also by nothing. A hold that nobody knows, or that ended otherwise, is a failure."""
    await world.grant(100_000)
    ended: list[str] = []
    for used in ("70", "0"):
        asked = {"feature": "tokens", "quantity": "100", "mode": "hold", "ttl_ms": "60000"}
        hold = (await port.check(asked, {"x-api-key": "tgk_caller"})).dynamic_metadata["hold"]
        for _ in range(2):
            told = await port.limit({"hold": hold, "feature": "tokens", "hits": used})
            assert (told.overall_code, codes(told)) == (OK, [OK])
        ended.append(hold)
    assert [charge.quantity for entry in await world.entries() for charge in entry.charges] == [70]
    nobody = {"hold": "hold_" + "0" * 32, "feature": "tokens"}
    assert (await failure(port.limit(nobody)))[0] == "NOT_FOUND"
    assert (await failure(port.limit({"hold": ended[0], "feature": "tokens"}, hits=9)))[0] == "ABORTED"


async def test_ten_units_are_ten_units_however_many_ask_at_once(port: Any) -> None:
    """A hundred at the same time, exactly ten pass."""
    told = await asyncio.gather(*(port.limit(CALLS) for _ in range(100)))
    assert sorted(one.overall_code for one in told) == [OK] * 10 + [OVER] * 90


async def test_a_thousand_calls_on_one_connection(port: Any, world: Any) -> None:
    """One after the other, each decided."""
    await world.grant(10_000_000)
    for _ in range(1_000):
        assert (await port.limit(TOKENS)).overall_code == OK
    assert len([entry for entry in await world.entries() if entry.charges]) == 1_000
