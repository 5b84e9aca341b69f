"""A billing worker that is struck at one stated point of its work, once: `python -m tests.chaos.stream.saboteur`.

The process is the real one, with the settings of its environment; only at the point it sends itself the signal.
SIGKILL ends it there; SIGSTOP leaves it standing with its connections open until somebody sends SIGCONT, and then
it goes on as if nothing had happened.

Arguments: the point, the signal's name.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from billing_core import worker
from billing_core.adapters.projection import Projection
from billing_core.adapters.shard_image import ShardImages
from billing_core.adapters.usage_stream import UsageStream
from billing_core.flows import ingest
from billing_core.flows.rebuild import Builder
from billing_core.store import usage

Asks = Callable[..., bool]


def always(*_: Any, **__: Any) -> bool:
    return True


def trims_something(_: Any, written_to: Any) -> bool:
    return bool(written_to)


def tells_a_grant(_: Any, acts: Any) -> bool:
    return any(act.script == "grant" for act in acts)


def takes_something_out(_: Any, acts: Any) -> bool:
    return any(act.script == "lapse" for act in acts)


POINTS: dict[str, tuple[Any, str, Asks, str]] = {
    # the flusher
    "read-not-committed": (ingest._Flusher, "_commit", always, "before"),
    "written-not-committed": (usage, "append_movements", always, "after"),
    "committed-not-trimmed": (UsageStream, "trim", trims_something, "before"),
    # the relay
    "grant-taken-not-told": (Projection, "run", tells_a_grant, "before"),
    "grant-told-not-noted": (Projection, "run", tells_a_grant, "after"),
    "lapse-told-not-noted": (Projection, "run", takes_something_out, "after"),
    # the builder
    "shard-fenced": (ShardImages, "fence", always, "after"),
    "epoch-raised": (Builder, "_read", always, "before"),
    "shard-written-not-opened": (ShardImages, "open", always, "before"),
    "shard-opened": (ShardImages, "open", always, "after"),
}


def arm(point: str, blow: signal.Signals) -> None:
    """Put the blow at the point."""
    owner, name, asks, when = POINTS[point]
    original = getattr(owner, name)
    struck = False

    def strike() -> None:
        nonlocal struck
        struck = True
        os.kill(os.getpid(), blow)

    @functools.wraps(original)
    async def struck_at(*args: Any, **more: Any) -> Any:
        is_hit = not struck and asks(*args, **more)
        if is_hit and when == "before":
            strike()
        done = await original(*args, **more)
        if is_hit and when == "after":
            strike()
        return done

    setattr(owner, name, struck_at)


if __name__ == "__main__":
    arm(sys.argv[1], signal.Signals[sys.argv[2]])
    sys.exit(worker.main())
