"""The page for beginners, run as it stands: each program of it, against a real gateway."""

from __future__ import annotations

import asyncio
import re
import threading
import wsgiref.simple_server
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import gateway.sdk
from gateway.sdk.refusal import Refused

PAGE = Path(gateway.sdk.__file__).with_name("README.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"(?ms)^## (.+?)\n.*?^```python\n(.*?)^```", PAGE))
ASGI, WSGI, AIOHTTP, FUNCTION, EVENTS = PROGRAMS

NANOS = 100


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


class Threaded(ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """wsgiref's server, a thread for each request."""

    daemon_threads = True
    request_queue_size = 128


@pytest.fixture
async def run(call: Any, world: Any, tmp_path: Path) -> Any:
    """Runs a program of the page; only where the gateway is, and who asks, is put in."""
    await world.project(features={**world.features, "api.calls": world.priced_in("USD")})
    await world.grant(10 * NANOS)
    made: list[dict[str, Any]] = []

    def begin(title: str) -> dict[str, Any]:
        text = PROGRAMS[title].replace("http://127.0.0.1:8080", call.url)
        text = text.replace("tgo_…", world.token).replace("/var/lib/app/tallygate", str(tmp_path))
        names: dict[str, Any] = {}
        exec(compile(text, title, "exec"), names)
        made.append(names)
        return names

    yield begin
    for names in made:
        closed = names["tallygate"].close()
        if closed is not None:
            await closed


async def statuses(ask: Callable[[], Awaitable[int]]) -> Counter[int]:
    return Counter(await asyncio.gather(*(ask() for _ in range(100))))


async def get(session: aiohttp.ClientSession, url: str, key: str) -> int:
    async with session.get(url, headers={"Authorization": f"Bearer {key}"}) as reply:
        body = await reply.read()
    assert (reply.status == 200) == (body == b"hello")
    return reply.status


def test_the_page_has_just_these_programs() -> None:
    """None that no test runs, and ten lines each, or little more."""
    assert len(PROGRAMS) == PAGE.count("```python") == 5
    assert max(len(program.split("\n")) - program.count("\n\n") for program in PROGRAMS.values()) <= 12


async def test_asgi_admits_exactly_ten_of_a_hundred(run: Any, world: Any) -> None:
    """The application is called as a server would call it."""
    app = run(ASGI)["app"]

    async def ask() -> int:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        headers = [(b"authorization", f"Bearer {world.key}".encode())]
        await app({"type": "http", "method": "GET", "path": "/", "headers": headers}, receive, send)
        return sent[0]["status"]

    assert await statuses(ask) == {200: 10, 402: 90}


async def test_wsgi_admits_exactly_ten_of_a_hundred(run: Any, world: Any) -> None:
    """Behind the standard library's server, with a thread for each request."""
    app = run(WSGI)["app"]
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, Threaded, Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        connector = aiohttp.TCPConnector(limit=100, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://127.0.0.1:{server.server_port}/"
            assert await statuses(lambda: get(session, url, world.key)) == {200: 10, 402: 90}
    finally:
        await asyncio.to_thread(server.shutdown)
        thread.join()
        server.server_close()


async def test_aiohttp_admits_exactly_ten_of_a_hundred(run: Any, world: Any) -> None:
    """Over sockets."""
    runner = web.AppRunner(run(AIOHTTP)["app"])
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session:
        url = "http://{}:{}/".format(*runner.addresses[0])
        assert await statuses(lambda: get(session, url, world.key)) == {200: 10, 402: 90}
    await runner.cleanup()


async def test_a_function_is_called_by_exactly_ten_of_a_hundred(run: Any, world: Any, call: Any) -> None:
    """What it holds is a hundred, so one at a time; what it uses is what is charged."""
    summarize = run(FUNCTION)["summarize"]
    await world.grant(10_000 * NANOS, grant_id="g2")

    def ask(_: int) -> int:
        try:
            return len(summarize(world.key, "a text of some length"))
        except Refused as refused:
            return refused.status

    with ThreadPoolExecutor(100) as pool:
        told = Counter(await asyncio.gather(*(asyncio.wrap_future(pool.submit(ask, n)) for n in range(100))))
    assert told == {10: 100}
    _, body, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    assert body["wallets"][0]["balance_nanos"] == (10_010 - 100 * 10) * NANOS


async def test_what_happened_elsewhere_arrives(run: Any, world: Any) -> None:
    """The program's end is the end of its delivery."""
    await asyncio.to_thread(run, EVENTS)
    (entry,) = await world.entries()
    assert (entry.body.name, entry.body.properties) == ("llm", {"input": "374", "cost": "2"})
