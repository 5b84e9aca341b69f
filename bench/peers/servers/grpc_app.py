# pyright: basic, reportMissingImports=false
"""Envoy's rate limit service as its documentation would have it: grpc.aio, redis-py, one script call per request.

Its libraries stand in an environment of their own.

    python grpc_app.py CALL_FILE PORT
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import sys
import time
from pathlib import Path
from typing import cast

import grpc
import redis.asyncio
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc


class Service(rls_pb2_grpc.RateLimitServiceServicer):
    """Decides by the first descriptor."""

    def __init__(self, call: dict) -> None:
        self._call = call
        self._client = redis.asyncio.Redis(host=call["host"], port=call["port"])
        self._ends = {
            key: [base64.b64decode(end) for end in caller["body"]] for key, caller in call["callers"].items()
        }
        self._made, self._numbers = f"dec_{int(time.monotonic()):08x}", itertools.count()

    async def ShouldRateLimit(  # noqa: N802 - the name is the protocol's
        self, request: rls_pb2.RateLimitRequest, context: grpc.aio.ServicerContext
    ) -> rls_pb2.RateLimitResponse:
        told = {entry.key: entry.value for entry in request.descriptors[0].entries}
        head, tail = self._ends[told["key"]]
        put = {
            "@body": head + f"{self._made}{next(self._numbers):024x}".encode() + tail,
            "@feature": told["feature"],
            "@quantity": request.hits_addend or 1,
        }
        words = [put.get(word, word) for word in self._call["callers"][told["key"]]["words"]]
        reply = cast("bytes", await self._client.execute_command(*words))
        is_allowed = b"allowed" in reply
        code = rls_pb2.RateLimitResponse.OK if is_allowed else rls_pb2.RateLimitResponse.OVER_LIMIT
        status = rls_pb2.RateLimitResponse.DescriptorStatus(code=code)
        return rls_pb2.RateLimitResponse(overall_code=code, statuses=[status])


async def serve(call: dict, port: int) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(Service(call), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_bytes()), int(sys.argv[2])))
