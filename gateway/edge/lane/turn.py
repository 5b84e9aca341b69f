"""One request's turn on its connection: its answer waits until it may be told.

On the straight way somebody hands the answer in. Else a handler is run, and by hand: it asks Redis and waits once,
and a task for that would cost more than the handler, because it is a loop of its own, with a start and an end that
the event loop has to come round to. So the coroutine is run where the request was read, until it waits for a
future; when that is done, it is run on from there.

What needs to be a task (whoever asks for `asyncio.current_task`, and a tracer's context) is none of a handler's
business on the lane; where there is a tracer, the lane makes tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

Told = TypeVar("Told")


class Turn(msgspec.Struct, Generic[Told], kw_only=True, eq=False):
    """What a request is to become; `tell` is called once it is done, at once or later.

    Done without an answer it has broken, and nothing can be told any more.
    """

    tell: Callable[[], None]
    is_last: bool
    is_done: bool = False
    answer: Told | None = None

    def take(self, answer: Told | None) -> None:
        """This is the answer."""
        self.answer = answer
        self.is_done = True
        self.tell()

    def run(self, coroutine: Coroutine[Any, Any, Told | None], _: object = None) -> None:
        """Run the coroutine whose end is the answer until its next wait, or to its end."""
        try:
            waited = coroutine.send(None)
        except StopIteration as end:
            answer: Told | None = end.value
        except BaseException:
            self.take(None)
            raise
        else:
            self._wait_for(waited, coroutine)
            return
        self.take(answer)

    def _wait_for(self, waited: Any, coroutine: Coroutine[Any, Any, Told | None]) -> None:
        if waited is None:  # `asyncio.sleep(0)`: the others first
            asyncio.get_running_loop().call_soon(self.run, coroutine)
            return
        waited._asyncio_future_blocking = False  # noqa: SLF001 - as a task does that has seen what it waits for
        waited.add_done_callback(partial(self.run, coroutine))
