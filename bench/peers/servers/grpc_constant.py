# pyright: basic, reportMissingImports=false
"""grpc.aio that says the same to whoever asks: what its own way costs, without any work behind it.

python grpc_constant.py ANSWER_HEX PORT
"""

from __future__ import annotations

import asyncio
import sys

import grpc
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc


class Service(rls_pb2_grpc.RateLimitServiceServicer):
    """Reads the request as a service must, and gives the answer that it was told."""

    def __init__(self, answer: rls_pb2.RateLimitResponse) -> None:
        self._answer = answer

    async def ShouldRateLimit(  # noqa: N802 - the name is the protocol's
        self, request: rls_pb2.RateLimitRequest, context: grpc.aio.ServicerContext
    ) -> rls_pb2.RateLimitResponse:
        return self._answer


async def serve(answer: rls_pb2.RateLimitResponse, port: int) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(Service(answer), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(rls_pb2.RateLimitResponse.FromString(bytes.fromhex(sys.argv[1])), int(sys.argv[2])))
