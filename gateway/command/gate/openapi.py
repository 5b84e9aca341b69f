"""OpenAPI documents, from which clients in other languages are made."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from gateway.command.client.answer import Answer
from gateway.command.client.door import Planes
from gateway.command.terminal.desk import Desk

_PATH = "/openapi.json"


class Side(StrEnum):
    """Whose document."""

    GATEWAY = "gateway"
    CONTROL = "control"


def show_openapi(
    desk: Desk, plane: Annotated[Side, typer.Argument(help="The data plane's document, or the control plane's.")]
) -> None:
    """Print the OpenAPI 3.1 document of a plane, as it serves it."""

    async def ask(planes: Planes) -> Answer[msgspec.Raw]:
        side = planes.gateway if plane is Side.GATEWAY else planes.control
        return await side.get(_PATH, msgspec.Raw)

    msgspec.structs.replace(desk, as_json=True).show(ask, lambda document: bytes(document).decode())
