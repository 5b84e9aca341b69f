"""Where a running `tallygate up` listens, told through its data folder.

The supervisor writes the file when everything is ready. A command that is told nothing else reads it, so that on
the machine where everything runs no address and no token has to be typed. The file holds no secret.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from billing_core.errors import ConfigurationError


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of both planes; the defaults are those of the shipped settings."""

    control_url: str = "http://127.0.0.1:8090"
    gateway_url: str = "http://127.0.0.1:8080"


def publish_addresses(folder: Path, addresses: Addresses) -> None:
    """Tell whoever looks into the data folder; the file is replaced whole."""
    fresh = _file(folder).with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(addresses)) + b"\n")
    fresh.replace(_file(folder))


def published_addresses(folder: Path) -> Addresses:
    """What was told last, or the defaults.

    Raises: ConfigurationError where the file is not what was written.
    """
    file = _file(folder)
    if not file.exists():
        return Addresses()
    try:
        return msgspec.json.decode(file.read_bytes(), type=Addresses)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{file}: {error}") from None


def _file(folder: Path) -> Path:
    return folder / "addresses.json"
