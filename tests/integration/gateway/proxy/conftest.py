"""A reverse proxy before an upstream that says what the test tells it, and raw sockets to both.

origin    a server of the test's own: it keeps what it was sent, and answers by a function of the test's
proxied   starts a gateway whose proxy has the routes of the test
line      opens connections to the proxy's port
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.edge.server import Server
from gateway.edge.straight.ask import Asks
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import until
from tests.integration.gateway.lane.conftest import Reply, Wire


class Asked(msgspec.Struct):
    """A request as it came to the origin."""

    head: str
    body: bytes

    @property
    def line(self) -> str:
        return self.head.split("\r\n")[0]

    @property
    def fields(self) -> dict[str, str]:
        rows = self.head.split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows if row)}


Answering = Callable[[Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def say_hello(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")


class Origin:
    """The upstream."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Answering = say_hello
        self.reads_body = True
        self.connections = 0
        self.lost = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                asked = Asked(head, b"")
                asked.body = await body_of(asked, reader) if self.reads_body else b""
                self.asked.append(asked)
                await self.answer(asked, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost += 1
        finally:
            writer.close()

    def says(self, *pieces: bytes, closes: bool = False) -> None:
        """Answer every request so, each piece in a write of its own."""

        async def answer(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if closes:
                writer.close()

        self.answer = answer


async def body_of(asked: Asked, reader: asyncio.StreamReader) -> bytes:
    if asked.fields.get("transfer-encoding") == "chunked":
        return await chunks_of(reader)
    return await reader.readexactly(int(asked.fields.get("content-length", "0")))


async def chunks_of(reader: asyncio.StreamReader) -> bytes:
    """Chunks, word for word put together; trailers stand behind a `|`."""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    trailers = b""
    while (row := await reader.readuntil(b"\r\n")) != b"\r\n":
        trailers += b"|" + row[:-2]
    return body + trailers


class Line(Wire):
    """A connection to the proxy."""

    async def get(self, path: str, *rows: str, method: str = "GET", body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: api.example", *rows, "", ""]
        await self.send("\r\n".join(lines).encode("latin-1") + body)

    async def head(self) -> tuple[int, dict[str, str]]:
        """The next head."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rows = head.split("\r\n")[:-2]
        return int(line.split()[1]), {
            name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)
        }

    async def response(self, *, is_head: bool = False) -> Reply:
        """The next answer, however it is framed."""
        status, fields = await self.head()
        async with asyncio.timeout(20):
            if is_head or status in (204, 304):
                body = b""
            elif fields.get("transfer-encoding") == "chunked":
                body = await chunks_of(self.reader)
            elif "content-length" in fields:
                body = await self.reader.readexactly(int(fields["content-length"]))
            else:
                body = await self.reader.read()
        return Reply(status, fields, body)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """It closes with the test, and whoever speaks to it learns that."""
    made = Origin()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    yield made
    server.close()
    for writer in made.writers:
        writer.close()


Routes = dict[str, Any]


def in_toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(
                f"{msgspec.json.encode(str(name)).decode()} = {in_toml(one)}" for name, one in value.items()
            )
            + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(in_toml(one) for one in value) + "]"
    return msgspec.json.encode(value).decode()


def routes_text(routes: list[Routes], upstreams: dict[str, Any]) -> str:
    return f"upstreams = {in_toml(upstreams)}\nroutes = {in_toml(routes)}\n"


Proxied = Callable[..., Awaitable[Worker]]


@pytest.fixture
def way() -> str:
    """`straight` from the first request on, or `long`, as first requests go; who is to be the same overrides it."""
    return "long"


@pytest.fixture
async def proxied(
    world: Any,
    settings: GatewaySettings,
    origin: Any,
    free_port: Callable[[], int],
    tmp_path: Path,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Proxied]:
    """Starts a gateway; routes take all requests unless they say which, and go to the origin."""
    if way == "straight":
        monkeypatch.setattr(Asks, "meet", lambda _, __, read: read())
    async with contextlib.AsyncExitStack() as stack:

        async def start(*routes: Routes, upstream: Routes | None = None, **told: Any) -> Worker:
            file = tmp_path / "routes.toml"
            servers = {"endpoints": [{"url": f"http://127.0.0.1:{origin.port}"}]} | (upstream or {})
            named = [
                {"name": f"r{place}", "path": "/{rest...}", "upstream": "origin"} | one
                for place, one in enumerate(routes)
            ]
            file.write_text(routes_text(named, {"origin": servers}))
            proxy = {"proxy_port": free_port(), "proxy_routes_file": str(file)}
            worker = Worker(msgspec.structs.replace(settings, **proxy | told))
            server = Server(worker)
            await server.start()
            stack.push_async_callback(server.stop)
            await until(lambda: all(link.is_up for link in worker.links.values()) and worker.listener.is_up)
            origin.proxy_port = worker.settings.proxy_port
            if way == "straight":
                await worker.directory.credential(world.key)
            return worker

        yield start


@pytest.fixture
async def line(origin: Any) -> AsyncIterator[Callable[[], Awaitable[Line]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def opened() -> Line:
            reader, writer = await asyncio.open_connection("127.0.0.1", origin.proxy_port)
            stack.callback(writer.close)
            return Line(reader, writer)

        yield opened


TOKENS = {"feature": "tokens", "quantity": {"units": 1}}
"""A hundred nanos each."""


class Books:
    """The customer's wallet as it stands, and what was charged."""

    def __init__(self, call: Any, world: Any) -> None:
        self._call, self._world = call, world

    async def wallet(self) -> tuple[int, int]:
        """What may be spent, and what is held."""
        _, body, _ = await self._call.get("/v1/customers/acme/wallets", token=self._world.token)
        return body["wallets"][0]["balance_nanos"], body["wallets"][0]["held_nanos"]

    async def settled(self, balance_nanos: int) -> None:
        """Wait until nothing is held, and see that so much is left."""
        async with asyncio.timeout(20):
            while (await self.wallet())[1]:  # noqa: ASYNC110 - the wallet is in Redis, and tells nobody
                await asyncio.sleep(0.001)
        assert (await self.wallet())[0] == balance_nanos

    async def units(self) -> dict[str, int]:
        """Of each feature, all that was charged."""
        sums: dict[str, int] = {}
        for entry in await self._world.entries():
            for one in entry.charges:
                sums[one.feature] = sums.get(one.feature, 0) + one.quantity
        return sums

    async def evidence(self) -> list[dict[str, str]]:
        """What usage events tell of responses that did not come to their end."""
        return [entry.body.properties for entry in await self._world.entries() if entry.body.properties]


@pytest.fixture
async def books(world: Any, call: Any) -> Books:
    return Books(call, world)
