"""The journal: what was allowed without Redis stands on the disk before it is answered.

Everything that is written within one turn of the event loop leaves in one write, when the turn ends; whoever waits
is told once the kernel has it. A process that dies loses nothing of that. The disk follows as fast as it can, off
the loop, in one fdatasync for all that was written since the last; so much may be lost when the machine dies.

Each process writes a file of its own; whoever finds a dead one's finishes what it leaves to be done (see
`legacy/own_file`).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from billing_core.errors import Unavailable
from gateway.admission.degraded.record import MAGIC, Entry, Leased, Left, Record, left_of, packed
from gateway.admission.legacy.own_file import left_files, own_file, unwritable

_SUFFIX: Final = ".journal"
_LONG_BYTES: Final = 262_144


class Journal:
    """One process' file. `close` once; what is not done by then is left to whoever finds it."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Make a file in the folder. Raises: ConfigurationError, one line."""
        self._loop = asyncio.get_running_loop()
        self._max_bytes = max_bytes
        self.path, self._file = own_file(folder, _SUFFIX, flags=os.O_APPEND)
        try:
            self._size = os.write(self._file, MAGIC)
        except OSError as error:
            raise unwritable(folder, error) from None
        self._unwritten: list[bytes] = []
        self._waiting: asyncio.Future[None] | None = None
        self._syncing: asyncio.Future[None] | None = None
        self._unsynced = False
        self.entry_count = 0
        self.sync_count = 0

    async def write(self, *records: Record) -> None:
        """Write with this turn's others; returns once the kernel has it.

        Raises: Unavailable where the file is as long as it may be, or the disk does not take it: then nothing of it
        is there.
        """
        if self._size > self._max_bytes:
            raise Unavailable("the journal is full")
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = self._loop.create_future()
            self._loop.call_soon(self._flush)
        for record in records:
            self._unwritten.append(packed(record))
            self.entry_count += isinstance(record, Entry)
        await asyncio.shield(waiting)

    @property
    def is_long(self) -> bool:
        """Whether it is worth beginning anew though nothing was charged: leases come and go."""
        return self._size > _LONG_BYTES

    def begin_anew(self, leases: list[str]) -> None:
        """Everything is done: forget it, and keep only which leases there are. Raises: OSError."""
        if self._waiting is not None or self._size == len(MAGIC):
            return
        os.ftruncate(self._file, len(MAGIC))
        content = b"".join(packed(Leased(hold_id=hold_id)) for hold_id in leases)
        self._size = len(MAGIC) + (os.write(self._file, content) if content else 0)
        self.entry_count = 0
        self._sync()

    async def close(self, *, is_empty: bool) -> None:
        """Let go of the file, and remove it where nothing is left to be done."""
        if self._waiting is not None:
            self._flush()
        while self._syncing is not None:
            await asyncio.wait((self._syncing,))
            await asyncio.sleep(0)  # a future that is done is not yet one whose callbacks have run
        if is_empty:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _flush(self) -> None:
        """The end of the turn: everything is written at once, or nothing."""
        batch, self._unwritten = b"".join(self._unwritten), []
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        try:
            fault = "" if os.write(self._file, batch) == len(batch) else "the disk is full"
            if fault:
                os.ftruncate(self._file, self._size)
        except OSError as error:
            fault = error.strerror or "input/output error"
        if fault:
            waiting.set_exception(Unavailable(f"the journal cannot be written: {fault}"))
            return
        self._size += len(batch)
        waiting.set_result(None)
        self._sync()

    def _sync(self) -> None:
        self._unsynced = True
        if self._syncing is None:
            self._unsynced = False
            self._syncing = self._loop.run_in_executor(None, os.fdatasync, self._file)
            self._syncing.add_done_callback(self._synced)

    def _synced(self, done: asyncio.Future[None]) -> None:
        """Raises what the disk said, to the loop: an fdatasync that failed is no part of any answer."""
        self._syncing = None
        self.sync_count += 1
        if self._unsynced:
            self._sync()
        done.result()


class Legacy:
    """A file that a dead process left: locked by us until it is removed or let go."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file
        self.left: Left = left_of(path.read_bytes())

    def done(self, record: bytes) -> None:
        """Note what was done, so that nobody does it again. Raises: OSError."""
        os.write(self._file, record)
        os.fdatasync(self._file)

    def remove(self) -> None:
        """Everything is done."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def let_go(self) -> None:
        """Leave it to the next."""
        os.close(self._file)


def legacies(folder: Path) -> list[Legacy]:
    """All files in the folder that nobody holds, taken over; a torn end is cut off."""
    found: list[Legacy] = []
    for path, file in left_files(folder, _SUFFIX, flags=os.O_APPEND):
        legacy = Legacy(path, file)
        os.ftruncate(file, legacy.left.good_bytes)
        found.append(legacy)
    return found
