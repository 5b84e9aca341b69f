"""Files of a process' own: what it writes there outlives it, and whoever comes after finds it.

Each process makes a file in a folder that all processes of the machine share, and holds it locked as long as it
lives. A file that nobody holds is a dead process' legacy: whoever finds it first takes it over, holds it locked in
its turn, and finishes what it leaves to be done.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from billing_core.errors import ConfigurationError


def own_file(folder: Path, suffix: str, *, flags: int = 0) -> tuple[Path, int]:
    """A new file in the folder, open for reading and writing, and locked. Raises: ConfigurationError, one line."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{secrets.token_hex(8)}{suffix}"
        unborn = path.with_suffix(".unborn")  # nobody may find it before it is held
        file = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unborn.rename(path)
    except OSError as error:
        raise unwritable(folder, error) from None
    return path, file


def unwritable(folder: Path, error: OSError) -> ConfigurationError:
    """What is told of a folder in which nothing can be written down."""
    return ConfigurationError(f"journal_dir: {folder}: cannot be written: {error.strerror}", field="journal_dir")


def left_files(folder: Path, suffix: str, *, flags: int = 0) -> list[tuple[Path, int]]:
    """All such files that nobody holds, taken over: open and locked until they are closed."""
    found: list[tuple[Path, int]] = []
    for path in sorted(folder.glob(f"*{suffix}")):
        try:
            file = os.open(path, os.O_RDWR | flags)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        if not path.exists():  # its process has removed it just now
            os.close(file)
            continue
        found.append((path, file))
    return found
