"""A receipt says what was decided, and nobody can make it say anything else."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest

from billing_core.errors import ConfigurationError, InvalidInput
from gateway.receipt import Receipt, ReceiptCharge, Signer, new_key, open_signer, verify

RECEIPT = Receipt(
    decision_id="dec_1",
    tenant="t1",
    customer="acme",
    path="team:ml",
    mode="consume",
    allowed=False,
    reason="limit_reached",
    level="team:ml",
    limit="requests@month",
    would="",
    refused_feature="calls",
    replayed=False,
    degraded=False,
    at_ms=1_750_000_000_000,
    currency="USD",
    cost_nanos=2_500,
    balance_nanos=97_500,
    hold="",
    charges=(
        ReceiptCharge(
            feature="calls",
            quantity=1,
            limit_units=100,
            remaining_units=0,
            reset_at_ms=None,
            cost_nanos=2_500,
            currency="USD",
        ),
    ),
)


def signer(tmp_path: Path, *keys: bytes) -> Signer:
    file = tmp_path / "receipt.pem"
    file.write_bytes(b"".join(keys))
    made = open_signer(str(file))
    assert made is not None
    return made


def test_a_receipt_is_verified_by_its_public_keys_alone(tmp_path: Path) -> None:
    """And they hold nothing that is secret."""
    ours = signer(tmp_path, new_key())
    assert verify(ours.sign(RECEIPT), ours.jwks) == RECEIPT
    assert b'"d"' not in ours.jwks


def test_an_old_key_goes_on_verifying_behind_a_new_one(tmp_path: Path) -> None:
    """The new one signs."""
    old, new = new_key(), new_key()
    before = signer(tmp_path, old).sign(RECEIPT)
    ours = signer(tmp_path, new, old)
    assert verify(before, ours.jwks) == verify(ours.sign(RECEIPT), ours.jwks) == RECEIPT
    assert verify(ours.sign(RECEIPT), signer(tmp_path, new).jwks) == RECEIPT


def test_another_key_verifies_nothing(tmp_path: Path) -> None:
    """Not even under the same name."""
    token = signer(tmp_path, new_key()).sign(RECEIPT)
    with pytest.raises(InvalidInput, match="no key of the set"):
        verify(token, signer(tmp_path, new_key()).jwks)


def test_what_was_changed_is_not_verified(tmp_path: Path) -> None:
    """Neither the words nor the algorithm."""
    ours = signer(tmp_path, new_key())
    head, _, tail = ours.sign(RECEIPT).split(".")
    told = msgspec.json.encode(msgspec.structs.replace(RECEIPT, allowed=True))
    body = base64.urlsafe_b64encode(told).rstrip(b"=").decode()
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for forged in (f"{head}.{body}.{tail}", f"{unsigned}.{body}.", f"{head}.{body}", "", "a.b.c", "é"):
        with pytest.raises(InvalidInput):
            verify(forged, ours.jwks)


@pytest.mark.parametrize("jwks", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}', b'{"keys": [{"kty": "?"}]}'])
def test_what_is_no_set_of_keys_is_named(jwks: bytes, tmp_path: Path) -> None:
    """Rather than told as a forgery."""
    token = signer(tmp_path, new_key()).sign(RECEIPT)
    with pytest.raises(InvalidInput, match="JWK set"):
        verify(token, jwks)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", b"{}"])
def test_a_file_without_a_key_is_refused_at_the_start(content: bytes, tmp_path: Path) -> None:
    """In one line that names the setting."""
    file = tmp_path / "receipt.pem"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"receipt_key_file: .*private Ed25519 key"):
        open_signer(str(file))


def test_a_missing_file_is_refused_and_no_file_is_no_signer(tmp_path: Path) -> None:
    """Receipts are an option."""
    assert open_signer("") is None
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_signer(str(tmp_path / "none.pem"))
