"""The spool: what is to be told later stands on the disk first, and survives the process.

A line is written before `put` returns, in one write that the kernel has; so a process that is killed loses nothing
of it. A machine that dies loses what its kernel had not written yet, which may be half a minute; with `fsync` a
line is on the disk before `put` returns, and that takes as long as the disk does. Lines leave in their order, and
how far that went stands at the head of the file, written after the gateway's answer. Who dies in between sends
again what was taken already: each line has its own id, so that is a duplicate and not a second act.

Each process writes a file of its own, which it holds locked as long as it lives. A file that nobody holds is a
dead process' legacy: whoever opens a spool in the folder takes it over. What the gateway refuses for good is set
aside in `rejected.jsonl`, with the reason; nothing is dropped.

A file:    0000000000000042          how far it has been sent, in bytes, 16 digits and a line feed
           5e1f… e {"id": …}         checksum, kind, body: `e` an event, `a` another act with its path
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from billing_core.errors import ConfigurationError, TooLarge
from billing_core.values.clock import system_now, to_ms
from gateway.sdk.ask import Act

_SUFFIX: Final = ".spool"
_REJECTED: Final = "rejected.jsonl"
_HEAD_BYTES: Final = 17
_ROLL_BYTES: Final = 4_194_304
_CHUNK_BYTES: Final = 262_144
MAX_EVENTS: Final = 500
_EVENT, _ACT = b"e", b"a"
_NONE: Final = msgspec.Raw(b"null")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An act on the disk; and the one that follows it if it is a check that is refused."""

    path: str
    at_ms: int
    body: msgspec.Raw
    otherwise: msgspec.Raw = _NONE


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """What goes next: events together, or one other act. `sizes` are the bytes of its lines.

    `otherwise` is what the same path is asked if the act is refused; empty: nothing.
    """

    path: str
    bodies: list[bytes]
    sizes: list[int]
    at_ms: int = 0
    otherwise: bytes = b""


class _File:
    """One file of lines, locked."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.handle = handle
        self.sent = _HEAD_BYTES
        self.size = os.fstat(handle).st_size
        if self.size >= _HEAD_BYTES:
            self.sent = max(_HEAD_BYTES, int(os.pread(handle, _HEAD_BYTES, 0) or b"0"))
        else:
            self.size = os.pwrite(handle, _head(_HEAD_BYTES), 0)

    def append(self, line: bytes, *, fsync: bool) -> None:
        written = os.pwrite(self.handle, line, self.size)
        if written != len(line):
            os.ftruncate(self.handle, self.size)
            raise OSError("the disk is full")
        self.size += written
        if fsync:
            os.fdatasync(self.handle)

    def mark(self, sent: int) -> None:
        self.sent = sent
        os.pwrite(self.handle, _head(sent), 0)

    def lines(self) -> list[bytes]:
        """The next whole lines, each with its line feed; a torn one at the end was promised to nobody."""
        chunk = os.pread(self.handle, min(_CHUNK_BYTES, self.size - self.sent), self.sent)
        if b"\n" not in chunk:
            chunk = os.pread(self.handle, self.size - self.sent, self.sent)
        return chunk[: chunk.rfind(b"\n") + 1].splitlines(keepends=True)

    def close(self) -> None:
        os.close(self.handle)


class Spool:
    """A folder of such files, and this process' own among them. For all threads of a process."""

    def __init__(self, folder: Path, *, max_bytes: int = 268_435_456, fsync: bool = False) -> None:
        """Open it, and take over what dead processes left. Raises: ConfigurationError."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._lock = threading.RLock()
        self.rejected_count = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._files = _legacies(folder)
            self._files.append(_fresh(folder, fsync=fsync))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{folder}: cannot be used: {error}", field="spool") from None
        child = weakref.WeakMethod(self._forked)
        os.register_at_fork(after_in_child=lambda: _call(child()))

    @property
    def waiting_bytes(self) -> int:
        """How much is still to be sent."""
        with self._lock:
            return sum(file.size - file.sent for file in self._files)

    def put_event(self, raw: bytes) -> None:
        """Keep an event. Raises: TooLarge where the spool is full; OSError."""
        self._put(_EVENT, raw)

    def put_act(self, act: Act[Any], *, otherwise: bytes = b"") -> None:
        """Keep an act that has a name of its own, and what to ask if it is refused. Raises: as `put_event`."""
        then = msgspec.Raw(otherwise) if otherwise else _NONE
        kept = Kept(path=act.path, at_ms=to_ms(system_now()), body=msgspec.Raw(act.body), otherwise=then)
        self._put(_ACT, msgspec.json.encode(kept))

    def next(self, *, most: int = MAX_EVENTS) -> Parcel | None:
        """What is to be sent next, oldest first, `most` events at once; None where all is sent."""
        with self._lock:
            while True:
                file = self._files[0]
                lines = file.lines() if file.sent < file.size else []
                if lines:
                    parcel = self._parcel(file, lines, most=most)
                    if parcel is None:
                        continue
                    return parcel
                if len(self._files) == 1:
                    if file.size > _ROLL_BYTES:  # all of it is sent: begin anew
                        self._files.append(_fresh(self._folder, fsync=self._fsync))
                    else:
                        return None
                file.path.unlink()
                file.close()
                del self._files[0]

    def sent(self, parcel: Parcel, count: int) -> None:
        """The first `count` of a parcel need not be sent again."""
        with self._lock:
            file = self._files[0]
            file.mark(file.sent + sum(parcel.sizes[:count]))

    def reject(self, body: bytes, why: str) -> None:
        """Set something aside, with the reason."""
        with self._lock:
            self.rejected_count += 1
            line = msgspec.json.encode({"why": why, "body": body.decode(errors="replace")})
            with (self._folder / _REJECTED).open("ab") as file:
                file.write(line + b"\n")

    def close(self) -> None:
        """Leave it; what is not sent is left to whoever opens it next, and an empty file goes."""
        with self._lock:
            for file in self._files:
                if file.sent >= file.size:
                    file.path.unlink()
                file.close()
            self._files = []

    def _put(self, kind: bytes, body: bytes) -> None:
        text = b"%b %b\n" % (kind, body)
        line = b"%08x %b" % (zlib.crc32(text), text)
        with self._lock:
            if self.waiting_bytes + len(line) > self._max_bytes:
                raise TooLarge(f"more than {self._max_bytes} bytes wait for the gateway", field="spool")
            if self._files[-1].size > _ROLL_BYTES:
                self._files.append(_fresh(self._folder, fsync=self._fsync))
            self._files[-1].append(line, fsync=self._fsync)

    def _forked(self) -> None:
        """After a fork the files are the parent's: the child has one of its own."""
        self._lock = threading.RLock()
        for file in self._files:
            file.close()
        self._files = [_fresh(self._folder, fsync=self._fsync)] if self._files else []

    def _parcel(self, file: _File, lines: list[bytes], *, most: int) -> Parcel | None:
        """What leads the lines; None where that was set aside."""
        bodies: list[bytes] = []
        for line in lines:
            kind, body = _opened(line)
            if kind != _EVENT or len(bodies) == most:
                break
            bodies.append(body)
        if bodies:
            sizes = [len(line) for line in lines[: len(bodies)]]
            return Parcel(path="/v1/events", bodies=bodies, sizes=sizes)
        kind, body = _opened(lines[0])
        if kind == _ACT:
            kept = msgspec.json.decode(body, type=Kept)
            then = b"" if kept.otherwise == _NONE else bytes(kept.otherwise)
            size = len(lines[0])
            return Parcel(path=kept.path, bodies=[bytes(kept.body)], sizes=[size], at_ms=kept.at_ms, otherwise=then)
        self.reject(lines[0], "the disk changed it")
        file.mark(file.sent + len(lines[0]))
        return None


def _opened(line: bytes) -> tuple[bytes, bytes]:
    """Kind and body of a line; no kind where it is not what was written."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return b"", line
    return text[:1], text[2:-1]


def _call(method: Callable[[], None] | None) -> None:
    if method is not None:
        method()


def _head(sent: int) -> bytes:
    return b"%016d\n" % sent


def _fresh(folder: Path, *, fsync: bool) -> _File:
    """A file of our own. Who looks for legacies in the moment before it is locked may have it: then another."""
    while True:
        path = folder / f"{to_ms(system_now()):016d}-{secrets.token_hex(8)}{_SUFFIX}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if _is_ours(handle):
            file = _File(path, handle)
            if fsync:
                _keep_name(folder, handle)
            return file
        os.close(handle)


def _keep_name(folder: Path, handle: int) -> None:
    """A file is on the disk only with its name in the folder."""
    os.fsync(handle)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _is_ours(handle: int) -> bool:
    """Whether it could be locked, and is still there."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(handle).st_nlink > 0


def _legacies(folder: Path) -> list[_File]:
    """Files that nobody holds, oldest first, now held by this process."""
    found: list[_File] = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        if _is_ours(handle):
            found.append(_File(path, handle))
        else:
            os.close(handle)
    return found
