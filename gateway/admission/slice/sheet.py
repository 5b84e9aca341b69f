"""The sheet: what was used of each slice, in memory that a process which is killed leaves behind.

A sheet is a file that is mapped into memory, cut into cells of 1,024 bytes. The first cell is one line that says
what it is; each other one is empty or says of one slice which hold it is, whose, and how many units were used:
eight bytes that are counted up before the order is answered. The kernel has each store at once, so whatever kills
the process, whoever finds the file knows what was used. The disk has it when the kernel sees fit: a machine that
dies may forget what was used since the slice was taken, and so at most the slices outstanding.

A cell: used units (8 bytes), length of the payload (4) and its CRC-32 (4), all in the order of the machine;
payload in msgpack. The length is written last and cleared first: without it the cell is empty.

Worked example: a slice of 1,000 calls takes cell 1 with 0 used; 30 orders later the process is killed. Its cell
says 30: the hold is settled with 30, and 970 are free again.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from gateway.admission.legacy.own_file import left_files, own_file, unwritable

_SUFFIX: Final = ".slices"
_MAGIC: Final = b"tallygate slices 1\n"
_CELL_BYTES: Final = 1_024
_CELL_WORDS: Final = _CELL_BYTES // 8
_HEAD: Final = struct.Struct("=II")
_HEAD_AT: Final = 8
_PAYLOAD_AT: Final = _HEAD_AT + _HEAD.size
_EMPTY: Final = _HEAD.pack(0, 0)


class SliceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which hold a slice is, and whose; `decision_id` is the id of its usage event."""

    hold_id: str
    decision_id: str
    tenant_id: str
    customer_id: str
    path: str
    key_hint: str
    feature: str


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(SliceRecord)


class Cell:
    """Where a slice stands; what was used is `used[place]`."""

    __slots__ = ("number", "place", "used")

    def __init__(self, number: int, used: memoryview) -> None:
        self.number = number
        self.place = number * _CELL_WORDS
        self.used = used


class Sheet:
    """A mapped file of cells; `close` once."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file
        self._memory = mmap.mmap(file, os.fstat(file).st_size // _CELL_BYTES * _CELL_BYTES)
        self._view = memoryview(self._memory)
        self.used = self._view.cast("Q")
        """All of it as numbers; those of cells are at `place`."""
        self._free = [cell for cell in range(len(self._memory) // _CELL_BYTES - 1, 0, -1) if not self._length(cell)]

    def write(self, record: SliceRecord) -> Cell | None:
        """Put a slice of which nothing is used into an empty cell; None where there is none, or it is too long."""
        payload = _ENCODER.encode(record)
        if not self._free or len(payload) > _CELL_BYTES - _PAYLOAD_AT:
            return None
        cell = self._free.pop()
        at = cell * _CELL_BYTES
        self.used[cell * _CELL_WORDS] = 0
        self._memory[at + _PAYLOAD_AT : at + _PAYLOAD_AT + len(payload)] = payload
        _HEAD.pack_into(self._memory, at + _HEAD_AT, len(payload), zlib.crc32(payload))
        return Cell(cell, self.used)

    def clear(self, cell: int) -> None:
        """What was used is settled."""
        at = cell * _CELL_BYTES + _HEAD_AT
        self._memory[at : at + _HEAD.size] = _EMPTY
        self._free.append(cell)

    def cells(self) -> Iterator[tuple[int, SliceRecord, int]]:
        """Each cell that is not empty, its slice, and what was used; one that is torn tells nothing."""
        if self._memory[: len(_MAGIC)] != _MAGIC:
            return
        for cell in range(1, len(self._memory) // _CELL_BYTES):
            length, check = _HEAD.unpack_from(self._memory, cell * _CELL_BYTES + _HEAD_AT)
            at = cell * _CELL_BYTES + _PAYLOAD_AT
            payload = self._memory[at : at + min(length, _CELL_BYTES - _PAYLOAD_AT)]
            if length and zlib.crc32(payload) == check:
                with contextlib.suppress(msgspec.MsgspecError):  # another version's, and nothing is known of it
                    yield cell, _DECODER.decode(payload), self.used[cell * _CELL_WORDS]

    def close(self) -> None:
        """Let go of the file, and remove it where no cell is left."""
        if not any(True for _ in self.cells()):
            self._path.unlink(missing_ok=True)
        self.used.release()
        self._view.release()
        self._memory.close()
        os.close(self._file)

    def _length(self, cell: int) -> int:
        return _HEAD.unpack_from(self._memory, cell * _CELL_BYTES + _HEAD_AT)[0]


def new_sheet(folder: Path, *, count: int) -> Sheet:
    """A sheet of this process' own, for so many slices. Raises: ConfigurationError, one line."""
    path, file = own_file(folder, _SUFFIX)
    try:
        os.posix_fallocate(file, 0, (count + 1) * _CELL_BYTES)  # a full disk is told now, and not by a signal later
        os.pwrite(file, _MAGIC, 0)
    except OSError as error:
        raise unwritable(folder, error) from None
    return Sheet(path, file)


def left_sheets(folder: Path) -> list[Sheet]:
    """The sheets of processes that are dead, taken over; one that was not even begun is removed."""
    found: list[Sheet] = []
    for path, file in left_files(folder, _SUFFIX):
        if os.fstat(file).st_size < _CELL_BYTES:
            path.unlink(missing_ok=True)
            os.close(file)
            continue
        found.append(Sheet(path, file))
    return found
