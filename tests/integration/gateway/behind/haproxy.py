"""Where Debian's HAProxy is, if `.ci/steps` could unpack it."""

from __future__ import annotations

from pathlib import Path

HOME = Path(__file__).parents[4] / ".venv" / "haproxy"
PROGRAM = HOME / "usr/sbin/haproxy"
LIBRARIES = ":".join(str(folder) for folder in HOME.glob("usr/lib/*-linux-gnu"))
SCRIPT = "proxies/tallygate.lua"
MISSING = "no HAProxy: apt-get could not download Debian's"
