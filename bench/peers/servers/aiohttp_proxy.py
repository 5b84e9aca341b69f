"""The proxy that a good engineer writes in an afternoon: aiohttp on both sides, redis-py, one script call each.

python -m bench.peers.servers.aiohttp_proxy CALL_FILE PORT UPSTREAM_PORT
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import sys
import time
from pathlib import Path
from typing import Any, cast

import aiohttp
import msgspec
import redis.asyncio
import uvloop
from aiohttp import web

from bench.peers.servers.aiohttp_app import Call

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "authorization", "host"})


def make_app(call: Call, session: aiohttp.ClientSession, *, upstream: str) -> web.Application:
    """Every path, one script call, then the upstream."""
    client = redis.asyncio.Redis(host=call.host, port=call.port)
    ends = {key: [base64.b64decode(end) for end in caller.body] for key, caller in call.callers.items()}
    made, numbers = f"dec_{int(time.monotonic()):08x}", itertools.count()

    async def is_allowed(key: str) -> bool:
        head, tail = ends[key]
        body = head + f"{made}{next(numbers):024x}".encode() + tail
        put: dict[str, Any] = {"@body": body, "@feature": "calls", "@quantity": 1}
        words = [put.get(word, word) for word in call.callers[key].words]
        return b"allowed" in cast("bytes", await client.execute_command(*words))

    async def proxy(request: web.Request) -> web.StreamResponse:
        if not await is_allowed(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            return web.Response(status=402)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        data = request.content if request.body_exists else None
        async with session.request(
            request.method, upstream + request.raw_path, headers=headers, data=data
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", proxy)
    return app


async def serve(call: Call, port: int, *, upstream: str) -> None:
    """Serve until the process is ended."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        runner = web.AppRunner(make_app(call, session, upstream=upstream), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    told = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Call)
    uvloop.run(serve(told, int(sys.argv[2]), upstream=f"http://127.0.0.1:{sys.argv[3]}"))
