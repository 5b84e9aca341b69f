"""Both clients on a real gateway, and ways in which it can be away.

door       both clients behind one face: `door.check(...)` is awaited whichever it is
hole       a relay to the gateway that swallows the first answers
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.sdk.blocking import Tallygate
from gateway.sdk.client import AsyncTallygate

PATIENT = {"on_outage": "refuse", "deadline_ms": 60_000, "attempt_ms": 30_000}


class Door:
    """A client whose methods are awaited; the blocking one runs in threads."""

    def __init__(self, client: AsyncTallygate | Tallygate) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)
        if isinstance(self.client, AsyncTallygate):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call

    async def within(self, asked: dict[str, Any], work: Callable[[Any], Any]) -> Any:
        """The hold of a block in which work is done."""
        if isinstance(self.client, AsyncTallygate):
            async with self.client.hold(**asked) as hold:
                result = work(hold)
                if asyncio.iscoroutine(result):
                    await result
            return hold

        def block() -> Any:
            with self.client.hold(**asked) as hold:
                work(hold)
            return hold

        return await asyncio.to_thread(block)


@pytest.fixture(params=["async", "blocking"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def make_door(kind: str) -> AsyncIterator[Callable[..., Door]]:
    """Makes clients of one kind, and closes them."""
    made: list[Door] = []

    def make(url: str, **more: Any) -> Door:
        terms = PATIENT | more
        made.append(Door(AsyncTallygate(url, **terms) if kind == "async" else Tallygate(url, **terms)))
        return made[-1]

    yield make
    for door in made:
        await door.close()


@pytest.fixture
def door(call: Any, world: Any, make_door: Callable[..., Door]) -> Door:
    return make_door(call.url, token=world.token)


class Hole:
    """A relay that forwards requests whole and lets answers vanish, `swallows` of them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.swallows = 0
        self.swallowed = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while data := await reader.read(65_536):
                back.write(data)
                answer = await there.read(65_536)
                if self.swallowed < self.swallows:
                    self.swallowed += 1
                    break
                writer.write(answer)
                await writer.drain()
        finally:
            back.close()
            writer.close()


@pytest.fixture
async def hole(call: Any, settings: Any) -> AsyncIterator[Hole]:
    made = Hole(settings.port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
