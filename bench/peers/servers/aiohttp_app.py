"""The gateway that a good engineer writes in an afternoon: aiohttp, redis-py, one script call per request.

python -m bench.peers.servers.aiohttp_app CALL_FILE PORT
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import sys
import time
from pathlib import Path
from typing import Any, cast

import msgspec
import redis.asyncio
import uvloop
from aiohttp import web


class Ask(msgspec.Struct):
    """The part of `/v1/check` that the peer reads."""

    key: str
    feature: str
    quantity: int = 1


class Caller(msgspec.Struct):
    """Words of a call, and the two ends of its entry's body."""

    words: list[str]
    body: list[str]


class Call(msgspec.Struct):
    """What the bench wrote for all peers."""

    host: str
    port: int
    callers: dict[str, Caller]


_ASK = msgspec.json.Decoder(Ask)


def make_app(call: Call) -> web.Application:
    """One route, one script call."""
    client = redis.asyncio.Redis(host=call.host, port=call.port)
    ends = {key: [base64.b64decode(end) for end in caller.body] for key, caller in call.callers.items()}
    made, numbers = f"dec_{int(time.monotonic()):08x}", itertools.count()

    async def check(request: web.Request) -> web.Response:
        ask = _ASK.decode(await request.read())
        head, tail = ends[ask.key]
        put: dict[str, Any] = {
            "@body": head + f"{made}{next(numbers):024x}".encode() + tail,
            "@feature": ask.feature,
            "@quantity": ask.quantity,
        }
        words = [put.get(word, word) for word in call.callers[ask.key].words]
        reply = cast("bytes", await client.execute_command(*words))
        said = {"allowed": b"allowed" in reply}
        return web.Response(body=msgspec.json.encode(said), content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/check", check)
    return app


async def serve(call: Call, port: int) -> None:
    """Serve until the process is ended."""
    runner = web.AppRunner(make_app(call), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Call), int(sys.argv[2])))
