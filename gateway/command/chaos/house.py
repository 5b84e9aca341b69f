"""A whole house of one's own, to be attacked: started, found, started again, and asked what it has written down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from billing_core.errors import Unavailable
from gateway.command.chaos.disk import Disk
from gateway.command.chaos.family import lives, with_descendants, workers_of
from gateway.command.chaos.standing import IN_USE, told_file
from gateway.command.chaos.verdict import Evidence
from gateway.command.client.door import Door
from gateway.command.embedded.address import socket_folder
from gateway.command.embedded.process import Child, Program, start
from gateway.command.machine.plan import PYTHON

SUPERVISOR: Final = "supervisor"
_STARTS: Final = 20
_READY_MS: Final = 120_000  # a machine that is attacked may be slow
_REFUSAL_MS: Final = 600_000  # longer than anybody has to wait for a second answer
_START_S: Final = 180.0
_STOP_MS: Final = 60_000
_LOOK_S: Final = 0.02
_OWN: Final = "TALLYGATE_"


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What a house stands on. `lease_ms` is how long a flusher's silence is borne."""

    folder: Path
    fsync: str = "always"
    lease_ms: int = 1_000
    gateways: int = 2


class House:
    """Processes of one data folder under a supervisor, and a wire between its gateways and its Valkey."""

    def __init__(self, ground: Ground, wire: asyncio.subprocess.Process, *, wire_port: int) -> None:
        self.ground = ground
        self.disk = Disk(ground.folder)
        self._wire = wire
        self._wire_port = wire_port
        self._ports = {name: str(free_port()) for name in ("GATEWAY_PORT", "BILLING_PORT", "UP_STRIPE_PORT")}
        self._supervisor: Child | None = None
        self._shared: dict[str, str] = {}

    @property
    def door(self) -> Door:
        """The way in, as root."""
        return Door(
            control_url=f"http://127.0.0.1:{self._ports['BILLING_PORT']}",
            gateway_url=f"http://127.0.0.1:{self._ports['GATEWAY_PORT']}",
            operator_token="",
            root_token=self._shared["TALLYGATE_BILLING_ROOT_TOKEN"],
        )

    async def stand(self) -> None:
        """Start the supervisor, again where those of the last one are not quite gone, and wait until all is ready.

        Raises: Unavailable with its last words.
        """
        told = told_file(self.ground.folder)
        told.unlink(missing_ok=True)
        last_words = ""
        for _ in range(_STARTS):
            child = self._supervisor = start(self._program())
            await until(lambda child=child: child.exit_status() is not None or told.exists(), "the house stands")
            if told.exists():
                self._shared = msgspec.json.decode(told.read_bytes(), type=dict[str, str])
                return
            last_words = child.last_words()
            child.finish(timeout_ms=0)
            if child.exit_status() != IN_USE:
                break
        raise Unavailable(f"the house does not stand: {last_words}")

    async def fall(self) -> None:
        """Stop everything in order."""
        child, self._supervisor = self._supervisor, None
        if child is not None:
            child.signal(signal.SIGCONT)
            await asyncio.to_thread(child.stop, signal.SIGTERM, timeout_ms=_STOP_MS)

    def pids(self, name: str) -> list[int]:
        """Who works under the name at this moment."""
        if self._supervisor is None:
            return []
        return [self._supervisor.pid] if name == SUPERVISOR else workers_of(self._supervisor.pid).get(name, [])

    async def bury_supervisor(self) -> None:
        """Wait until a supervisor that was killed is gone, with everybody who was bound to it."""
        if self._supervisor is None:
            return
        bound = with_descendants(self._supervisor.pid)[1:]
        self._supervisor.finish(timeout_ms=_STOP_MS)
        await until(lambda: not any(lives(pid) for pid in bound), "whoever was bound to the supervisor is gone")

    async def order(self, word: str) -> None:
        """Tell the wire what to do, and wait until it does."""
        if self._wire.stdin is None or self._wire.stdout is None:
            raise Unavailable("the wire cannot be spoken to")
        self._wire.stdin.write(f"{word}\n".encode())
        if not await self._wire.stdout.readline():
            raise Unavailable(f"the wire broke at {word!r}")

    async def witness(self, tenant_id: str, since_at: datetime) -> Evidence:
        """What is written of the tenant once nothing is under way.

        Raises: Unavailable where it cannot be told.
        """
        words = (*PYTHON, "billing_core.witness", tenant_id, since_at.isoformat())
        asked = await asyncio.create_subprocess_exec(
            *words,
            env=self._environment() | self._shared,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asked.communicate()
        if asked.returncode != 0:
            raise Unavailable(f"the witness says nothing: {err.decode(errors='replace').strip()[-500:]}")
        return msgspec.json.decode(out, type=Evidence)

    def _environment(self) -> dict[str, str]:
        """Settings of this house, and none that the user made for another."""
        settings = {
            **self._ports,
            "UP_DATA_DIR": str(self.ground.folder),
            "UP_DEMO": "false",
            "UP_READY_TIMEOUT_MS": str(_READY_MS),
            "UP_GATEWAY_WORKERS": str(self.ground.gateways),
            "UP_APPENDFSYNC": self.ground.fsync,
            "UP_VALKEY_BINARY": str(self.disk.program),
            "BILLING_LEASE_MS": str(self.ground.lease_ms),
            "GATEWAY_IDEMPOTENCY_REFUSAL_MS": str(_REFUSAL_MS),
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        return others | {f"{_OWN}{name}": value for name, value in settings.items()}

    def _program(self) -> Program:
        return Program(
            name=SUPERVISOR,
            argv=(*PYTHON, "gateway.command.chaos.standing", f"redis://127.0.0.1:{self._wire_port}"),
            log_file=self.ground.folder / "log" / "supervisor.log",
            environment=self._environment(),
            death_signal=signal.SIGTERM,
        )


@asynccontextmanager
async def standing(ground: Ground) -> AsyncGenerator[House]:
    """A house that stands for as long as the block runs. Raises: Unavailable where it cannot be started."""
    ground.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port, valkey = free_port(), socket_folder(ground.folder) / "valkey.sock"
    wire = await asyncio.create_subprocess_exec(
        *(*PYTHON, "gateway.command.chaos.wire", str(port), str(valkey)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    house = House(ground, wire, wire_port=port)
    house.disk.prepare()
    try:
        if wire.stdout is None or not await wire.stdout.readline():
            raise Unavailable(f"nothing can be listened for on port {port}")
        await house.stand()
        yield house
    finally:
        await house.fall()
        with contextlib.suppress(ProcessLookupError):
            wire.kill()
        await wire.wait()


async def until(holds: Callable[[], bool], what: str, *, within_s: float = _START_S) -> None:
    """Wait for what no event announces. Raises: Unavailable where it does not come about."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise Unavailable(f"not within {within_s:.0f} s: {what}")
        await asyncio.sleep(_LOOK_S)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
