"""Asks servers whether they are well, before a request finds out.

Each is asked for the path of its rule over a connection of its own: well is who answers 2xx in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from gateway.edge.lane.head import Malformed
from gateway.edge.proxy.rule import HealthRule
from gateway.edge.upstream.head import read_response
from gateway.edge.upstream.pool import Endpoint, Pool

_END: Final = b"\r\n\r\n"
_OK: Final = range(200, 300)


async def keep_asking(pools: Iterable[Pool]) -> None:
    """Ask all servers whose rule says so, again and again, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for pool in pools:
            if pool.rule.health is not None:
                for endpoint in pool.endpoints:
                    group.create_task(_keep(endpoint, pool.rule.health))


async def _keep(endpoint: Endpoint, rule: HealthRule) -> None:
    while True:
        endpoint.is_ill = not await is_well(endpoint, rule)
        await asyncio.sleep(rule.interval_ms / 1_000)


async def is_well(endpoint: Endpoint, rule: HealthRule) -> bool:
    """Ask once."""
    try:
        async with asyncio.timeout(rule.timeout_ms / 1_000):
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=endpoint.tls)
            try:
                path = rule.path.encode("ascii")
                writer.write(b"GET %b HTTP/1.1\r\n%bConnection: close\r\n\r\n" % (path, endpoint.host_line))
                return read_response(await reader.readuntil(_END)).status in _OK
            finally:
                writer.close()
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, Malformed):
        return False
