"""What a caller who cannot pay is told of payment, in each dialect; and what nobody else is told."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from billing_core.contract.shipped import shipped
from billing_core.contract.snapshot import Status
from billing_core.errors import ConfigurationError
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings

BEARER = {"Authorization": "Bearer tgk_caller"}
PAY = "https://billing.example.com/top-up?customer=acme"
DIALECTS = {
    "forward": "/v1/authorize/forward?feature={}&quantity=1",
    "nginx": "/v1/authorize/nginx?feature={}&quantity=1",
    "envoy": "/v1/authorize/envoy/{}/1/a/b",
}


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    return msgspec.structs.replace(
        settings, payment_offer_file=str(shipped("payment.toml")), legacy_ratelimit_headers=True
    )


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_who_cannot_pay_is_told_how_to(call: Any, unchanged: Any, dialect: str) -> None:
    """By a person in the body and as a link, by a program in a header; nginx passes on headers alone."""
    async with unchanged():
        status, body, headers = await call(DIALECTS[dialect].format("tokens"), method="GET", headers=BEARER)
    assert headers["Link"] == f'<{PAY}>; rel="payment"'
    required = msgspec.json.decode(base64.b64decode(headers["PAYMENT-REQUIRED"], validate=True))
    assert (required["x402Version"], required["resource"]["url"]) == (2, "https://billing.example.com/x402/acme")
    if dialect == "nginx":
        assert (status, headers["X-Tallygate-Status"], body) == (403, "402", b"")
    else:
        assert (status, body["payment"]) == (402, {"top_up_url": PAY})


async def test_a_program_does_not_pay_for_a_suspended_customer(call: Any, world: Any) -> None:
    """A person may see why."""
    await world.project(status=Status.SUSPENDED)
    status, body, headers = await call(DIALECTS["forward"].format("tokens"), method="GET", headers=BEARER)
    assert (status, body["code"], body["payment"]) == (402, "suspended", {"top_up_url": PAY})
    assert "PAYMENT-REQUIRED" not in headers


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_nobody_else_is_told_anything_of_payment(call: Any, world: Any, dialect: str) -> None:
    """Neither who may pass, nor who is refused for something else; a payment that comes along is not looked at."""
    await world.grant(1_000)
    path, signed = DIALECTS[dialect], BEARER | {"PAYMENT-SIGNATURE": "e30="}
    answers = [
        await call(path.format("tokens"), method="GET", headers=BEARER),
        await call(path.format("tokens"), method="GET", headers=signed),
        await call(path.format("closed"), method="GET", headers=BEARER),
        await call(path.format("tokens"), method="GET"),
    ]
    assert [status for status, _, _ in answers] == [200, 200, 403, 401]
    for _, body, headers in answers:
        assert not {"Link", "PAYMENT-REQUIRED"} & set(headers)
        assert b"payment" not in msgspec.json.encode(body if isinstance(body, dict) else body.decode())


async def test_a_check_tells_nothing_of_payment(call: Any, world: Any) -> None:
    """Its answer is a decision, with the balance in it."""
    status, body, headers = await call("/v1/check", {"key": world.key, "feature": "tokens"})
    assert (status, body["reason"]) == (200, "insufficient_balance")
    assert "payment" not in body
    assert not {"Link", "PAYMENT-REQUIRED"} & set(headers)


async def test_older_headers_are_told_beside_the_others(call: Any) -> None:
    """Each time what remains."""
    for left in (9, 8, 7):
        _, _, headers = await call(DIALECTS["forward"].format("calls"), method="GET", headers=BEARER)
        assert headers["RateLimit"].startswith(f'"calls";r={left};t=')
        assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("10", str(left))
        assert headers["RateLimit"].endswith(f";t={headers['X-RateLimit-Reset']}")


async def test_a_gateway_with_a_file_that_is_no_offer_does_not_start(settings: GatewaySettings) -> None:
    """It says which."""
    with pytest.raises(ConfigurationError, match="payment_offer_file: /none: cannot be read"):
        Worker(msgspec.structs.replace(settings, payment_offer_file="/none"))
