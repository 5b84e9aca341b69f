"""A full disk for Valkey, which needs no root and hurts nobody else.

The kernel is told that no file of the server may grow beyond a size (RLIMIT_FSIZE): the write that would pass it is
cut short, the next one fails, as on a device without space, and Valkey says so in the same words ("No space left on
device"). With `everysec` it refuses writes until one succeeds again; with `always` it ends, because it cannot take
back what it was about to answer, and it ends again at every start until there is space.

By itself the kernel also sends SIGXFSZ, which would kill. So the house starts Valkey through a small program that
ignores it, and that sets the limit again for a server which starts while the disk is full.
"""

from __future__ import annotations

import resource
import shlex
from pathlib import Path
from typing import Final

from gateway.command.embedded.valkey import packaged_binary

_SLACK_BYTES: Final = 2_048
_BLOCK_BYTES: Final = 512  # what `ulimit -f` counts in
_BOUNDLESS: Final = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


class Disk:
    """The disk of the Valkey in this data folder."""

    def __init__(self, folder: Path) -> None:
        self._appended = folder / "valkey" / "appendonlydir"
        self._mark = folder / "disk-is-full"
        self.program = folder / "valkey-on-small-disk"

    def prepare(self) -> None:
        """Write the program that starts Valkey."""
        mark, binary = shlex.quote(str(self._mark)), shlex.quote(str(packaged_binary()))
        self.program.write_text(
            f'#!/bin/sh\ntrap \'\' XFSZ\n[ ! -e {mark} ] || ulimit -S -f "$(cat {mark})"\nexec {binary} "$@"\n'
        )
        self.program.chmod(0o700)

    def fill(self, pid: int) -> None:
        """Leave hardly any space; `pid` is the server that runs now."""
        blocks = (self._largest_bytes() + _SLACK_BYTES) // _BLOCK_BYTES
        self._mark.write_text(f"{blocks}\n")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (blocks * _BLOCK_BYTES, resource.RLIM_INFINITY))

    def clear(self, pids: list[int]) -> None:
        """Give the space back, also to the servers that run now."""
        self._mark.unlink(missing_ok=True)
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, _BOUNDLESS)

    def _largest_bytes(self) -> int:
        return max((file.stat().st_size for file in self._appended.iterdir()), default=0)
