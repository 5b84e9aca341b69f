"""The courier brings to the gateway what stands in the spool, in its order, for as long as it takes.

What is answered is marked as sent, and what is refused for good is set aside. Where nobody answers, or the token is
not good, all of it stays and is tried again: with the same ids, so that what had been taken is a duplicate.

An act other than an event is known to the gateway for a day (`gateway.idempotency_window_ms`). One that is older is
set aside too: it may have been sent before, and nobody could tell any more whether it was done.

A check that was allowed because nobody answered (`on_outage="record"`) is first sent as it was: where an attempt
had come through, its answer comes again and nothing is charged twice. If it is refused, its work was done all the
same, and a record of it follows, which is never refused for want of money.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from billing_core.errors import Failure, Forbidden, TooLarge, Unauthenticated, Unavailable
from billing_core.values.clock import system_now, to_ms
from gateway.edge.wire import CheckAnswer, EventAnswer, EventsAnswer
from gateway.sdk import ask
from gateway.sdk.ask import Act
from gateway.sdk.spool import MAX_EVENTS, Parcel, Spool

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_KNOWN_MS: Final = 82_800_000


class Delivery:
    """The spool's next parcel, and what its answer means. It knows no socket and no clock's tick."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.fault = ""
        self._pause_s = _FIRST_PAUSE_S
        self._most = MAX_EVENTS

    def next(self) -> tuple[Parcel, Act[Any]] | None:
        """What is to be sent now; None where all is sent."""
        while True:
            parcel = self.spool.next(most=self._most)
            if parcel is None:
                return None
            if not parcel.at_ms:
                return parcel, ask.events(parcel.bodies)
            if to_ms(system_now()) - parcel.at_ms < _KNOWN_MS:
                is_check = parcel.path == "/v1/check"
                return parcel, Act(
                    path=parcel.path, body=parcel.bodies[0], answer=CheckAnswer if is_check else msgspec.Raw
                )
            self._set_aside(parcel, "too old to be sent: it may have been done, and nobody knows it any more")

    def answered(self, parcel: Parcel, answer: object) -> None:
        """Mark what was taken. Raises: Unavailable where some of it must be sent again."""
        if not isinstance(answer, EventsAnswer):
            if isinstance(answer, CheckAnswer) and not answer.allowed:
                self._refused(parcel, answer)
            else:
                self.spool.sent(parcel, 1)
            return self._went_well()
        if len(answer.results) != len(parcel.bodies):
            raise Unavailable("the answer has not one result for each event")
        count = 0
        for body, result in zip(parcel.bodies, answer.results, strict=True):
            why = _refused(result)
            if why is not None:
                self.spool.reject(body, why)
            elif result.status == "rejected":
                break
            count += 1
        self.spool.sent(parcel, count)
        if count < len(parcel.bodies):
            raise Unavailable("the gateway could not take all of it")
        return self._went_well()

    def failed(self, parcel: Parcel, failure: Failure) -> None:
        """Set aside what is itself at fault. Raises: the failure, where it must be sent again."""
        if failure.retry_is_safe or type(failure) is Failure or isinstance(failure, Unauthenticated | Forbidden):
            raise failure
        if len(parcel.bodies) > 1:
            self._most = len(parcel.bodies) // 2
        else:
            self._set_aside(parcel, f"{failure.code}: {failure.field} {failure.detail}")

    def pause_s(self, failure: Failure) -> float:
        """How long to wait after such a failure."""
        self.fault = failure.detail
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        return pause_s

    def _refused(self, parcel: Parcel, answer: CheckAnswer) -> None:
        """Set it aside, or ask in its other way; who dies before the mark does so again, under the same key."""
        if not parcel.otherwise:
            return self._set_aside(parcel, answer.reason.value)
        try:
            self.spool.put_act(Act(path=parcel.path, body=parcel.otherwise, answer=CheckAnswer))
        except TooLarge as full:
            raise Unavailable(full.detail) from None
        return self.spool.sent(parcel, 1)

    def _set_aside(self, parcel: Parcel, why: str) -> None:
        self.spool.reject(parcel.bodies[0], why)
        self.spool.sent(parcel, 1)

    def _went_well(self) -> None:
        self.fault, self._pause_s, self._most = "", _FIRST_PAUSE_S, MAX_EVENTS


class AsyncCourier:
    """Brings it in a task of the event loop."""

    def __init__(self, spool: Spool, send: Callable[[Act[Any]], Awaitable[object]]) -> None:
        self._delivery = Delivery(spool)
        self._send = send
        self._news, self._empty = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def is_alive(self) -> bool:
        """Whether it brings anything: one that the disk failed does not."""
        return not self._task.done()

    def notice(self) -> None:
        """There is something to bring."""
        self._empty.clear()
        self._news.set()

    async def flushed(self) -> None:
        """Wait until all is sent. Raises: whatever broke the courier."""
        waiting = asyncio.ensure_future(self._empty.wait())
        await asyncio.wait((waiting, self._task), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            waiting.cancel()
            await self._task

    async def stop(self) -> None:
        """Bring no more."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        delivery = self._delivery
        while True:
            due = delivery.next()
            if due is None:
                self._empty.set()
                await self._news.wait()
                self._news.clear()
                continue
            parcel, act = due
            try:
                try:
                    delivery.answered(parcel, await self._send(act))
                except Unavailable:
                    raise
                except Failure as failure:
                    delivery.failed(parcel, failure)
            except Failure as failure:
                await asyncio.sleep(delivery.pause_s(failure))


class Courier:
    """Brings it in a thread of its own."""

    def __init__(self, spool: Spool, send: Callable[[Act[Any]], object]) -> None:
        self._delivery = Delivery(spool)
        self._send = send
        self._change = threading.Condition()
        self._is_stopped, self._has_news, self._is_empty = False, False, False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="tallygate-courier", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it brings anything: after a fork, the child's does not."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def notice(self) -> None:
        """There is something to bring."""
        with self._change:
            self._is_empty, self._has_news = False, True
            self._change.notify_all()

    def flushed(self, *, within_s: float) -> bool:
        """Wait until all is sent; whether it is."""
        with self._change:
            return self._change.wait_for(lambda: self._is_empty, within_s)

    def stop(self) -> None:
        """Bring no more."""
        with self._change:
            self._is_stopped = True
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        delivery = self._delivery
        while not self._is_stopped:
            due = delivery.next()
            if due is None:
                self._wait_for_news()
                continue
            parcel, act = due
            try:
                try:
                    delivery.answered(parcel, self._send(act))
                except Unavailable:
                    raise
                except Failure as failure:
                    delivery.failed(parcel, failure)
            except Failure as failure:
                with self._change:
                    self._change.wait_for(lambda: self._is_stopped, delivery.pause_s(failure))

    def _wait_for_news(self) -> None:
        with self._change:
            if not self._has_news:
                self._is_empty = True
                self._change.notify_all()
                self._change.wait_for(lambda: self._has_news or self._is_stopped)
            self._has_news = False


def _refused(result: EventAnswer) -> str | None:
    """Why an event is refused for good; None where it is not."""
    problem = result.problem
    if result.status != "rejected" or isinstance(problem, msgspec.UnsetType) or problem.retry_is_safe:
        return None
    return f"{problem.code}: {problem.field} {problem.detail}"
