"""Upstreams, and the connections to each that are kept.

Endpoints take turns by their weight: each turn every endpoint gains its weight, the one that has gained most is
chosen and pays the sum of all. One that fails `fail_count` times in a row is left out for `fail_ms`; where all are
out, all are tried, because a wrong guess costs no more than a refusal.

Worked example: weights 3 and 1 are chosen a a b a, a a b a.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Final

from billing_core.errors import Unavailable
from gateway.edge.proxy.rule import EndpointRule, UpstreamRule, address_of
from gateway.edge.upstream.connection import UpstreamConnection

_TLS_PORT: Final = 443


class Endpoint:
    """One server: its idle connections, the last used first, and whether it is well."""

    __slots__ = (
        "_failures", "_idle", "_rule",  "connections", "gain", "host", "host_line", "is_ill", "out_until_s",
        "port", "tls", "weight",
    )  # fmt: skip

    def __init__(self, rule: UpstreamRule, told: EndpointRule) -> None:
        self._rule = rule
        scheme, self.host, self.port = address_of(told.url)
        self.tls = _tls(rule) if scheme == "https" else None
        self.host_line = f"Host: {told.url.partition('://')[2].rstrip('/')}\r\n".encode("ascii")
        self._idle: list[UpstreamConnection] = []
        self._failures = 0
        self.connections: set[UpstreamConnection] = set()
        self.weight = told.weight
        self.gain = 0
        self.out_until_s = 0.0
        self.is_ill = False

    @property
    def is_full(self) -> bool:
        """Whether no further connection may be made."""
        return not self._idle and len(self.connections) >= self._rule.max_connections

    def is_well(self, now_s: float) -> bool:
        """Whether it may be chosen."""
        return not self.is_ill and self.out_until_s <= now_s

    def idle(self, now_s: float) -> UpstreamConnection | None:
        """A connection that is kept and young enough."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now_s - connection.idle_since_s < self._rule.idle_ms / 1_000:
                return connection
            connection.abort()
        return None

    async def connect(self) -> UpstreamConnection:
        """A fresh one. Raises: Unavailable."""
        loop = asyncio.get_running_loop()
        connection = UpstreamConnection(self)
        self.connections.add(connection)
        try:
            async with asyncio.timeout(self._rule.connect_ms / 1_000):
                await loop.create_connection(
                    lambda: connection,
                    self.host,
                    self.port,
                    ssl=self.tls,
                    server_hostname=self.host if self.tls else None,
                )
        except (OSError, TimeoutError):
            self.connections.discard(connection)
            self.blame()
            raise Unavailable("the upstream cannot be reached") from None
        except BaseException:
            self.connections.discard(connection)
            raise
        return connection

    def welcome(self, connection: UpstreamConnection) -> None:
        """Keep it for the next request."""
        self._failures = 0
        connection.idle_since_s = time.perf_counter()
        self._idle.append(connection)

    def mourn(self, connection: UpstreamConnection) -> None:
        """It is lost."""
        self.connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def blame(self) -> None:
        """It failed once more."""
        self._failures += 1
        if self._failures >= self._rule.fail_count:
            self.out_until_s = time.perf_counter() + self._rule.fail_ms / 1_000
            self._failures = 0

    def expire(self, now_s: float) -> None:
        """Close what has been idle for too long; it stands at the front."""
        while self._idle and now_s - self._idle[0].idle_since_s >= self._rule.idle_ms / 1_000:
            self._idle.pop(0).abort()

    def close(self) -> None:
        """Close everything."""
        for connection in list(self.connections):
            connection.abort()


class Pool:
    """The endpoints of one upstream."""

    def __init__(self, rule: UpstreamRule, *, now_s: Callable[[], float] = time.perf_counter) -> None:
        self.rule = rule
        self.endpoints: Sequence[Endpoint] = [Endpoint(rule, told) for told in rule.endpoints]
        self._now_s = now_s

    @property
    def is_full(self) -> bool:
        """Whether no further request can be passed on."""
        return self.endpoints[0].is_full and all(endpoint.is_full for endpoint in self.endpoints)

    def check_room(self) -> None:
        """Raises: Unavailable where no further request can be passed on."""
        if self.is_full:
            raise Unavailable("the upstream has as many requests as it may have")

    def choose(self) -> Endpoint:
        """Whose turn it is. Raises: Unavailable as above."""
        self.check_room()
        if len(self.endpoints) == 1:
            return self.endpoints[0]
        now_s = self._now_s()
        free = [one for one in self.endpoints if not one.is_full]
        well = [one for one in free if one.is_well(now_s)] or free
        for one in well:
            one.gain += one.weight
        chosen = max(well, key=lambda one: one.gain)
        chosen.gain -= sum(one.weight for one in well)
        return chosen

    def look(self) -> None:
        """Called now and then: close what has been idle for too long."""
        now_s = self._now_s()
        for endpoint in self.endpoints:
            endpoint.expire(now_s)

    def close(self) -> None:
        """Close everything."""
        for endpoint in self.endpoints:
            endpoint.close()


def _tls(rule: UpstreamRule) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=rule.ca_file or None)
