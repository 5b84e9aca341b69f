"""Secrets that `tallygate up` made for itself, kept in the data folder so that a second start finds them again.

The file has mode 0600 and is replaced whole: a crash leaves the old one or the new one.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from billing_core.errors import ConfigurationError
from gateway.receipt import new_key


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """The demo tenant and its first customer, as the control plane named them."""

    tenant_id: str
    operator_token: str
    customer_id: str
    key: str
    feature: str


class Keyring(msgspec.Struct, frozen=True, kw_only=True):
    """What the processes of one data folder share."""

    root_token: str
    stripe_webhook_secret: str
    demo: Demo | None = None


def open_keyring(folder: Path, *, root_token: str = "") -> Keyring:
    """The folder's keyring, made when there is none; it holds the given root token, if one is given.

    Raises: ConfigurationError where the file is not what was written.
    """
    file = _file(folder)
    kept = _read(file) if file.exists() else None
    keyring = kept or Keyring(
        root_token=f"tgr_{secrets.token_urlsafe(24)}", stripe_webhook_secret=f"whsec_{secrets.token_hex(24)}"
    )
    if root_token:
        keyring = msgspec.structs.replace(keyring, root_token=root_token)
    if keyring != kept:
        save_keyring(folder, keyring)
    return keyring


def _read(file: Path) -> Keyring:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Keyring)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{file}: {error}") from None


def save_keyring(folder: Path, keyring: Keyring) -> None:
    """Replace the folder's keyring."""
    _replace(_file(folder), msgspec.json.format(msgspec.json.encode(keyring)) + b"\n")


def own_receipt_key(folder: Path) -> Path:
    """The file with the folder's key for decision receipts, made when there is none."""
    file = folder / "receipt-key.pem"
    if not file.exists():
        _replace(file, new_key())
    return file


def _replace(file: Path, content: bytes) -> None:
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())
    fresh.replace(file)


def _file(folder: Path) -> Path:
    return folder / "keyring.json"
