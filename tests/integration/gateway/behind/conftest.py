"""Real proxies in front of a gateway, each with its file as shipped, and an upstream that does what the test says.

gateway    as elsewhere; `close_gateway` stops it under a proxy's feet, `stand_in` puts something else in its place
upstream   an API: `upstream.seen` is what came through, `upstream.answer` is what it does with the next request;
           `close_upstream` stops it
begin      starts a program: `await begin(Program(...))` gives a `Front` that is up, and ends with the test
books      the customer's wallet, and what was charged

What a program's test module needs is a fixture `front`, made with `begin`, and a class of `laws.Laws`:

    @pytest.fixture
    async def front(begin, upstream, settings, free_port) -> Front:
        listen = free_port()
        swaps = {"127.0.0.1:8888": f"127.0.0.1:{listen}", "127.0.0.1:8080": f"127.0.0.1:{settings.port}", ...}
        return await begin(Program(listen=listen, files={"proxies/nginx.conf": swaps}, words=lambda at: [...]))

    class TestNginx(Laws): ...

Each thing that is swapped has to stand in the shipped file. `words` is the command line: `at["proxies/nginx.conf"]`
is where the file lies with its swaps made, `at.folder` is the program's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest
from aiohttp import web

from billing_core.contract.shipped import shipped
from gateway.edge.server import Server
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import Call, until
from tests.integration.gateway.proxy.conftest import Books

pytest.register_assert_rewrite("tests.integration.gateway.behind.laws")

KEY = {"X-Api-Key": "tgk_caller"}


class Seen(msgspec.Struct, frozen=True):
    """A request as it came to the upstream."""

    method: str
    target: str
    headers: Any
    body: bytes


UNBUFFERED = {"X-Accel-Buffering": "no"}
"""What an API tells nginx that streams."""
LAST = b"last"

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(request: web.Request) -> web.Response:
    return web.Response(text="served")


class Upstream:
    """An API of the test's own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[Seen] = []
        self.answer: Answering = serve

    async def hear(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request.method, request.raw_path, request.headers, await request.read()))
        return await self.answer(request)

    def says(self, text: str = "served", *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer every request so."""

        async def answer(request: web.Request) -> web.Response:
            return web.Response(text=text, status=status, headers=headers)

        self.answer = answer

    def streams(self, *pieces: bytes, headers: Mapping[str, str] | None = None, dies: bool = False) -> Streaming:
        """Answer every request piece by piece; the last comes when `end` is set, and a death in its place."""
        made = Streaming(pieces, headers or {}, dies)
        self.answer = made.answer
        return made


class Streaming:
    """A response that is sent while the test looks on; its length is said beforehand."""

    def __init__(self, pieces: Sequence[bytes], headers: Mapping[str, str], dies: bool) -> None:
        self._pieces, self._headers, self._dies = pieces, headers, dies
        self.end = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=UNBUFFERED | dict(self._headers))
        response.content_length = sum(map(len, self._pieces)) + len(LAST)
        await response.prepare(request)
        for piece in self._pieces:
            await response.write(piece)
        await self.end.wait()
        if self._dies:
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write_eof(LAST)
        return response


class Places(dict[str, Path]):
    """Where a program's files lie, by their shipped names, and its folder."""

    folder: Path


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """How a proxy is started: shipped files with what is swapped in each, and the words of its command line."""

    listen: int
    files: Mapping[str, Mapping[str, str]]
    words: Callable[[Places], Sequence[str | Path]]
    environment: Mapping[str, str] = {}


class Front:
    """A proxy that runs."""

    def __init__(self, session: aiohttp.ClientSession, process: subprocess.Popen[bytes], *, port: int) -> None:
        self.session = session
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    async def __call__(
        self, path: str, headers: Mapping[str, str] = KEY, *, method: str = "GET", body: bytes | None = None
    ) -> tuple[int, Any, bytes]:
        async with self.session.request(
            method, self.url + path, headers=headers, data=body, allow_redirects=False
        ) as response:
            return response.status, response.headers, await response.read()

    @staticmethod
    def lines(port: int) -> int:
        """How many connections there are and lately were to a port."""
        ends = ((one.laddr, one.raddr) for one in psutil.net_connections("tcp4") if one.raddr)
        return len({frozenset(pair) for pair in ends if port in (pair[0].port, pair[1].port)})

    async def ask(self, path: str) -> asyncio.StreamWriter:
        """Ask, and do not listen."""
        return (await self._send(path))[1]

    async def hang_up(self, path: str, *, after: bytes) -> None:
        """Ask, read until something has come, and go."""
        reader, writer = await self._send(path)
        async with asyncio.timeout(60):
            await reader.readuntil(after)
        writer.transport.abort()

    async def _send(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        rows = [f"GET {path} HTTP/1.1", "Host: api.example", *(f"{name}: {value}" for name, value in KEY.items())]
        writer.write("\r\n".join([*rows, "", ""]).encode())
        return reader, writer


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    """The operator offers a way to pay."""
    return msgspec.structs.replace(settings, payment_offer_file=str(shipped("payment.toml")))


@pytest.fixture
async def running(world: Any, settings: GatewaySettings) -> AsyncIterator[tuple[Worker, Server]]:
    worker = Worker(settings)
    server = Server(worker)
    await server.start()
    await until(lambda: worker.listener.is_up and all(link.is_up for link in worker.links.values()))
    yield worker, server
    await server.stop()


@pytest.fixture
async def gateway(running: tuple[Worker, Server], settings: GatewaySettings) -> AsyncIterator[tuple[Worker, Call]]:
    async with aiohttp.ClientSession() as session:
        yield running[0], Call(f"http://127.0.0.1:{settings.port}", session)


@pytest.fixture
def close_gateway(running: tuple[Worker, Server]) -> Callable[[], Awaitable[None]]:
    return running[1].stop


@pytest.fixture
async def replace_gateway(
    settings: GatewaySettings, close_gateway: Callable[[], Awaitable[None]]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Another takes the port, and the one before leaves."""
    leave = [close_gateway]

    async def replace() -> None:
        server = Server(Worker(settings))
        await server.start()
        leave.append(server.stop)
        await leave.pop(0)()

    yield replace
    await leave.pop()()


@pytest.fixture
def patience_ms() -> int:
    """How long a proxy waits for the gateway, where that can be said."""
    return 20_000


@pytest.fixture
def ttl_ms() -> int:
    """For how long a hold lives that nobody ends, as the shipped files say."""
    return 600_000


@pytest.fixture
async def stand_in(
    close_gateway: Any, settings: GatewaySettings
) -> AsyncIterator[Callable[[bytes | None], Awaitable[list[bytes]]]]:
    """Takes the gateway's place: whoever asks is answered so, and nobody where that is None. It tells who asked."""
    async with contextlib.AsyncExitStack() as stack:

        async def take(answer: bytes | None) -> list[bytes]:
            asked: list[bytes] = []

            async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    asked.append(await reader.readuntil(b"\r\n\r\n"))
                    if answer is None:
                        await reader.read()
                    else:
                        writer.write(answer)
                writer.close()

            await close_gateway()
            server = await asyncio.start_server(hear, "127.0.0.1", settings.port)
            stack.callback(server.close)
            return asked

        yield take


@pytest.fixture
async def api(free_port: Callable[[], int]) -> AsyncIterator[tuple[Upstream, web.AppRunner]]:
    made = Upstream(free_port())
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", made.hear)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made, runner
    await runner.cleanup()


@pytest.fixture
def upstream(api: tuple[Upstream, web.AppRunner]) -> Upstream:
    return api[0]


@pytest.fixture
def close_upstream(api: tuple[Upstream, web.AppRunner]) -> Callable[[], Awaitable[None]]:
    return api[1].cleanup


def swapped(name: str, swaps: Mapping[str, str]) -> str:
    """A shipped file with its swaps made; each thing that is replaced stands there."""
    text = shipped(name).read_text("utf-8")
    for old, new in swaps.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


def laid_out(program: Program, folder: Path) -> Places:
    places = Places()
    places.folder = folder
    for name, swaps in program.files.items():
        places[name] = folder / Path(name).name
        places[name].write_text(swapped(name, swaps), "utf-8")
    return places


def run(program: Program, log: Path) -> subprocess.Popen[bytes]:
    words = program.words(laid_out(program, log.parent))
    around = os.environ | program.environment
    with log.open("wb") as told:
        return subprocess.Popen(words, stdout=told, stderr=subprocess.STDOUT, cwd=log.parent, env=around)


Begin = Callable[[Program], Awaitable[Front]]


@pytest.fixture
async def begin(gateway: Any, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Begin]:
    """Starts programs, waits until each refuses who has no key, and ends them; who does not start shows its log."""
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120), connector=aiohttp.TCPConnector(limit=0))
        )

        async def start(program: Program) -> Front:
            log = tmp_path / f"log-{program.listen}"
            process = run(program, log)
            stack.push_async_callback(asyncio.to_thread, end, process)
            stack.push_async_callback(session.close)  # before: who has a connection may be waited for
            front = Front(session, process, port=program.listen)
            async with asyncio.timeout(90):
                while not await is_up(front):
                    assert process.poll() is None, log.read_text("utf-8")
                    await asyncio.sleep(0.02)
            return front

        yield start


async def is_up(front: Front) -> bool:
    try:
        return (await front("/v1/x", {}))[0] == 401
    except aiohttp.ClientError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
async def books(world: Any, call: Any) -> Books:
    return Books(call, world)


@pytest.fixture
def open_elsewhere(
    settings: GatewaySettings, open_gateway: Any, free_port: Callable[[], int]
) -> Callable[[], Awaitable[Call]]:
    """A gateway that the proxy does not know."""

    async def opened() -> Call:
        return (await open_gateway(msgspec.structs.replace(settings, port=free_port())))[1]

    return opened
