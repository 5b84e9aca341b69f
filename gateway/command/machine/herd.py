"""Children that are kept alive, and stopped in order.

A post is a place that some process fills: "gateway 2", "flusher", "valkey". When its process dies, the post is
filled again, after a pause that doubles with every death in a row and is forgotten once a process has lived for a
while. Posts have ranks. They are filled in rising rank by who calls, and emptied in falling rank: those of one rank
are asked together and then waited for, so that gateways finish their requests while the flusher still runs, and the
flusher its last batch while Postgres still runs.
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from typing import Final

import msgspec

from billing_core.errors import Failure
from gateway.command.embedded.process import Child

_FIRST_PAUSE_MS: Final = 100
_LONGEST_PAUSE_MS: Final = 5_000
_SETTLED_MS: Final = 10_000  # who lived so long did not die of how it was started
_BREATH_MS: Final = 1_000


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """A place to be filled: how a process for it begins, and how it is asked to end."""

    name: str
    rank: int
    begin: Callable[[], Child]
    farewell: signal.Signals = signal.SIGTERM
    patience_ms: int = 10_000


class _Place:
    """A post and who fills it now."""

    def __init__(self, post: Post, child: Child) -> None:
        self.post = post
        self.child: Child | None = child
        self.begun_ms = _now_ms()
        self.due_ms = 0.0
        self.deaths = 0


class Herd:
    """All posts of one supervisor.

    `tell` receives one line for everything worth knowing; `healthy` is asked, after a death, whether all is well.
    """

    def __init__(self, tell: Callable[[str], None], *, healthy: Callable[[], bool] = lambda: True) -> None:
        self._tell = tell
        self._healthy = healthy
        self._places: list[_Place] = []
        self._disturbed = False

    def fill(self, post: Post) -> Child:
        """Begin a process for a new post.

        Raises: ConfigurationError where it cannot be started.
        """
        return self.adopt(post, post.begin())

    def adopt(self, post: Post, child: Child) -> Child:
        """Take over a process that was begun already."""
        self._places.append(_Place(post, child))
        return child

    def watch(self) -> None:
        """Fill posts again whose process died; it ends with the exception of a signal's handler."""
        while True:
            self._await_death()
            for place in self._places:
                self._tend(place)
            if self._disturbed and all(place.child for place in self._places) and self._healthy():
                self._disturbed = False
                self._tell("everything is ready again")

    def stop(self) -> None:
        """Empty all posts, highest rank first."""
        for rank in sorted({place.post.rank for place in self._places}, reverse=True):
            leaving = [(place.post, place.child) for place in self._places if place.post.rank == rank]
            for post, child in leaving:
                if child is not None:
                    child.signal(post.farewell)
            for post, child in leaving:
                if child is not None and not child.finish(timeout_ms=post.patience_ms):
                    self._tell(f"{post.name} did not stop in {post.patience_ms} ms and was killed")

    def kill(self) -> None:
        """End everybody at once."""
        for place in self._places:
            if place.child is not None:
                place.child.stop(signal.SIGKILL, timeout_ms=_BREATH_MS)

    def _await_death(self) -> None:
        waiting = select.poll()
        for place in self._places:
            if place.child is not None:
                waiting.register(place.child.pidfd, select.POLLIN)
        dues = [place.due_ms - _now_ms() for place in self._places if place.child is None]
        waiting.poll(max(0.0, min([*dues, _FIRST_PAUSE_MS if self._disturbed else _BREATH_MS])))

    def _tend(self, place: _Place) -> None:
        if place.child is not None:
            if place.child.exit_status() is None:
                return
            self._bury(place, place.child)
        if place.due_ms <= _now_ms():
            self._fill_again(place)

    def _bury(self, place: _Place, child: Child) -> None:
        settled = _now_ms() - place.begun_ms > _SETTLED_MS
        place.deaths = 1 if settled else place.deaths + 1
        pause_ms = min(_FIRST_PAUSE_MS * 2 ** (place.deaths - 1), _LONGEST_PAUSE_MS)
        place.child, place.due_ms = None, _now_ms() + pause_ms
        self._disturbed = True
        status = child.exit_status()
        child.finish(timeout_ms=0)
        self._tell(f"{place.post.name} died with status {status}; again in {pause_ms} ms: {child.last_words()}")

    def _fill_again(self, place: _Place) -> None:
        try:
            place.child = place.post.begin()
        except Failure as failure:
            place.deaths += 1
            place.due_ms = _now_ms() + _LONGEST_PAUSE_MS
            self._tell(f"{place.post.name} cannot be started again: {failure.detail}")
        else:
            place.begun_ms = _now_ms()


def _now_ms() -> float:
    return time.monotonic() * 1_000
