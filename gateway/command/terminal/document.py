"""Files that a person hands to a command: a catalog in TOML, events in JSON."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from billing_core.errors import InvalidInput

STDIN: Final = Path("-")


def read_bytes(path: Path) -> bytes:
    """The file's bytes; `-` is the standard input.

    Raises: InvalidInput where it cannot be read.
    """
    if path == STDIN:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", field=str(path)) from None


def read_toml(path: Path) -> dict[str, object]:
    """The file's TOML document.

    Raises: InvalidInput where it cannot be read or is none.
    """
    try:
        return tomllib.loads(read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"is not a TOML document: {error}", field=str(path)) from None


def read_events(path: Path) -> list[msgspec.Raw]:
    """The file's events: one JSON object, a JSON array, or one object a line.

    Raises: InvalidInput naming the line that is no JSON.
    """
    content = read_bytes(path).strip()
    if content.startswith(b"["):
        try:
            return msgspec.json.decode(content, type=list[msgspec.Raw])
        except msgspec.DecodeError as error:
            raise InvalidInput(f"is not a JSON array: {error}", field=str(path)) from None
    try:
        return [msgspec.Raw(bytes(msgspec.json.decode(content, type=msgspec.Raw)))]
    except msgspec.DecodeError:
        return [
            _event(line, f"{path}: line {number}") for number, line in enumerate(content.splitlines(), 1) if line
        ]


def _event(line: bytes, where: str) -> msgspec.Raw:
    try:
        return msgspec.Raw(bytes(msgspec.json.decode(line, type=msgspec.Raw)))
    except msgspec.DecodeError as error:
        raise InvalidInput(f"is not a JSON document: {error}", field=where) from None
