"""Decision receipts: what was decided, signed, for whoever needs to prove it later without asking anybody.

A receipt is a compact JWS over JSON, signed by Ed25519. Whoever holds the public keys of the gateway, told as a JWK
set under `/.well-known/jwks.json`, can verify it offline, years later; nothing in it can be changed unnoticed. It
is evidence and no credential: it opens nothing.

Keys stand in one PEM file. The first signs and must be private; those behind it, private or public, are only told,
so that receipts from before a change of keys stay verifiable. A key's name is its thumbprint.

Source: RFC 7515 (JWS, compact serialization); RFC 9864 (Ed25519); RFC 7638 (thumbprint); RFC 7517 (JWK set).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from billing_core.errors import ConfigurationError, InvalidInput

JWKS_PATH: Final = "/.well-known/jwks.json"
JWKS_TYPE: Final = "application/jwk-set+json"
NO_KEYS: Final = b'{"keys":[]}'
_ALGORITHM: Final = "Ed25519"
_TYPE: Final = "tallygate-receipt"
_BLOCK: Final = re.compile(rb"-----BEGIN (PRIVATE|PUBLIC) KEY-----.+?-----END \1 KEY-----", re.DOTALL)


class ReceiptCharge(msgspec.Struct, frozen=True, kw_only=True):
    """One charge of the decision. None: no limit, no window's end."""

    feature: str
    quantity: int
    limit_units: int | None
    remaining_units: int | None
    reset_at_ms: int | None
    cost_nanos: int
    currency: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt says. Instants are milliseconds on the tenant's clock; "" where there is none."""

    decision_id: str
    tenant: str
    customer: str
    path: str
    mode: str
    allowed: bool
    reason: str
    level: str
    limit: str
    would: str
    refused_feature: str
    replayed: bool
    degraded: bool
    at_ms: int
    currency: str
    cost_nanos: int | None
    balance_nanos: int | None
    hold: str
    charges: tuple[ReceiptCharge, ...]


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Receipt)


class Signer:
    """Signs receipts, and tells the keys that verify them."""

    def __init__(self, keys: tuple[OKPKey, ...]) -> None:
        self._key = keys[0]
        self._header = {"alg": _ALGORITHM, "kid": keys[0].thumbprint(), "typ": _TYPE}
        told = [key.as_dict(private=False) | {"kid": key.thumbprint(), "use": "sig"} for key in keys]
        self.jwks = _ENCODER.encode({"keys": told})

    def sign(self, receipt: Receipt) -> str:
        """The receipt as it is handed out."""
        return jws.serialize_compact(self._header, _ENCODER.encode(receipt), self._key, algorithms=[_ALGORITHM])


def open_signer(file: str) -> Signer | None:
    """The signer whose keys stand in a PEM file; None where no file is named.

    Raises: ConfigurationError, one line.
    """
    if not file:
        return None
    try:
        blocks = [found.group(0) for found in _BLOCK.finditer(Path(file).read_bytes())]
        keys = tuple(OKPKey.import_key(block) for block in blocks)
    except OSError as error:
        raise ConfigurationError(
            f"receipt_key_file: {file}: cannot be read: {error.strerror}", field="receipt_key_file"
        ) from None
    except (ValueError, TypeError, JoseError):
        keys = ()
    if not keys or not keys[0].is_private or any(key.curve_name != _ALGORITHM for key in keys):
        raise ConfigurationError(
            f"receipt_key_file: {file}: must begin with a private Ed25519 key in PEM", field="receipt_key_file"
        )
    return Signer(keys)


def new_key() -> bytes:
    """A fresh private key as PEM."""
    return OKPKey.generate_key(_ALGORITHM).as_pem(private=True)


def verify(token: str, jwks: bytes) -> Receipt:
    """What a receipt says, if one of these keys signed it.

    Raises: InvalidInput where none did, or where the text is no receipt or no set of keys.
    """
    try:
        keys = KeySet.import_key_set(msgspec.json.decode(jwks))
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, JoseError):
        raise InvalidInput("is not a JWK set", field="jwks") from None
    try:
        signed = jws.deserialize_compact(token, keys, algorithms=[_ALGORITHM])
        if signed.headers().get("typ") != _TYPE:
            raise InvalidInput("was signed as something else than a receipt", field="receipt")
        return _DECODER.decode(signed.payload)
    except (ValueError, TypeError, JoseError, msgspec.DecodeError):
        raise InvalidInput("no key of the set has signed this receipt", field="receipt") from None
