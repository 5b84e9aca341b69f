"""Real servers for the tests: one Postgres for the whole run, one Valkey for each worker process.

Nothing here is a double. Both servers are the embedded ones of `tallygate up`, started lazily in a temporary
folder on unix sockets, so that a run never meets another run or a running `tallygate up`. Postgres skips its
fsync, because no test pulls the plug of the machine; killing processes loses nothing with that.

Fixtures for tests:

    postgres_url   a fresh, migrated database of the test's own (copied from a template in some 20 ms)
    redis_url      the worker's Valkey, emptied
    valkey         a client of it that speaks bytes
    free_port      a function that returns a loopback port which nobody listens on
    started        a function that keeps a server (anything with `stop()`) until the end of the test
    running_up     a whole `tallygate up` of the test's own, as a process, without its demo
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import asyncpg
import psutil
import pytest
import redis.asyncio

from billing_core.errors import ConfigurationError
from billing_core.store.migration import migrate
from gateway.command.embedded.postgres import Postgres, start_postgres
from gateway.command.embedded.process import take_lock
from gateway.command.embedded.valkey import start_valkey
from lua.loader import LIBRARY
from tests.free_port import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_TEMPLATE = "tallygate_template"
_RELAXED = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200")
_HERD = pytest.StashKey[tuple[Path, Postgres]]()
_ROOM_BYTES = 4 * 2**30
_PREFIX = "tallygate-test-"
_STALE_S = 60
_COMMAND = (sys.executable, "-P", "-c", "from gateway.command.main import main; main()")
_locks: list[int] = []
_numbers = itertools.count()


def pytest_configure() -> None:
    """Hear Ctrl-C: what a shell starts in the background is deaf to it, and so would be what is tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Stoppable(Protocol):
    def stop(self) -> object: ...


S = TypeVar("S", bound=Stoppable)


def pytest_configure_node(node: Any) -> None:
    """Under xdist the controller starts Postgres once, for all its workers."""
    if _HERD not in node.config.stash:
        node.config.stash[_HERD] = _start_postgres()
    node.workerinput["postgres_url"] = node.config.stash[_HERD][1].url("{}")


def pytest_unconfigure(config: pytest.Config) -> None:
    herd = config.stash.get(_HERD, None)
    if herd is not None:
        _end_postgres(*herd)


def _make_folder() -> Path:
    """A folder for a server's data: in memory where there is room, since a database is some 600 files.

    What a run that was killed left behind is removed: folders of some age whose lock nobody holds.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM_BYTES
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=memory if roomy else None))
    _locks.append(take_lock(folder / "in-use", timeout_ms=0))
    for other in folder.parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(ConfigurationError, OSError):
            if folder.stat().st_mtime - other.stat().st_mtime > _STALE_S:
                os.close(take_lock(other / "in-use", timeout_ms=0))
                shutil.rmtree(other)
    return folder


def _start_postgres() -> tuple[Path, Postgres]:
    folder = _make_folder()
    return folder, start_postgres(folder, options=_RELAXED)


def _end_postgres(folder: Path, server: Postgres) -> None:
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_pattern(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the run's server with `{}` where a database's name goes; it has a migrated template."""
    shared = getattr(request.config, "workerinput", {}).get("postgres_url")
    own = None if shared else _start_postgres()
    pattern = shared if own is None else own[1].url("{}")
    with ThreadPoolExecutor(1) as aside:  # a loop of its own, away from the loops of the tests
        aside.submit(asyncio.run, _make_template(pattern)).result()
    yield pattern
    if own is not None:
        _end_postgres(*own)


async def _make_template(pattern: str) -> None:
    """Migrate a template database once; workers that come at the same time wait for the first."""
    keeper = await asyncpg.connect(pattern.format("postgres"))
    try:
        await keeper.execute("SELECT pg_advisory_lock(1)")
        if await keeper.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", _TEMPLATE):
            return
        await keeper.execute(f"CREATE DATABASE {_TEMPLATE}_making")
        template = await asyncpg.connect(pattern.format(f"{_TEMPLATE}_making"))
        try:
            await migrate(template)
        finally:
            await template.close()
        await keeper.execute(f"ALTER DATABASE {_TEMPLATE}_making RENAME TO {_TEMPLATE}")
    finally:
        await keeper.close()


@pytest.fixture
async def postgres_url(postgres_pattern: str) -> AsyncIterator[str]:
    """A fresh, migrated database."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    keeper = await asyncpg.connect(postgres_pattern.format("postgres"))
    try:
        await keeper.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
        yield postgres_pattern.format(name)
        await keeper.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await keeper.close()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[str]:
    """The worker's own Valkey; scripts use plain keys, so workers do not share one."""
    folder = _make_folder()
    server = start_valkey(folder, appendfsync="no")
    with redis.Redis.from_url(server.url) as client:
        client.function_load(LIBRARY.text)  # emptying the server leaves it there
    yield server.url
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def redis_url(valkey_server: str) -> str:
    """The worker's Valkey, emptied."""
    async with redis.asyncio.Redis.from_url(valkey_server) as client:
        await client.flushall()
    return valkey_server


@pytest.fixture
async def valkey(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the emptied Valkey; replies are bytes."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Find loopback ports that nobody listens on."""

    return lambda: free_ports(1)[0]


class RunningUp:
    """A whole `tallygate up` on free ports and a folder of its own, ready to be spoken to by the command itself."""

    def __init__(self, folder: Path, ports: dict[str, str]) -> None:
        self.folder = folder
        self._environment = (
            os.environ | ports | {"TALLYGATE_UP_DATA_DIR": str(folder), "TALLYGATE_UP_DEMO": "false"}
        )
        self._process = subprocess.Popen(
            [*_COMMAND, "up"], env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        self.said: list[str] = []
        for line in self._process.stdout:
            if line.startswith("Ready."):
                break
            self.said.append(line)
        else:
            raise AssertionError(f"it did not start: {''.join(self.said)}")

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that speaks to it."""
        out, err = subprocess.PIPE, subprocess.PIPE
        return subprocess.Popen([*_COMMAND, *words], env=self._environment, stdout=out, stderr=err, text=True)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command that speaks to it, to its end."""
        command = self.begin(*words)
        out, err = command.communicate(timeout=300)
        return subprocess.CompletedProcess(words, command.returncode, out, err)

    def workers(self, word: str) -> list[psutil.Process]:
        """Who of its processes has the word in its command line or its roles."""
        found: list[psutil.Process] = []
        for child in psutil.Process(self._process.pid).children():
            with contextlib.suppress(psutil.Error):
                roles = child.environ().get("TALLYGATE_BILLING_ROLES", "")
                if word in (*child.cmdline(), roles):
                    found.append(child)
        return found

    def stop(self) -> None:
        """Stop it as a person does; what it wrote meanwhile is read, so that it never waits for a reader."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=60)


@pytest.fixture
def running_up(free_port: Callable[[], int]) -> Iterator[RunningUp]:
    """Start everything, and stop it."""
    folder = _make_folder()
    names = ("GATEWAY_PORT", "BILLING_PORT", "UP_STRIPE_PORT")
    up = RunningUp(folder, {f"TALLYGATE_{name}": str(free_port()) for name in names})
    yield up
    up.stop()
    shutil.rmtree(folder)


@pytest.fixture
def started() -> Iterator[Callable[[S], S]]:
    """Keep servers until the end of the test: `server = started(start_valkey(tmp_path))`."""
    kept: list[Stoppable] = []

    def keep(server: S) -> S:
        kept.append(server)
        return server

    yield keep
    for server in reversed(kept):
        server.stop()
