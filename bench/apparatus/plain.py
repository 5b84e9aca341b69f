"""The peer: the gateway that a good engineer writes in an afternoon.

An aiohttp application that runs the very same decision script with redis-py, one round trip per request, behind
the same route. It resolves no key, keeps no cache and has no deadline: what everybody would begin with.

    python -m bench.apparatus.plain REDIS_URL PORT
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import redis.asyncio
import uvloop
from aiohttp import web

from billing_core.contract.keys import customer_keys
from billing_core.contract.usage_event import EventBody, encode_body
from lua.loader import LIBRARY, SCRIPTS

_SCRIPT = SCRIPTS["consume"]


class Ask(msgspec.Struct):
    """The part of `/v1/check` that the peer reads."""

    key: str
    feature: str
    quantity: int = 1


_ASK = msgspec.json.Decoder(Ask)


def make_app(url: str) -> web.Application:
    """One route, one script call."""
    client = redis.asyncio.Redis.from_url(url)
    keys = customer_keys("bench", "customer")
    names = (keys.epoch, keys.snapshot, keys.counters, keys.wallet, keys.stream, keys.holds, keys.shard_holds, "-")
    numbers = iter(range(10**12))

    async def check(request: web.Request) -> web.Response:
        ask = _ASK.decode(await request.read())
        body = EventBody(
            event_id=f"dec_{next(numbers)}", tenant_id="bench", customer_id="customer", features=(ask.feature,)
        )
        reply = await client.fcall(
            _SCRIPT.function,
            len(names),
            *names,
            "",
            "0",
            "0",
            encode_body(body),
            "",
            "0",
            "0",
            "1",
            ask.feature,
            str(ask.quantity),
        )
        return web.json_response({"allowed": msgspec.msgpack.decode(reply)[0] == "allowed"})

    async def warm(_: web.Application) -> None:
        await client.function_load(LIBRARY.text, replace=True)

    app = web.Application()
    app.router.add_post("/v1/check", check)
    app.on_startup.append(warm)
    return app


async def serve(url: str, port: int) -> None:
    """Serve until the process is ended."""
    runner = web.AppRunner(make_app(url), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
