"""Who works in a house, found as the kernel knows it: the supervisor's children by what they were started as."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_BILLING_ROLES: Final = b"TALLYGATE_BILLING_ROLES="


def workers_of(supervisor: int) -> dict[str, list[int]]:
    """The supervisor's children by name: gateway, flusher, billing, valkey, postgres."""
    found: dict[str, list[int]] = defaultdict(list)
    for pid in _children_of([supervisor], _parents()):
        name = _name_of(pid)
        if name:
            found[name].append(pid)
    return found


def lives(pid: int) -> bool:
    """Whether the process is still there, and be it as a zombie that nobody has waited for."""
    return (_PROC / str(pid)).exists()


def with_descendants(pid: int) -> list[int]:
    """The process and everybody below it, itself first."""
    parents, found, latest = _parents(), [pid], [pid]
    while latest:
        latest = _children_of(latest, parents)
        found += latest
    return found


def _children_of(pids: list[int], parents: dict[int, int]) -> list[int]:
    return sorted(pid for pid, parent in parents.items() if parent in pids)


def _parents() -> dict[int, int]:
    """The parent of every process that lives."""
    parents: dict[int, int] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent, *_ = (folder / "stat").read_text("ascii", "replace").rsplit(") ", 1)[1].split()
                if state != "Z":
                    parents[int(folder.name)] = int(parent)
    return parents


def _name_of(pid: int) -> str:
    """What the process was started as; "" where it is somebody else or gone."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        program = (_PROC / str(pid) / "exe").readlink().name  # a server writes what it likes into its command line
    except OSError:
        return ""
    if b"gateway.edge" in words:
        return "gateway"
    if b"billing_core.worker" in words:
        return "flusher" if _BILLING_ROLES + b"flush" in environment else "billing"
    return {"valkey-server": "valkey", "postgres": "postgres"}.get(program, "")
