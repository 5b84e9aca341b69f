# pyright: basic, reportMissingImports=false
"""A rate limit as an application has it: Starlette and `limits`, a fixed window counted in Redis.

Its libraries stand in the peers' own environment.

    python starlette_app.py REDIS_URL PORT
"""

from __future__ import annotations

import json
import sys

import uvicorn
from limits import RateLimitItemPerDay
from limits.aio.strategies import FixedWindowRateLimiter
from limits.storage import storage_from_string
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def make_app(url: str) -> Starlette:
    """One route, one hit."""
    limiter = FixedWindowRateLimiter(storage_from_string(f"async+{url}", implementation="redispy"))
    day = RateLimitItemPerDay(10**12)

    async def check(request: Request) -> JSONResponse:
        ask = json.loads(await request.body())
        is_allowed = await limiter.hit(day, ask["key"], ask["feature"], cost=ask.get("quantity", 1))
        return JSONResponse({"allowed": is_allowed})

    return Starlette(routes=[Route("/v1/check", check, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
