"""Settings: one TOML file, one section per process, every key known.

A process reads its own section of the file and lets the environment override single keys:
`TALLYGATE_GATEWAY_PORT=8081` beats `port = 8080` under `[gateway]`. What a section does not know is refused, so
that a misspelt key never passes in silence. All faults are ConfigurationError with one line: file, key, rule.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from billing_core.errors import ConfigurationError

PREFIX = "TALLYGATE"
SECTIONS = frozenset({"up", "gateway", "billing"})

Settings = TypeVar("Settings", bound=msgspec.Struct)


def load(section: str, kind: type[Settings], *, file: Path | None, environ: Mapping[str, str]) -> Settings:
    """The section's settings: defaults, then the file, then the environment.

    Raises: ConfigurationError, one line, where a key is unknown or a value breaks its rule.
    """
    values = dict(_section_of(file, section)) if file else {}
    known = {field.name for field in msgspec.structs.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigurationError(f"{file}: [{section}] {unknown[0]}: unknown key", field=unknown[0])
    origin = {name: f"{file}: [{section}] {name}" for name in values}
    for name in known:
        variable = f"{PREFIX}_{section}_{name}".upper()
        if variable in environ:
            values[name], origin[name] = environ[variable], f"environment: {variable}"
    for name, value in values.items():
        _check_one(kind, name, value=value, origin=origin[name])
    return msgspec.convert(values, kind, strict=False)


def environment_of(section: str, settings: msgspec.Struct) -> dict[str, str]:
    """The settings as environment variables, for handing them to a child process."""
    values: dict[str, object] = msgspec.to_builtins(settings)
    return {f"{PREFIX}_{section}_{name}".upper(): _as_text(value) for name, value in values.items()}


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _section_of(file: Path, section: str) -> dict[str, object]:
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: not a TOML document: {error}") from None
    strangers = sorted(set(document) - SECTIONS)
    if strangers:
        raise ConfigurationError(f"{file}: [{strangers[0]}]: unknown section", field=strangers[0])
    values = document.get(section, {})
    try:
        return msgspec.convert(values, dict[str, object])
    except msgspec.ValidationError:
        raise ConfigurationError(f"{file}: [{section}]: must be a table", field=section) from None


def _check_one(kind: type[msgspec.Struct], name: str, *, value: object, origin: str) -> None:
    """Convert one key alone, so that the message can name it and where it came from."""
    field = next(field for field in msgspec.structs.fields(kind) if field.name == name)
    try:
        msgspec.convert(value, field.type, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{origin}: {error}", field=name) from None
