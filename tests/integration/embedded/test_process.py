"""A child does not outlive its parent, and nobody touches a folder before its last owner is gone."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from billing_core.errors import ConfigurationError, Unavailable
from gateway.command.embedded.process import Program, start, take_lock

PARENT = """
import pathlib, signal, sys
from gateway.command.embedded.process import Program, start
folder = pathlib.Path(sys.argv[1])
deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
argv = (sys.executable, "-c", deaf)
program = Program(name="deaf", argv=argv, log_file=folder / "deaf.log", lock_file=folder / "lock")
child = start(program)
child.wait_ready(lambda: program.log_file.stat().st_size > 0, timeout_ms=10_000)
print(child.pid, flush=True)
signal.pause()
"""


def program(folder: Path, words: str) -> Program:
    return Program(name="child", argv=(sys.executable, "-c", words), log_file=folder / "child.log")


def ended(pidfd: int, *, timeout_ms: int) -> bool:
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(timeout_ms))


def test_a_child_that_ignores_its_signals_still_dies_with_its_killed_parent(tmp_path):
    """The kernel ends it; and its lock on the folder falls just then."""
    with subprocess.Popen([sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        with pytest.raises(ConfigurationError, match="is in use by another process"):
            take_lock(tmp_path / "lock", timeout_ms=0)
        parent.kill()
    assert ended(child, timeout_ms=5_000)
    os.close(child)
    os.close(take_lock(tmp_path / "lock", timeout_ms=5_000))


def test_a_child_that_does_not_go_is_killed(tmp_path):
    """And the caller learns that it did not go by itself."""
    words = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    )
    child = start(program(tmp_path, words))
    child.wait_ready(lambda: child.program.log_file.stat().st_size > 0, timeout_ms=10_000)
    assert child.stop(signal.SIGTERM, timeout_ms=50) is False
    assert child.exit_status() == -signal.SIGKILL


def test_a_child_that_goes_takes_nobody_else_with_it(tmp_path):
    """Stopping twice is the same as stopping once."""
    child = start(program(tmp_path, "import signal; signal.pause()"))
    assert child.stop(signal.SIGTERM, timeout_ms=10_000) is True
    assert child.stop(signal.SIGTERM, timeout_ms=10_000) is True


def test_who_ends_before_it_is_ready_is_quoted(tmp_path):
    """The last words of its log are the reason that the operator reads."""
    child = start(program(tmp_path, "raise SystemExit('the disk is full')"))
    with pytest.raises(Unavailable, match="child ended with status 1: the disk is full"):
        child.wait_ready(lambda: False, timeout_ms=10_000)
    child.finish(timeout_ms=0)


def test_who_never_becomes_ready_is_given_up(tmp_path):
    """The time that was waited is told."""
    child = start(program(tmp_path, "import signal; signal.pause()"))
    with pytest.raises(Unavailable, match="child was not ready after 30 ms"):
        child.wait_ready(lambda: False, timeout_ms=30)
    child.stop(signal.SIGKILL, timeout_ms=10_000)


def test_a_program_that_is_not_there_is_one_line(tmp_path):
    """No traceback for a wrong path in the settings."""
    with pytest.raises(ConfigurationError, match=r"server cannot be started: .*No such file"):
        start(Program(name="server", argv=("/nowhere/server",), log_file=tmp_path / "log"))


def test_only_the_main_thread_may_start_a_child(tmp_path):
    """The kernel's signal follows the thread that forked: a thread that ends would take the child with it."""
    refusals: list[str] = []

    def begin() -> None:
        try:
            start(program(tmp_path, ""))
        except ConfigurationError as error:
            refusals.append(error.detail)

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    assert refusals == ["child must be started from the main thread"]


def test_a_log_that_grew_large_is_put_aside(tmp_path):
    """Nothing in the data folder grows without bound."""
    log = tmp_path / "child.log"
    with log.open("wb") as writing:
        writing.truncate(17 * 2**20)
    child = start(program(tmp_path, "print('fresh')"))
    child.finish(timeout_ms=10_000)
    assert log.read_text() == "fresh\n"
    assert (tmp_path / "child.log.1").stat().st_size == 17 * 2**20
