"""A worker behind sockets: one of several processes that share a port.

Every worker listens on the port itself (SO_REUSEPORT) and the kernel spreads connections over them, so there is no
process in front. On SIGTERM or SIGINT a worker stops listening, lets open requests finish for `stop_grace_ms`, and
ends; a part that breaks ends the process too, because whoever supervises it can start a whole one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from billing_core.contract.configuration import load
from billing_core.errors import ConfigurationError
from gateway.edge.message import Route
from gateway.edge.scrape.siblings import socket_path
from gateway.edge.shell import make_app
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings

_BACKLOG = 1_024
_GC_ALLOCATIONS = 50_000


class Server:
    """A worker and its sockets: `start`, then `stop`; what is open may finish in between."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        """Listen.

        Raises: ConfigurationError where the port is taken, or the run folder cannot hold a socket.
        """
        settings = self._worker.settings
        listener = _listen(settings.host, settings.port)
        await self._worker.start()
        runner = await self._runner(self._worker.routes())
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        if settings.run_dir:
            path = socket_path(settings.run_dir, settings.port, index=settings.worker_index)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            runner = await self._runner(self._worker.sibling_routes())
            await web.UnixSite(runner, str(path)).start()

    async def stop(self) -> None:
        """Listen no more, finish what is open, close what is behind."""
        for runner in self._runners:
            await runner.cleanup()
        await self._worker.stop()

    async def _runner(self, routes: list[Route]) -> web.AppRunner:
        worker, settings = self._worker, self._worker.settings
        app = make_app(routes, worker.door, slumber=worker.slumber, max_body_bytes=settings.max_body_bytes)
        grace_s = settings.stop_grace_ms / 1_000
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=grace_s, handle_signals=False)
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


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}", field="port") from None
    return listener
