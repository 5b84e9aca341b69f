"""Raw sockets to a gateway: bytes as they are, cut as one likes.

wire    opens connections to the port of the settings; each sends, and reads answers or the end
served  starts servers there
check   a whole `POST /v1/check` as bytes
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from gateway.edge.server import Server
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import until


class Reply(msgspec.Struct, frozen=True):
    """An answer as it came."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def is_last(self) -> bool:
        return self.fields.get("connection") == "close"

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Each piece is a write of its own, and the other side's loop runs between them."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def reply(self) -> Reply:
        """The next answer."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rows = head.split("\r\n")[:-2]
            fields = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
            body = await self.reader.readexactly(int(fields["content-length"]))
        return Reply(int(line.split()[1]), fields, body)

    async def replies(self, count: int) -> list[Reply]:
        return [await self.reply() for _ in range(count)]

    async def end(self) -> bytes:
        """What still comes before the other side closes."""
        async with asyncio.timeout(20):
            return await self.reader.read()


def framed(path: str, body: object, *lines: str, method: str = "POST") -> bytes:
    """A request of one piece."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    fields = ["Host: a", "Content-Type: application/json", f"Content-Length: {len(raw)}", *lines]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode() + raw


@pytest.fixture
def check(world: Any) -> Callable[..., bytes]:
    def made(*lines: str, **more: object) -> bytes:
        return framed("/v1/check", {"key": world.key, "feature": "export"} | more, *lines)

    return made


@pytest.fixture
async def served(world: Any, settings: GatewaySettings) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Starts servers on the port of the settings, with other settings where they are told."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**told: Any) -> Server:
            worker = Worker(msgspec.structs.replace(settings, **told))
            server = Server(worker)
            await server.start()
            stack.push_async_callback(server.stop)
            await until(lambda: all(link.is_up for link in worker.links.values()))
            return server

        yield start


@pytest.fixture
async def wire(settings: GatewaySettings) -> AsyncIterator[Callable[[], Awaitable[Wire]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def opened() -> Wire:
            reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
            stack.callback(writer.close)
            return Wire(reader, writer)

        yield opened
