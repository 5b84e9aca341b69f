"""The port: sockets, each with a connection behind it, and their end.

What a read brings is answered in one write, and so is whatever is answered later within one turn of the loop. Who
does not read its answers is not read from. Who connects and says nothing, begins a call and never ends it, or never
reads, is closed after `patience_s`.

To stop is to say GOAWAY: a peer opens its next streams elsewhere, and what it had opened is answered. So a process
can be replaced without a call that fails.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final, cast

from gateway.edge.grpc.call import Methods
from gateway.edge.grpc.connection import Bounds, Connection
from gateway.edge.grpc.frame import Code
from gateway.edge.grpc.stream import Sinks
from gateway.edge.lane.entrance import Entrance

SinceS = Callable[[asyncio.BaseTransport | None], float]
"""Since when what was just read from a socket waits."""

_MAX_UNREAD_BYTES: Final = 2**18
_MAX_CARRIERS: Final = 4_096
_LOOK_S: Final = 1.0
_GOODBYE_S: Final = 0.5


class Carrier(asyncio.Protocol):
    """One socket."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_due = False
        self._since_s = time.perf_counter()
        self._choked_s: float | None = None
        self.connection = Connection(
            listener.methods,
            listener.bounds,
            sinks=listener.sinks,
            since_s=self._came_s,
            wake=self._send_soon,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_MAX_UNREAD_BYTES)
        if not self._listener.admit(self):
            self._transport.abort()
            return
        self._send()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._is_due = True
        self.connection.feed(data)
        self._send()

    def pause_writing(self) -> None:
        """Called by the loop: the peer does not read."""
        self._choked_s = time.perf_counter()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._choked_s = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop says it
        """Called by the loop."""
        self._transport = None
        self.connection.lose()
        self._listener.forget(self)

    def leave(self) -> None:
        """Say that no more is taken here."""
        self.connection.leave()
        self._send()

    def end(self, code: Code, detail: str) -> None:
        """Close, whatever is under way."""
        if not self.connection.is_over:
            self.connection.end(code, detail)
            self._send()
        else:
            self._abort()

    def look(self, now_s: float, patience_s: float) -> None:
        """Close where the peer is waited for too long: to greet, to go on, or to read."""
        since_s = self.connection.oldest_s() if self.connection.is_greeted else self._since_s
        if self.connection.is_over and self._choked_s is None:
            self._choked_s = now_s  # the last words are on their way
        if _is_past(self._choked_s, now_s - patience_s):
            self._abort()
        elif _is_past(since_s, now_s - patience_s):
            self.end(Code.ENHANCE_YOUR_CALM, "nothing more has come")

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _came_s(self) -> float:
        return self._listener.since_s(self._transport)

    def _send_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._is_due = False
        if self._transport is None:
            return
        unsent = self.connection.take_unsent()
        if unsent:
            self._transport.write(unsent)
        if self.connection.is_over:
            self._transport.close()


def _is_past(since_s: float | None, limit_s: float) -> bool:
    return since_s is not None and since_s < limit_s


class Listener:
    """Serves `methods` and `sinks` on a socket: `start` once, `stop` once."""

    def __init__(
        self, methods: Methods, *, sinks: Sinks, bounds: Bounds, since_s: SinceS, patience_s: float
    ) -> None:
        self.methods = methods
        self.sinks = sinks
        self.bounds = bounds
        self.since_s = since_s
        self._patience_s = patience_s
        self._carriers: set[Carrier] = set()
        self._entrance: Entrance | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()

    async def start(self, listening: socket.socket, *, backlog: int) -> None:
        """Take connections from a bound socket."""
        self._entrance = Entrance(listening, lambda: Carrier(self))
        await self._entrance.open(backlog=backlog)
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self, grace_s: float) -> None:
        """Take no more; let what is under way end within the grace. Who says nothing has a moment."""
        if self._entrance is None or self._keeper is None:
            return
        self._keeper.cancel()
        await self._entrance.close()
        self._empty.clear()
        for carrier in list(self._carriers):
            carrier.leave()
        self._tell_empty()
        if await self._is_empty_within(min(_GOODBYE_S, grace_s)):
            return
        for carrier in list(self._carriers):
            if not carrier.connection.is_greeted:
                carrier.end(Code.NO_ERROR, "the process ends")
        if not await self._is_empty_within(grace_s - _GOODBYE_S):
            for carrier in list(self._carriers):
                carrier.end(Code.NO_ERROR, "the process ends")

    async def _is_empty_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def admit(self, carrier: Carrier) -> bool:
        """Whether there is a place for one more."""
        if len(self._carriers) >= _MAX_CARRIERS:
            return False
        self._carriers.add(carrier)
        return True

    def forget(self, carrier: Carrier) -> None:
        """A socket is closed."""
        self._carriers.discard(carrier)
        self._tell_empty()

    def _tell_empty(self) -> None:
        if not self._carriers:
            self._empty.set()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = time.perf_counter()
            for carrier in list(self._carriers):
                carrier.look(now_s, self._patience_s)
