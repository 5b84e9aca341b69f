"""A child process that cannot outlive its parent.

Every child is started with the kernel's parent-death signal set, so that `kill -9` of the supervisor ends
them too; that signal is sent when the *thread* that forked ends, therefore only the main thread may start a
child. A child stands in a process group of its own: Ctrl-C in a terminal reaches the supervisor alone, which
then stops everybody in order.

A child that owns files holds a lock on them for as long as it lives: the descriptor of the locked file is
inherited, so the lock falls when the last process of the server is gone and not a moment before. A start that
follows a crash at once waits there, and no two servers ever write the same folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from billing_core.errors import ConfigurationError, Unavailable

_PR_SET_PDEATHSIG: Final = 1
_POLL_MS: Final = 10
_LONGEST_POLL_MS: Final = 200
_LOG_TAIL_BYTES: Final = 2_000
_LOG_BYTES: Final = 16 * 2**20
_prctl: Final = ctypes.CDLL(None, use_errno=True).prctl  # bound before any fork: nothing is loaded in the child


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. `user` is a numeric id to become first; `environment` None means the parent's own."""

    name: str
    argv: tuple[str, ...]
    log_file: Path
    environment: Mapping[str, str] | None = None
    user: int | None = None
    lock_file: Path | None = None
    death_signal: signal.Signals = signal.SIGKILL


class Child:
    """A running program: ask whether it lives, signal it, end it."""

    def __init__(self, program: Program, process: subprocess.Popen[bytes]) -> None:
        self.program = program
        self.process = process
        self.pidfd = os.pidfd_open(process.pid)

    @property
    def pid(self) -> int:
        return self.process.pid

    def exit_status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    def wait(self, timeout_ms: float) -> bool:
        """Wait until the process ended or the time is over; True when it ended."""
        if self.process.poll() is not None:
            return True
        waiting = select.poll()
        waiting.register(self.pidfd, select.POLLIN)
        waiting.poll(max(0.0, timeout_ms))
        return self.process.poll() is not None

    def wait_ready(self, ready: Callable[[], bool], *, timeout_ms: float) -> None:
        """Wait until `ready()` holds.

        Raises: Unavailable with the last line of the log when the process ends first or time runs out.
        """
        deadline = time.monotonic() + timeout_ms / 1_000
        pause_ms = float(_POLL_MS)
        while not ready():
            if self.wait(pause_ms):
                raise Unavailable(
                    f"{self.program.name} ended with status {self.exit_status()}: {self.last_words()}"
                )
            pause_ms = min(pause_ms * 1.5, _LONGEST_POLL_MS)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self.program.name} was not ready after {timeout_ms:.0f} ms: {self.last_words()}"
                )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def finish(self, *, timeout_ms: float) -> bool:
        """Wait for its end, and kill its whole group if it does not go; True when it went by itself."""
        if self.pidfd < 0:
            return True  # finished before: its number may be another's by now
        went = self.wait(timeout_ms)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # an empty group is what is wanted
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.pidfd)
        self.pidfd = -1
        return went

    def stop(self, how: signal.Signals, *, timeout_ms: float) -> bool:
        """Signal it and wait for its end."""
        self.signal(how)
        return self.finish(timeout_ms=timeout_ms)

    def last_words(self) -> str:
        """What its log says last, its last fatal line first of all, and where that log is."""
        with self.program.log_file.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        fatal = [line for line in lines if "FATAL" in line]
        words = (fatal or lines or ["no word"])[-1].strip()
        return f"{words} (log: {self.program.log_file})"


def start(program: Program, *, lock_timeout_ms: float = 30_000) -> Child:
    """Start the program, bound to the life of this process.

    Raises: ConfigurationError when it cannot be executed, or when another process keeps holding its lock.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(f"{program.name} must be started from the main thread")
    _prepare_log(program.log_file)
    lock = None if program.lock_file is None else take_lock(program.lock_file, timeout_ms=lock_timeout_ms)
    try:
        with program.log_file.open("ab") as log:
            process = subprocess.Popen(
                program.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=program.environment,
                user=program.user,
                group=program.user,
                extra_groups=None if program.user is None else [],
                pass_fds=() if lock is None else (lock,),
                process_group=0,
                preexec_fn=_bound_to(os.getpid(), program.death_signal),  # noqa: PLW1509  loads nothing, takes no lock
            )
    except OSError as error:
        raise ConfigurationError(f"{program.name} cannot be started: {error}") from error
    finally:
        if lock is not None:
            os.close(lock)  # the child's copy keeps the lock
    return Child(program, process)


def _prepare_log(file: Path) -> None:
    """Make its folder; a log that grew large is put aside, over the one before it."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > _LOG_BYTES:
        file.replace(file.with_suffix(".log.1"))


def take_lock(file: Path, *, timeout_ms: float) -> int:
    """Lock the file for one owner and return its descriptor; closing the last copy of it releases the lock.

    Raises: ConfigurationError when somebody else still holds it after the given time.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout_ms / 1_000
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise ConfigurationError(f"{file.parent} is in use by another process") from None
            select.select([], [], [], _POLL_MS / 1_000)
        else:
            return descriptor


def _bound_to(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    number = int(death_signal)

    def bind() -> None:
        if _prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(127)  # the parent died between fork and here: there is nobody to be bound to

    return bind
