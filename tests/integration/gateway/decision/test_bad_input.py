"""What breaks a rule is a problem that names field and rule, and nothing is written."""

from __future__ import annotations

from typing import Any

import pytest

KEY = {"key": "tgk_caller"}
ONE = KEY | {"feature": "calls"}


def nested(depth: int) -> bytes:
    return b'{"key":"tgk_caller","feature":' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (ONE | {"quantity": -(2**53)}, "quantity", "at least -9007199254740991"),
        (ONE | {"set": -1}, "set", "at least 0"),
        (ONE | {"set": 5, "quantity": 5}, "set", "not in both"),
        (KEY | {"set": 5}, "set", "needs a `feature`"),
        (KEY | {"charges": [{"feature": "calls", "set": 1, "quantity": 1}]}, "charges[0].set", "not in both"),
        (ONE | {"path": "team:ml"}, "path", "a key brings its own"),
        ({"customer": "acme", "feature": "calls", "path": "team:"}, "path", "not a segment"),
        ({"customer": "acme", "feature": "calls", "path": "key:a/team:b"}, "path", "wrong place"),
        ({"customer": "acme", "feature": "calls", "path": "x" * 301}, "path", "length"),
        (ONE | {"quantity": 1.5}, "quantity", "whole number"),
        (ONE | {"quantity": 1.0}, "quantity", "whole number"),
        (ONE | {"quantity": True}, "quantity", "whole number"),
        (ONE | {"quantity": "1"}, "quantity", "whole number"),
        (ONE | {"quantity": 2**53}, "quantity", "9007199254740991"),
        (ONE | {"quantity": 10**30}, "quantity", "9007199254740991"),
        (ONE | {"feature": "a:b"}, "feature", "1 to 64 letters"),
        (ONE | {"feature": ""}, "feature", "1 to 64 letters"),
        (ONE | {"feature": "x" * 65}, "feature", "1 to 64 letters"),
        (ONE | {"feature": "calls\n"}, "feature", "1 to 64 letters"),
        (ONE | {"feature": None}, "feature", "is required"),
        (ONE | {"features": []}, "features", "unknown field"),
        (ONE | {"key": ""}, "key", "length"),
        (ONE | {"key": "x" * 256}, "key", "length"),
        (ONE | {"key": 7}, "key", "`str"),
        (ONE | {"customer": "acme"}, "key", "exactly one"),
        ({"feature": "calls"}, "key", "exactly one"),
        ({"customer": "a b", "feature": "calls"}, "customer", "1 to 64 letters"),
        (KEY, "feature", "is required"),
        (KEY | {"quantity": 1}, "quantity", "needs a `feature`"),
        (KEY | {"charges": []}, "charges", "length"),
        (KEY | {"charges": [{"feature": f"f{n}"} for n in range(17)]}, "charges", "length"),
        (KEY | {"charges": {}}, "charges", "`array"),
        (KEY | {"charges": [{"quantity": 1}]}, "charges[0].feature", "is required"),
        (KEY | {"charges": [{"feature": "calls", "quantity": 2**53}]}, "charges[0].quantity", "9007199254740991"),
        (KEY | {"charges": [{"feature": "calls", "price": 1}]}, "charges[0].price", "unknown field"),
        (KEY | {"charges": [{"feature": "calls"}, {"feature": "calls"}]}, "charges", "once"),
        (ONE | {"charges": [{"feature": "calls"}]}, "feature", "not in both"),
        (KEY | {"quantity": 1, "charges": [{"feature": "calls"}]}, "quantity", "not in both"),
        (ONE | {"mode": "steal"}, "mode", "enum"),
        (ONE | {"mode": "hold"}, "ttl_ms", "is required for a hold"),
        (ONE | {"mode": "hold", "ttl_ms": 0}, "ttl_ms", "at least 1"),
        (ONE | {"mode": "hold", "ttl_ms": 604_800_001}, "ttl_ms", "at most 604800000"),
        (ONE | {"mode": "hold", "ttl_ms": 1, "on_expiry": "forget"}, "on_expiry", "enum"),
        (ONE | {"ttl_ms": 5}, "ttl_ms", "hold only"),
        (ONE | {"mode": "peek", "on_expiry": "charge"}, "on_expiry", "hold only"),
        (ONE | {"mode": "peek", "idempotency_key": "k"}, "idempotency_key", "peek"),
        (ONE | {"mode": "peek", "shadow": True}, "shadow", "refuses nothing"),
        (ONE | {"mode": "record", "shadow": True}, "shadow", "refuses nothing"),
        (ONE | {"mode": "hold", "ttl_ms": 1, "quantity": -1}, "quantity", "cannot be held"),
        (ONE | {"mode": "hold", "ttl_ms": 1, "set": 1}, "quantity", "cannot be held"),
        (ONE | {"idempotency_key": ""}, "idempotency_key", "1 to 255 printable"),
        (ONE | {"idempotency_key": "a b"}, "idempotency_key", "1 to 255 printable"),
        (ONE | {"idempotency_key": "ü"}, "idempotency_key", "1 to 255 printable"),
        (ONE | {"idempotency_key": "x" * 256}, "idempotency_key", "1 to 255 printable"),
        ([ONE], "body", "`object`"),
        ("check", "body", "`object`"),
    ],
)
async def test_a_check_that_breaks_a_rule_is_refused(
    call: Any, unchanged: Any, body: object, field: str, rule: str
) -> None:
    """Field and rule, and nothing else happens."""
    async with unchanged():
        status, problem, headers = await call("/v1/check", body)
    assert headers["Content-Type"] == "application/problem+json"
    assert (status, problem["status"], problem["field"]) == (400, 400, field)
    assert rule in problem["detail"]


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b'{"key":"tgk_caller","feature":"calls"', "body"),
        (b'{"key":"tgk_caller","feature":"calls"} {}', "body"),
        (b"{'key':'tgk_caller'}", "body"),
        (b'{"key":"tgk_caller","feature":"calls","quantity":NaN}', "body"),
        (b'{"key":"tgk_caller","feature":"calls","quantity":01}', "body"),
        (b'{"key":"tgk_caller","feature":"ca\xff"}', "body"),
        (b"\x00", "body"),
        (b"[" * 100_000, "body"),
        (nested(100), "feature"),
        (nested(100_000), "feature"),
        (b'{"charges":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "charges[0]"),
        (b'{"key":"tgk_caller","feature":"calls","feature":"tokens"}', "feature"),
        (b'{"key":"tgk_caller","feature":"calls","quantity":1,"quantity":1}', "quantity"),
        (b'{"key":"tgk_caller","feature":"calls","quantity":1,"\\u0071uantity":1}', "quantity"),
        (b'{"key":"tgk_caller","charges":[{"feature":"calls","quantity":1,"quantity":2}]}', "quantity"),
    ],
)
async def test_what_is_not_one_sound_json_object_is_refused(
    call: Any, unchanged: Any, raw: bytes, field: str
) -> None:
    """Malformed, cut off, too deep, not UTF-8, or naming a field twice."""
    async with unchanged():
        status, problem, _ = await call("/v1/check", raw=raw)
    assert (status, problem["field"]) == (400, field)


@pytest.mark.parametrize("path", ["/v1/check", "/v1/check/batch", "/v1/events", "/v1/holds/x/settle"])
async def test_a_body_above_the_bound_is_refused(call: Any, world: Any, unchanged: Any, path: str) -> None:
    """1 MiB."""
    async with unchanged():
        headers = {"Authorization": f"Bearer {world.token}"}
        status, problem, _ = await call(path, raw=b" " * 1_048_577, headers=headers)
    assert (status, problem["code"], problem["field"]) == (413, "too_large", "body")


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "json", "text/\udcff"]
)
async def test_a_body_of_another_kind_is_refused(call: Any, unchanged: Any, media_type: str) -> None:
    """JSON, or a type that is built on it."""
    async with unchanged():
        status, problem, _ = await call("/v1/check", ONE, headers={"Content-Type": media_type})
    assert (status, problem["field"]) == (400, "content-type")


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"]
)
async def test_json_by_any_of_its_names_passes(call: Any, media_type: str) -> None:
    """Parameters and case do not matter."""
    status, _, _ = await call("/v1/check", ONE, headers={"Content-Type": media_type})
    assert status == 200


async def test_paths_and_methods_that_are_not_there_are_problems_too(call: Any) -> None:
    """One shape for every error."""
    status, problem, _ = await call.get("/v1/nothing")
    assert (status, problem["code"]) == (404, "not_found")
    status, problem, headers = await call.get("/v1/check")
    assert (status, problem["status"], headers["Allow"]) == (405, 405, "POST")
