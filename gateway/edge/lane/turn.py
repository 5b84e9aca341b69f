"""One request's turn on its connection: its handler is run by hand, and its answer waits until it may be told.

A handler asks Redis and waits once. A task for that would cost more than the handler: it is a loop of its own, with
a start and an end that the event loop has to come round to. So the coroutine is run where the request was read,
until it waits for a future; when that is done, it is run on from there.

What needs to be a task (whoever asks for `asyncio.current_task`, and a tracer's context) is none of a handler's
business on the lane; where there is a tracer, the lane makes tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.edge.message import Answer


class Turn:
    """A coroutine that is on its way to an answer; `tell` is called once it has ended, at once or later.

    Without an answer it has broken, and nothing can be told any more.
    """

    __slots__ = ("_coroutine", "_tell", "answer", "is_done", "is_last")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Answer | None], tell: Callable[[], None], *, is_last: bool
    ) -> None:
        self._coroutine = coroutine
        self._tell = tell
        self.is_last = is_last
        self.is_done = False
        self.answer: Answer | None = None

    def run(self, _: object = None) -> None:
        """Run on until the next wait, or to the end."""
        try:
            waited = self._coroutine.send(None)
        except StopIteration as end:
            self.answer = end.value
        except BaseException:
            self.is_done = True
            self._tell()
            raise
        else:
            self._wait_for(waited)
            return
        self.is_done = True
        self._tell()

    def _wait_for(self, waited: Any) -> None:
        if waited is None:  # `asyncio.sleep(0)`: the others first
            asyncio.get_running_loop().call_soon(self.run)
            return
        waited._asyncio_future_blocking = False  # noqa: SLF001 - as a task does that has seen what it waits for
        waited.add_done_callback(self.run)
