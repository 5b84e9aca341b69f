"""`tallygate up` from the outside: a command, its lines, its ports and its processes."""

from __future__ import annotations

import http.client
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest

COMMAND = (sys.executable, "-P", "-c", "from gateway.command.main import main; main()", "up")
HUMBLE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--") if os.geteuid() == 0 else ()
LINES_MS = 60_000


class Machine:
    """One `tallygate up`: its process, what it printed, and everybody that it started."""

    def __init__(self, folder: Path, ports: dict[str, str], *, before: tuple[str, ...] = ()) -> None:
        settings = {"TALLYGATE_UP_DATA_DIR": str(folder), "TALLYGATE_UP_GATEWAY_WORKERS": "2", "COLUMNS": "200"}
        self.folder = folder
        self.process = subprocess.Popen(
            [*before, *COMMAND],
            env=os.environ | ports | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self.printed = ""

    def read_until(self, word: str) -> str:
        """Everything printed so far, once it contains the word."""
        while word not in self.printed:
            assert self.process.stdout is not None
            output = self.process.stdout.fileno()
            assert select.select([output], [], [], LINES_MS / 1_000)[0], f"no {word!r} in: {self.printed}"
            piece = os.read(output, 65_536).decode()
            assert piece, f"ended without {word!r}: {self.printed}"
            self.printed += piece
        return self.printed

    def family(self) -> list[psutil.Process]:
        """Its children, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def curl(self) -> str:
        """The command that it told to try."""
        return self.read_until("Ready.").split("Try it:")[1].split("The whole job")[0].strip()

    def check(self) -> dict[str, Any]:
        """Do what the printed curl does, under a key: asked until it is answered, and paid once."""
        words = shlex.split(self.curl())
        url = urlsplit(next(word for word in words if word.startswith("http")))
        name, _, value = words[words.index("-H") + 1].partition(": ")
        body = json.dumps(json.loads(words[words.index("-d") + 1]) | {"idempotency_key": str(uuid4())})
        until_s = time.monotonic() + LINES_MS / 1_000
        status = http.client.SERVICE_UNAVAILABLE
        while status == http.client.SERVICE_UNAVAILABLE and time.monotonic() < until_s:
            with closing(http.client.HTTPConnection(url.netloc, timeout=10)) as peer:
                peer.request("POST", url.path, body=body, headers={name: value})
                answer = peer.getresponse()
                status, content = answer.status, answer.read()
        assert status == http.client.OK, content
        return json.loads(content)

    def stop_by_itself(self) -> int:
        """Wait for its own end; its exit status."""
        rest, _ = self.process.communicate(timeout=60)
        self.printed += rest.decode()
        return self.process.returncode

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.stop_by_itself()


def gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Who is still there after a while."""
    return [one for one in psutil.wait_procs(processes, timeout=20)[1] if one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def ports(free_port: Callable[[], int]) -> dict[str, str]:
    names = ("GATEWAY_PORT", "BILLING_PORT", "UP_STRIPE_PORT")
    return {f"TALLYGATE_{name}": str(free_port()) for name in names}


@pytest.fixture
def up(tmp_path: Path, ports: dict[str, str]) -> Iterator[Callable[..., Machine]]:
    begun: list[Machine] = []

    def begin(**more: tuple[str, ...]) -> Machine:
        begun.append(Machine(tmp_path / "data", ports, **more))
        return begun[-1]

    yield begin
    for machine in begun:
        machine.stop()


def test_everything_comes_back_after_a_stop_and_after_a_kill_of_everybody(up):
    """One life: start, the printed curl, all children killed, a clean stop, and a second start."""
    first = up()
    answer = first.check()
    assert answer["allowed"] is True
    family = first.family()
    assert len(family) >= 7
    _refuse_a_second(up)
    for process in family:
        process.kill()
    assert gone(family) == []
    for name in ("valkey", "postgres", "stripe", "billing", "flusher", "gateway-0", "gateway-1"):
        first.read_until(f"{name} died with status -9")
    first.read_until("everything is ready again")
    again = first.check()
    assert again["balance_nanos"] == answer["balance_nanos"] - again["cost_nanos"]
    family = first.family()
    assert first.stop(signal.SIGINT) == 0
    assert gone(family) == []
    assert "Traceback" not in first.printed

    second = up()
    spent = second.check()
    assert second.curl() == first.curl()
    assert spent["balance_nanos"] == again["balance_nanos"] - spent["cost_nanos"]
    assert second.stop() == 0


def _refuse_a_second(up: Callable[..., Machine]) -> None:
    """A second start in the same folder is one line, and the first does not notice."""
    second = up()
    assert second.stop_by_itself() == 2
    last = second.printed.strip().splitlines()[-1]
    assert last.endswith("is in use by another `tallygate up`; stop it, or set up.data_dir")


def test_a_killed_supervisor_leaves_nobody_and_an_ordinary_user_needs_no_root(up):
    """Where the tests run as root, a user namespace makes an ordinary user of it."""
    machine = up(before=HUMBLE)
    answer = machine.check()
    assert answer["allowed"] is True
    family = machine.family()
    machine.process.kill()
    assert gone(family) == []
    again = up(before=HUMBLE)
    spent = again.check()
    assert spent["balance_nanos"] == answer["balance_nanos"] - spent["cost_nanos"]
    assert again.stop() == 0


def test_a_busy_port_is_one_line_and_nothing_is_started(up, ports):
    """It names the port and the setting that moves it."""
    with socket.create_server(("127.0.0.1", int(ports["TALLYGATE_BILLING_PORT"]))):
        machine = up()
        assert machine.stop_by_itself() == 2
    assert machine.printed.strip().splitlines()[-1] == (
        f"tallygate: billing: port {ports['TALLYGATE_BILLING_PORT']} on 127.0.0.1 is in use by another process; "
        "set billing.port"
    )
    assert not (machine.folder / "log").exists()


def test_a_broken_setting_is_one_line(up, ports):
    """Where, which key, which rule."""
    ports["TALLYGATE_GATEWAY_MAX_BODY_BYTES"] = "-1"
    machine = up()
    assert machine.stop_by_itself() == 2
    assert (
        machine.printed.strip() == "tallygate: environment: TALLYGATE_GATEWAY_MAX_BODY_BYTES: Expected `int` >= 1"
    )
