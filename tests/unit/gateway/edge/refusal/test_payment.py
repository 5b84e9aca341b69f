"""How to pay: what is offered, to whom, and which files are no offers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing_core.contract.shipped import shipped
from billing_core.errors import ConfigurationError
from gateway.admission.decision import Decision
from gateway.admission.reason import RULES, Reason
from gateway.edge.refusal.answer import Notices
from gateway.edge.refusal.payment import NO_OFFER, Offer, open_offer

SHIPPED = str(shipped("payment.toml"))
MONEY = (Reason.INSUFFICIENT_BALANCE, Reason.SUSPENDED)
REFUSALS = [reason for reason in Reason if reason is not Reason.ALLOWED]


def told(offer: Offer, reason: Reason, customer_id: str = "acme") -> tuple[dict[str, Any], dict[str, str]]:
    """Body and headers of a refusal."""
    answer = Notices(offer).refused(Decision(reason=reason, decision_id="dec_1"), customer_id)
    assert answer.status == RULES[reason].status
    return msgspec.json.decode(answer.body), dict(answer.headers)


def test_the_shipped_offer_is_told_whole() -> None:
    """As x402 version 2 writes it, with the names of its fields."""
    body, headers = told(open_offer(SHIPPED), Reason.INSUFFICIENT_BALANCE)
    url = "https://billing.example.com/top-up?customer=acme"
    assert body["payment"] == {"top_up_url": url}
    assert headers["Link"] == f'<{url}>; rel="payment"'
    assert msgspec.json.decode(base64.b64decode(headers["PAYMENT-REQUIRED"], validate=True)) == {
        "x402Version": 2,
        "error": "the balance does not cover the cost",
        "resource": {
            "url": "https://billing.example.com/x402/acme",
            "description": "A top-up of 5 dollars",
            "mimeType": "application/json",
        },
        "accepts": [
            {
                "scheme": "exact",
                "network": "eip155:84532",
                "amount": "5000000",
                "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
                "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
                "maxTimeoutSeconds": 60,
                "extra": {"name": "USDC", "version": "2"},
            }
        ],
    }


@pytest.mark.parametrize("reason", REFUSALS)
def test_only_who_is_refused_for_money_is_told_how_to_pay(reason: Reason) -> None:
    """And a program pays nothing for a customer who is suspended: a top-up would not help."""
    body, headers = told(open_offer(SHIPPED), reason)
    assert ("payment" in body, "Link" in headers) == (reason in MONEY, reason in MONEY)
    assert ("PAYMENT-REQUIRED" in headers) == (reason is Reason.INSUFFICIENT_BALANCE)


@pytest.mark.parametrize("reason", REFUSALS)
def test_without_an_offer_nothing_is_told(reason: Reason) -> None:
    """The default."""
    body, headers = told(NO_OFFER, reason)
    assert "payment" not in body
    assert not {"Link", "PAYMENT-REQUIRED"} & set(headers)


def test_one_half_of_an_offer_will_do(tmp_path: Path) -> None:
    """For persons, or for programs."""
    file = tmp_path / "offer.toml"
    file.write_text('top_up_url = "https://a.example/pay"')
    assert set(told(open_offer(str(file)), MONEY[0])[1]) == {"Link"}
    file.write_text(Path(SHIPPED).read_text().replace("top_up_url", "# "))
    assert set(told(open_offer(str(file)), MONEY[0])[1]) == {"PAYMENT-REQUIRED"}


WRONG = [
    ("", "", "top_up_url: is required, or an offer"),
    ("top_up_url", "url", "url: unknown field"),
    ("https://billing.example.com/top-up", "ftp://billing.example.com", "top_up_url: must be an https://"),
    ("https://billing.example.com/top-up", "https:///top-up", "top_up_url: must be an https://"),
    ("?customer={customer}", "?customer={who}", "top_up_url: must be an https://"),
    ("?customer={customer}", "?customer=<>", "top_up_url: must be an https://"),
    ("/x402/{customer}", "/x402/ü", "x402.resource.url: must be an https://"),
    ('url = "https://billing.example.com/x402/{customer}"', "", "x402.resource.url: is required"),
    ('"eip155:84532"', '"base-sepolia"', "x402.accepts[0].network: "),
    ('"5000000"', "5000000", "x402.accepts[0].amount: "),
    ('"5000000"', '"0"', "x402.accepts[0].amount: "),
    ('"5000000"', '"1.5"', "x402.accepts[0].amount: "),
    ("payTo", "pay_to", "x402.accepts[0].pay_to: unknown field"),
    ("maxTimeoutSeconds = 60", "maxTimeoutSeconds = 0", "x402.accepts[0].maxTimeoutSeconds: must be at least 1"),
    ('"A top-up of 5 dollars"', f'"{"x" * 2_048}"', "x402: must be at most 2048 bytes"),
    ("[[x402.accepts]]", "[x402.extra]", "x402.extra: unknown field"),
    ("[x402.resource]", "[x402.resource", "not a TOML document"),
]


@pytest.mark.parametrize(("old", "new", "rule"), WRONG)
def test_a_file_that_is_no_offer_is_refused(tmp_path: Path, old: str, new: str, rule: str) -> None:
    """In one line that names the setting, the file, the field and the rule."""
    text = Path(SHIPPED).read_text()
    assert old in text
    file = tmp_path / "offer.toml"
    file.write_text(text.replace(old, new) if old else "")
    with pytest.raises(ConfigurationError) as refused:
        open_offer(str(file))
    assert str(refused.value).startswith(f"payment_offer_file: {file}: {rule}")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """At start, and not when the first customer cannot pay."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_offer(str(tmp_path / "none.toml"))
