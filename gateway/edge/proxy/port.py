"""The proxy's port: who is let in, what all connections share, and how they end."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Final

from billing_core.errors import InvariantBroken
from billing_core.values.clock import system_now
from gateway.admission.gate import Gate
from gateway.edge.door import Door
from gateway.edge.lane.entrance import Entrance
from gateway.edge.lane.lane import Patience
from gateway.edge.lane.response import Scribe
from gateway.edge.message import Answer, Prepared
from gateway.edge.proxy.connection import ClientConnection
from gateway.edge.proxy.exchange import Exchange
from gateway.edge.proxy.rule import RoutesFile, load_routes
from gateway.edge.proxy.settlement import Settlements
from gateway.edge.proxy.table import ProxyTable
from gateway.edge.refusal.answer import Notices
from gateway.edge.slumber import Slumber
from gateway.edge.straight.passage import Passage
from gateway.edge.upstream.health import keep_asking
from gateway.edge.upstream.pool import Pool
from gateway.settings import GatewaySettings
from gateway.state.directory import Directory

_LOOKS: Final = 4
_LONGEST_PAUSE_S: Final = 1.0
_GOODBYE_S: Final = 0.25
_GOODBYE_TURNS: Final = 25


class Tally:
    """What became of requests, for telemetry."""

    def __init__(self) -> None:
        self.endings: Counter[str] = Counter()

    def count(self, ending: str) -> None:
        """One more."""
        self.endings[ending] += 1

    def read(self) -> dict[str, int]:
        """All of them."""
        return dict(self.endings)


class ProxyPort:
    """Makes connections, and ends them; `start` once, `stop` once, and `keep` runs until it is cancelled.

    Raises: ConfigurationError where the routes file breaks a rule.
    """

    def __init__(  # noqa: PLR0913 - all that requests need
        self,
        gate: Gate,
        settlements: Settlements,
        *,
        directory: Directory,
        door: Door,
        slumber: Slumber,
        settings: GatewaySettings,
        notices: Notices,
    ) -> None:
        told = load_routes(Path(settings.proxy_routes_file), os.environ)
        self.pools = {name: Pool(rule) for name, rule in told.upstreams.items()}
        self.table = ProxyTable(told.routes, self.pools, shadow=settings.authorize_shadow)
        self.gate, self.settlements, self.directory, self.door = gate, settlements, directory, door
        self.slumber, self.settings = slumber, settings
        self.tally = Tally()
        self.notices = notices
        self.passage = Passage(gate, directory, notices=notices)
        self.patience = _patience(settings, told)
        self.max_head_bytes = settings.max_head_bytes
        self.connections: set[ClientConnection] = set()
        self.exchanges: set[Exchange] = set()
        self.is_stopping = False
        self.tick = 0
        self._scribe = Scribe(system_now, time.monotonic)
        self._entrance: Entrance | None = None

    async def start(self, listener: socket.socket, *, backlog: int) -> None:
        """Listen."""
        self._entrance = Entrance(listener, lambda: ClientConnection(self))
        await self._entrance.open(backlog=backlog)

    async def stop(self) -> None:
        """Listen no more, let what is open end within its grace; then hang up, and settle what was delivered."""
        if self._entrance is not None:
            await self._entrance.close()
        self.is_stopping = True
        loop = asyncio.get_running_loop()
        await self._until_idle(loop.time() + self.settings.stop_grace_ms / 1_000)
        for connection in list(self.connections):
            connection.abort()
        for exchange in list(self.exchanges):
            exchange.abandon()
        await self._until_idle(loop.time() + self.settings.bulk_deadline_ms / 1_000)
        await self.settlements.retry()
        for pool in self.pools.values():
            pool.close()

    def written(self, answer: Answer | Prepared, *, is_last: bool) -> bytes:
        """An answer of ours as it goes over the wire."""
        try:
            return self._scribe.write(answer, is_last=is_last)
        except InvariantBroken as broken:
            return self._scribe.write(self.door.fault("an answer", broken), is_last=is_last)

    async def _until_idle(self, end_s: float) -> None:
        loop = asyncio.get_running_loop()
        while (self.connections or self.exchanges) and loop.time() < end_s:
            await asyncio.sleep(_GOODBYE_S / _GOODBYE_TURNS)
            self._look()
            for connection in list(self.connections):
                connection.end(self.tick - _GOODBYE_TURNS)

    async def keep(self) -> None:
        """Look at everything, and ask upstreams how they are; the end of one ends the process."""
        async with asyncio.TaskGroup() as group:
            for keeper in (self._watch(), keep_asking(self.pools.values())):
                group.create_task(keeper)

    async def _watch(self) -> None:
        """Look at everything now and then."""
        while True:
            await asyncio.sleep(self.patience.tick_s)
            self._look()

    def _look(self) -> None:
        self.tick += 1
        now_s = time.perf_counter()
        for connection in list(self.connections):
            connection.look(self.tick)
        for exchange in list(self.exchanges):
            exchange.look(now_s)
        for pool in self.pools.values():
            pool.look()


def _patience(settings: GatewaySettings, told: RoutesFile) -> Patience:
    """In ticks; the shortest time that anybody waits is looked at four times."""
    idle_s, slow_s = settings.keep_alive_ms / 1_000, settings.request_read_ms / 1_000
    waits_s = [min(one.response_ms, one.silence_ms, one.drain_ms, one.ttl_ms) / 1_000 for one in told.routes]
    tick_s = min(_LONGEST_PAUSE_S, min(idle_s, slow_s, *waits_s) / _LOOKS)
    return Patience(idle_ticks=int(idle_s / tick_s), slow_ticks=int(slow_s / tick_s), tick_s=tick_s)
