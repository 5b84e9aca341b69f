"""The lane of one worker: its connections, what they share, and their end.

Everything that is asked here goes through the same door to the same handlers as behind aiohttp, so an answer is the
same whoever read the request. On the port stands the lane; whoever asks for something else is handed to aiohttp,
connection and all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from billing_core.errors import Failure, InvariantBroken
from billing_core.values.clock import Clock, system_now
from gateway.edge.door import Door
from gateway.edge.lane.connection import Connection
from gateway.edge.lane.head import Head, RouteTable
from gateway.edge.lane.memory import HeadMemory
from gateway.edge.lane.reader import Bounds
from gateway.edge.lane.response import Scribe
from gateway.edge.lane.turn import Turn
from gateway.edge.message import Answer, Outcome, Request, Route
from gateway.edge.slumber import Slumber
from gateway.settings import GatewaySettings

_LOOKS: Final = 4
"""How often a connection is looked at within the shortest patience."""

_LONGEST_PAUSE_S: Final = 1.0
_GOODBYE_S: Final = 0.25
_GOODBYE_TURNS: Final = 25


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How many ticks a connection may be idle, or take for one request; a tick is `tick_s`."""

    idle_ticks: int
    slow_ticks: int
    tick_s: float


def patience_of(settings: GatewaySettings) -> Patience:
    """What the settings say, in ticks; at least one."""
    idle_s, slow_s = settings.keep_alive_ms / 1_000, settings.request_read_ms / 1_000
    tick_s = min(_LONGEST_PAUSE_S, idle_s / _LOOKS, slow_s / _LOOKS)
    return Patience(idle_ticks=int(idle_s / tick_s), slow_ticks=int(slow_s / tick_s), tick_s=tick_s)


class Lane:
    """Makes connections, and ends them; `keep` runs until it is cancelled."""

    def __init__(
        self,
        routes: Sequence[Route],
        door: Door,
        *,
        slumber: Slumber,
        settings: GatewaySettings,
        guest: Callable[[], asyncio.Protocol],
        clock: Clock = system_now,
    ) -> None:
        """`guest` makes the protocol of whoever gets what is not the lane's."""
        self.memory = HeadMemory(RouteTable(routes))
        self.bounds = Bounds(max_head_bytes=settings.max_head_bytes, max_body_bytes=settings.max_body_bytes)
        self.patience = patience_of(settings)
        self.slumber = slumber
        self.connections: set[Connection] = set()
        self.is_stopping = False
        self.tick = 0
        self._door = door
        self._is_traced = door.is_traced
        self._guest = guest
        self._scribe = Scribe(clock, time.monotonic)
        self._grace_s = settings.stop_grace_ms / 1_000

    def make_connection(self) -> Connection:
        """Called by the loop for each connection that comes."""
        return Connection(self)

    def begin(self, head: Head, body: bytes, *, since_s: float, turn: Turn[Outcome]) -> None:
        """Begin to answer, straight where that is possible, else by the handler."""
        route = head.route
        if route is None:
            raise InvariantBroken("what is not the lane's is not answered here")
        request = Request(headers=head.fields, query=head.query, subject=head.subject, body=body, since_s=since_s)
        if self._is_traced:
            turn.run(_waited(asyncio.create_task(self._door.answer(route, request))))
        elif route.straight is None or not route.straight(request, turn.take):
            turn.run(self._door.answer(route, request))

    def written(self, answer: Outcome, *, is_last: bool) -> bytes:
        """The answer as it goes over the wire."""
        if isinstance(answer, Failure):
            answer = self._door.failure("the straight way", answer)
        try:
            return self._scribe.write(answer, is_last=is_last or self.is_stopping)
        except InvariantBroken as broken:
            return self._scribe.write(self._door.fault("an answer", broken), is_last=is_last)

    def hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Give a connection away, and what was read of it."""
        guest = self._guest()
        transport.set_protocol(guest)
        guest.connection_made(transport)
        guest.data_received(data)

    async def keep(self) -> None:
        """Look at all connections now and then."""
        while True:
            await asyncio.sleep(self.patience.tick_s)
            self.tick += 1
            for connection in list(self.connections):
                connection.look(self.tick)

    async def stop(self) -> None:
        """Answer what is asked, and say that it is the last answer; then close what is still open.

        Who is idle may just be asking, so its connection is closed only after the sockets were looked at some times
        more: turns are counted and not time, because this process may have stood still. `keep` must have ended.
        """
        self.is_stopping = True
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._grace_s
        while self.connections and loop.time() < end_s:
            await asyncio.sleep(_GOODBYE_S / _GOODBYE_TURNS)
            self.tick += 1
            for connection in list(self.connections):
                connection.end(self.tick - _GOODBYE_TURNS)
        for connection in list(self.connections):
            connection.abort()


async def _waited(task: asyncio.Task[Answer]) -> Answer:
    return await task
