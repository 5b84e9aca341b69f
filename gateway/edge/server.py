"""A worker behind sockets: one of several processes that share a port.

Every worker listens on the port itself (SO_REUSEPORT) and the kernel spreads connections over them, so there is no
process in front. On SIGTERM or SIGINT a worker listens no more, which refuses nobody while another worker listens;
what is asked already has `stop_grace_ms` to be answered. A part that breaks ends the process too, because whoever
supervises it can start a whole one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop
from aiohttp import web

from billing_core.contract.configuration import load
from billing_core.errors import ConfigurationError
from gateway.edge.grpc.connection import Bounds
from gateway.edge.grpc.listener import Listener
from gateway.edge.lane.entrance import Entrance
from gateway.edge.lane.lane import Lane
from gateway.edge.message import Route
from gateway.edge.scrape.siblings import socket_path
from gateway.edge.shell import make_app
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings

_BACKLOG = 1_024
_GC_ALLOCATIONS = 50_000


class Server:
    """A worker and its sockets: `start`, then `stop`; what is open may finish in between."""

    def __init__(self, worker: Worker, *, has_lane: bool = True) -> None:
        """Without a lane aiohttp answers everything, and says the same."""
        self._worker = worker
        self._has_lane = has_lane
        self._runners: list[web.AppRunner] = []
        self._lane: Lane | None = None
        self._grpc: Listener | None = None
        self._entrance: Entrance | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises: ConfigurationError where the port is taken, or the run folder cannot hold a socket.
        """
        settings = self._worker.settings
        listener, grpc, proxy = _listeners(settings)
        await self._worker.start()
        routes = self._worker.routes()
        runner = await self._runner(routes)
        if self._has_lane and runner.server is not None:
            await self._open_lane(listener, routes, guest=runner.server)
        else:
            await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        if grpc is not None:
            await self._open_grpc(grpc)
        if proxy is not None and self._worker.proxy is not None:
            await self._worker.proxy.start(proxy, backlog=_BACKLOG)
        if settings.run_dir:
            path = socket_path(settings.run_dir, settings.port, index=settings.worker_index)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            runner = await self._runner(self._worker.sibling_routes())
            await web.UnixSite(runner, str(path)).start()

    async def stop(self) -> None:
        """Listen no more, finish what is open, close what is behind."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._entrance is not None:
            await self._entrance.close()
        ends = [runner.cleanup() for runner in self._runners]
        if self._lane is not None:
            ends.append(self._lane.stop())
        if self._grpc is not None:
            ends.append(self._grpc.stop(self._worker.settings.stop_grace_ms / 1_000))
        if self._worker.proxy is not None:
            ends.append(self._worker.proxy.stop())
        await asyncio.gather(*ends)
        await self._worker.stop()

    async def _open_lane(
        self, listener: socket.socket, routes: list[Route], *, guest: Callable[[], asyncio.Protocol]
    ) -> None:
        worker = self._worker
        hot = [route for route in routes if route.is_hot]
        lane = Lane(hot, worker.door, slumber=worker.slumber, settings=worker.settings, guest=guest)
        self._lane, self._keeper = lane, asyncio.create_task(lane.keep())
        self._entrance = Entrance(listener, lane.make_connection)
        await self._entrance.open(backlog=_BACKLOG)

    async def _open_grpc(self, listener: socket.socket) -> None:
        worker = self._worker
        bounds = Bounds(max_message_bytes=worker.settings.max_body_bytes)
        patience_s = worker.settings.request_read_ms / 1_000
        methods, sinks, since_s = worker.calls(), worker.sinks(), worker.slumber.since_s
        self._grpc = Listener(methods, sinks=sinks, bounds=bounds, since_s=since_s, patience_s=patience_s)
        await self._grpc.start(listener, backlog=_BACKLOG)

    async def _runner(self, routes: list[Route]) -> web.AppRunner:
        worker, settings = self._worker, self._worker.settings
        app = make_app(routes, worker.door, slumber=worker.slumber, max_body_bytes=settings.max_body_bytes)
        grace_s = settings.stop_grace_ms / 1_000
        idle_s = settings.keep_alive_ms / 1_000
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=grace_s, keepalive_timeout=idle_s, handle_signals=False
        )
        await runner.setup()
        self._runners.append(runner)
        return runner


async def serve(settings: GatewaySettings) -> None:
    """Serve until a signal comes or a part breaks.

    Raises: ConfigurationError before the first request; whatever broke, afterwards.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker = Worker(settings)
    server = Server(worker)
    await server.start()
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked at again
    gc.set_threshold(_GC_ALLOCATIONS)
    stopped, broken = asyncio.create_task(stop.wait()), asyncio.create_task(worker.broken())
    done, late = await asyncio.wait((stopped, broken), return_when=asyncio.FIRST_COMPLETED)
    for task in late:
        task.cancel()
    await server.stop()
    for task in done:
        task.result()


def main() -> int:
    """Run one worker; its settings come from the file that TALLYGATE_CONFIG names, and the environment."""
    file = os.environ.get("TALLYGATE_CONFIG")
    try:
        settings = load("gateway", GatewaySettings, file=Path(file) if file else None, environ=os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _listeners(settings: GatewaySettings) -> tuple[socket.socket, socket.socket | None, socket.socket | None]:
    """The sockets of HTTP and, where there are such ports, of gRPC and the proxy."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(settings.host, settings.port))
        others = [
            stack.enter_context(_listen(settings.host, port, field=field)) if port else None
            for field, port in (("grpc_port", settings.grpc_port), ("proxy_port", settings.proxy_port))
        ]
        stack.pop_all()
    return listener, others[0], others[1]


def _listen(host: str, port: int, *, field: str = "port") -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            stack.pop_all()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}", field=field) from None
    return listener
