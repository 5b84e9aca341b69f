"""What Envoy passes on to a client who cannot pay."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_core.contract.shipped import shipped
from gateway.settings import GatewaySettings

BEARER = {"authorization": "Bearer tgk_caller"}


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    return msgspec.structs.replace(settings, payment_offer_file=str(shipped("payment.toml")))


async def test_a_denial_says_how_to_pay_as_over_http(port: Any, call: Any) -> None:
    """Body and headers; of somebody else's denial they say nothing."""
    told = await port.check({"feature": "tokens", "quantity": "1"}, BEARER)
    path = "/v1/authorize/forward?feature=tokens&quantity=1"
    _, problem, spoken = await call(path, method="GET", headers=BEARER)
    denied = told.denied_response
    assert msgspec.json.decode(denied.body)["payment"] == problem["payment"]
    down = {option.header.key: option.header.value for option in denied.headers}
    for name in ("Link", "PAYMENT-REQUIRED"):
        assert down[name] == spoken[name]
    other = (await port.check({"feature": "closed", "quantity": "1"}, BEARER)).denied_response
    assert not {"Link", "PAYMENT-REQUIRED"} & {option.header.key for option in other.headers}
