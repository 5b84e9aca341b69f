"""Live reads: usage and wallets, for operators and for the customer itself."""

from __future__ import annotations

from typing import Any

import pytest

from billing_core.contract.keys import KeyRecord, Role


async def test_usage_is_as_fresh_as_the_last_decision(call: Any, world: Any, unchanged: Any) -> None:
    """Used, held, remaining, by feature."""
    await world.grant(5_000)
    await call("/v1/check", {"key": world.key, "feature": "calls", "quantity": 3})
    await call("/v1/check", {"key": world.key, "feature": "calls", "quantity": 2, "mode": "hold", "ttl_ms": 60_000})
    async with unchanged():
        status, body, _ = await call.get("/v1/customers/acme/usage", token=world.token)
    assert (status, body["customer"], body["status"]) == (200, "acme", "active")
    features = {one["feature"]: one for one in body["features"]}
    assert sorted(features) == ["calls", "closed", "export", "tier", "tokens"]
    calls = features["calls"]
    assert (calls["used_units"], calls["held_units"], calls["remaining_units"]) == (3, 2, 5)
    assert (calls["limit_units"], calls["limit_mode"], calls["kind"]) == (10, "hard", "metered")
    assert calls["reset_at"].endswith("T00:00:00Z")
    assert (features["tier"]["value"], features["tier"]["kind"]) == ("gold", "static")
    assert (features["closed"]["enabled"], features["export"]["enabled"]) == (False, True)


async def test_wallets_tell_every_grant(call: Any, world: Any, unchanged: Any) -> None:
    """In burn order, with what is held."""
    await world.grant(1_000)
    await world.grant(2_000, grant_id="g2")
    hold = {"key": world.key, "feature": "tokens", "quantity": 12, "mode": "hold", "ttl_ms": 60_000}
    await call("/v1/check", hold)
    async with unchanged():
        status, body, _ = await call.get("/v1/customers/acme/wallets", token=world.key)
    assert status == 200
    (wallet,) = body["wallets"]
    assert (wallet["currency"], wallet["balance_nanos"], wallet["held_nanos"]) == ("USD", 1_800, 1_200)
    grants = [(one["id"], one["remaining_nanos"], one["held_nanos"], one["kind"]) for one in wallet["grants"]]
    assert grants == [("g1", 0, 1_000, "paid"), ("g2", 1_800, 200, "paid")]
    assert (wallet["grants"][0]["expires_at"], wallet["grants"][0]["usable"]) == (None, True)


@pytest.mark.parametrize("what", ["usage", "wallets"])
@pytest.mark.parametrize(
    ("customer", "token", "status"),
    [
        ("acme", "", 401),
        ("acme", "tgk_nobody", 401),
        ("acme", "tgk_other", 403),
        ("acme", "tgo_two", 404),
        ("nobody", "tgo_operator", 404),
        ("a:b", "tgo_operator", 404),
        ("a%0ab", "tgo_operator", 404),
        ("acme", "tgk_caller", 200),
        ("acme", "tgo_operator", 200),
    ],
)
async def test_nobody_reads_what_is_not_theirs(
    call: Any, world: Any, what: str, customer: str, token: str, status: int
) -> None:
    """Another tenant's customer does not exist."""
    other = KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="other")
    await world.credential("tgk_other", other)
    await world.credential("tgo_two", KeyRecord(tenant_id="t2", role=Role.OPERATOR))
    got, _, _ = await call.get(f"/v1/customers/{customer}/{what}", token=token)
    assert got == status
