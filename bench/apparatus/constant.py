"""Our own gRPC responder that says the same to whoever asks: what its own way costs, without any work behind it.

It reads the request, as a service must, and writes the answer that it was told.

    python -m bench.apparatus.constant ANSWER_HEX PORT
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import uvloop

from bench.peers.call import RATE_LIMIT
from gateway.edge.envoy.ask import rate_limit_of
from gateway.edge.grpc.call import Call
from gateway.edge.grpc.connection import Bounds
from gateway.edge.grpc.listener import Listener


async def serve(answer: bytes, port: int) -> None:
    """Serve until the process is ended."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", port))

    def tell(call: Call) -> None:
        rate_limit_of(call.message)
        call.answer(answer)

    listener = Listener(
        {RATE_LIMIT: tell}, sinks={}, bounds=Bounds(), since_s=lambda _: time.perf_counter(), patience_s=60
    )
    await listener.start(listening, backlog=128)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(bytes.fromhex(sys.argv[1]), int(sys.argv[2])))
