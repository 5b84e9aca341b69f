"""POST /v1/check/batch: many checks, one answer each, in their order."""

from __future__ import annotations

from typing import Any

import pytest


async def test_each_check_has_its_answer_in_order(call: Any, world: Any) -> None:
    """Decisions, refusals and failures side by side."""
    await world.grant(250)
    token = {"key": world.key, "feature": "tokens"}
    checks = [
        token,
        {"key": "tgk_nobody", "feature": "tokens"},
        token,
        {"customer": "nobody", "feature": "calls"},
        token,
        {"customer": "acme", "feature": "calls", "idempotency_key": "k"},
        {"customer": "acme", "feature": "calls", "idempotency_key": "k"},
        {"customer": "acme", "feature": "calls", "idempotency_key": "k", "quantity": 2},
    ]
    headers = {"Authorization": f"Bearer {world.token}"}
    status, body, _ = await call("/v1/check/batch", {"checks": checks}, headers=headers)
    assert status == 200
    told = [answer.get("reason") or answer["problem"]["code"] for answer in body["answers"]]
    assert told == [
        "allowed",
        "unknown_key",
        "allowed",
        "not_found",
        "insufficient_balance",
        "allowed",
        "allowed",
        "idempotency_conflict",
    ]
    assert [answer.get("replayed") for answer in body["answers"]][5:7] == [False, True]


async def test_a_thousand_checks_travel_in_one_write(gateway: Any, world: Any) -> None:
    """And exactly as many pass as the balance covers."""
    worker, call = gateway
    await world.grant(70_000)
    tally = worker.links["bulk"].tally
    writes = tally.writes
    body = {"checks": [{"key": world.key, "feature": "tokens"}] * 1_000}
    status, answers, _ = await call("/v1/check/batch", body)
    assert status == 200
    assert sum(answer["allowed"] for answer in answers["answers"]) == 700
    assert tally.writes == writes + 1
    assert len(await world.entries()) == 700


@pytest.mark.parametrize(
    ("checks", "status", "field"),
    [
        ([{"key": "tgk_caller", "feature": "calls"}] * 1_001, 413, "checks"),
        ([{"key": "tgk_caller", "feature": "calls"}, {"key": "tgk_caller"}], 400, "checks[1].feature"),
        ([{"key": "tgk_caller", "feature": "calls"}, {"feature": "calls"}], 400, "checks[1].key"),
        ([{"key": "tgk_caller", "feature": "calls", "set": -1}], 400, "checks[0].set"),
        ([{"key": "tgk_caller", "feature": "calls", "spare": 1}], 400, "checks[0].spare"),
        ([7], 400, "checks[0]"),
        ([{"customer": "acme", "feature": "calls"}], 401, "authorization"),
        ("all", 400, "checks"),
    ],
)
async def test_one_check_that_breaks_a_rule_refuses_them_all(
    call: Any, unchanged: Any, checks: object, status: int, field: str
) -> None:
    """Its place is named, and nothing is written."""
    async with unchanged():
        got, problem, _ = await call("/v1/check/batch", {"checks": checks})
    assert (got, problem["field"]) == (status, field)


async def test_a_field_named_twice_in_any_check_refuses_them_all(call: Any, unchanged: Any) -> None:
    """As in a single check."""
    raw = (
        b'{"checks":[{"key":"tgk_caller","feature":"calls"},{"key":"tgk_caller","feature":"calls","feature":"x"}]}'
    )
    async with unchanged():
        status, problem, _ = await call("/v1/check/batch", raw=raw)
    assert (status, problem["field"]) == (400, "feature")


async def test_no_checks_are_no_answers(call: Any) -> None:
    """An empty batch is not an error."""
    assert (await call("/v1/check/batch", {"checks": []}))[1] == {"answers": []}
