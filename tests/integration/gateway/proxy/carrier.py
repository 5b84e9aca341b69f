"""Both ends of a proxy in memory: what is sent is kept, and what comes, or does not, is said byte by byte.

Wire is all that is missing: requests are decided and settled by a real gateway and a real Valkey.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.edge.proxy.connection import ClientConnection
from gateway.edge.upstream.connection import UpstreamConnection
from gateway.edge.upstream.pool import Endpoint
from gateway.edge.worker import Worker


class Carrier(asyncio.Transport):
    """One end: `says` what the peer says, `vanish` where it goes without a word."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._is_closing = False
        self.written = b""
        protocol.connection_made(self)

    def says(self, *pieces: bytes) -> None:
        for piece in pieces:
            if piece and not self._is_closing:
                self._protocol.data_received(piece)

    def ends(self) -> None:
        """The peer closes its side."""
        if not self._is_closing and not self._protocol.eof_received():
            self.close()

    def vanish(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._protocol.connection_lost(ConnectionResetError("gone"))

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Stage:
    """A proxy whose clients and upstream connections are carriers."""

    def __init__(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        assert worker.proxy is not None
        self.proxy = worker.proxy
        self.upstreams: list[Carrier] = []

        async def connect(endpoint: Endpoint) -> UpstreamConnection:
            connection = UpstreamConnection(endpoint)
            endpoint.connections.add(connection)
            self.upstreams.append(Carrier(connection))
            return connection

        monkeypatch.setattr(Endpoint, "connect", connect)

    def client(self, *pieces: bytes) -> Carrier:
        """One that has said so much."""
        carrier = Carrier(ClientConnection(self.proxy))
        carrier.says(*pieces)
        return carrier

    async def meet(self, *pieces: bytes, until: bytes = b"\r\n\r\n") -> tuple[Carrier, Carrier]:
        """A client that has said so much, and the upstream once it has heard of it. One at a time."""
        for upstream in self.upstreams:
            upstream.vanish()  # what is idle is used again, and no carrier of the test's
        before = len(self.upstreams)
        client = self.client(*pieces)
        async with asyncio.timeout(20):
            while len(self.upstreams) == before or until not in self.upstreams[before].written:  # noqa: ASYNC110
                await asyncio.sleep(0)
        return client, self.upstreams[before]

    async def over(self) -> None:
        """Wait until all has ended and is settled."""
        async with asyncio.timeout(30):
            while self.proxy.exchanges:  # noqa: ASYNC110 - what is waited for is Redis
                await asyncio.sleep(0.001)


def decision_of(upstream: Carrier) -> str:
    """By which the upstream was asked."""
    return upstream.written.partition(b"X-Tallygate-Decision: ")[2].partition(b"\r\n")[0].decode()


def chunks_in(raw: bytes) -> tuple[bytes, bool]:
    """What stands in chunks, as far as they are whole; and whether the end was reached."""
    body = b""
    while raw:
        size, line, raw = raw.partition(b"\r\n")
        if not line:
            return body, False
        if not int(size, 16):
            return body, raw == b"\r\n"
        body, raw = body + raw[: int(size, 16)], raw[int(size, 16) + 2 :]
    return body, False
