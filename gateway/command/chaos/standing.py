"""`python -P -m gateway.command.chaos.standing DETOUR`: the house that is attacked, under its own supervisor.

It is what `tallygate up` starts, with two flushers, so that one can take over from the other, and with gateways
that reach Valkey by a detour, so that their network can fail. When everything is ready, the addresses of its
servers are written into the data folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from billing_core.errors import ConfigurationError, Unavailable
from gateway.command.machine.plan import make_plan
from gateway.command.machine.supervisor import Supervisor

IN_USE: Final = 2
"""The exit status where another process still has the folder or a port."""

_FLUSHERS: Final = 2
_SHARED: Final = (
    "TALLYGATE_BILLING_POSTGRES_URL",
    "TALLYGATE_BILLING_REDIS_URL",
    "TALLYGATE_BILLING_ROOT_TOKEN",
)


def told_file(folder: Path) -> Path:
    """Where a house that stands says how its servers are reached."""
    return folder / "standing.json"


def main() -> None:
    """Stand until a signal comes."""
    plan = make_plan(None, os.environ)
    supervisor = Supervisor(plan, tell=_say, detour=sys.argv[1], flushers=_FLUSHERS)
    try:
        with supervisor.standing():
            shared = {name: supervisor.environment[name] for name in _SHARED}
            fresh = told_file(plan.folder).with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_bytes(msgspec.json.encode(shared))
            fresh.replace(told_file(plan.folder))
            supervisor.herd.watch()
    except KeyboardInterrupt:
        _say("everything is stopped")
    except ConfigurationError as failure:
        _say(failure.detail)
        sys.exit(IN_USE)
    except Unavailable as failure:
        _say(failure.detail)
        sys.exit(1)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
