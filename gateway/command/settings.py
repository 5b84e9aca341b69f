"""What `tallygate up` can be told. Each key is documented in `config/tallygate.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Positive = Annotated[int, msgspec.Meta(gt=0)]


class UpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `[up]`: the supervisor, its embedded servers and its demo."""

    data_dir: str = ""
    gateway_workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    redis_url: str = ""
    postgres_url: str = ""
    appendfsync: Literal["always", "everysec"] = "always"
    valkey_binary: str = ""
    postgres_programs: str = ""
    stripe_port: Port = 8095
    demo: bool = True
    demo_catalog: str = "language_model"
    ready_timeout_ms: Positive = 30_000


def data_folder(settings: UpSettings, environ: Mapping[str, str]) -> Path:
    """The folder that holds everything: as told, else `.tallygate` here, else the user's own place for data.

    Source: XDG Base Directory Specification.
    """
    if settings.data_dir:
        return Path(settings.data_dir).expanduser().absolute()
    here = Path(".tallygate").absolute()
    if here.is_dir():
        return here
    shared = environ.get("XDG_DATA_HOME")
    return (Path(shared) if shared else Path.home() / ".local" / "share").absolute() / "tallygate"
