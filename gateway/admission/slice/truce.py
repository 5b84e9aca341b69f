"""A truce: nobody slices one customer's units for a moment, because somebody ran short of them.

An order that Redis refuses for a limit or a balance may lack only what workers have set aside. Then its worker
settles its own slices, tells all others by push to do the same, and waits until the holds that were slices are
gone, for as long as the order's deadline allows; then the order is decided again. All orders that run short in the
meantime wait for the same truce. While it lasts, no worker that has heard of it takes a slice of this customer's,
so a refusal is true, and nobody has to look again for half of that time.

A slice that nobody ends in time is a dead worker's: whoever comes after it settles it. It is not waited for again.

Worked example: 10 units are left, worker A has set them aside and used 4, and worker B is asked for one: refused.
B pushes, A settles 4 and gives 6 back, B asks again: allowed, 5 are left. For a second both ask Redis each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from billing_core.contract.keys import INVALIDATION_CHANNEL, slices_push
from billing_core.errors import Unavailable
from gateway.admission.caller import Caller
from gateway.admission.deadline import Deadline
from gateway.admission.slice.slice import owner_of
from gateway.admission.slice.slicer import Slicer, slice_seconds
from gateway.settings import GatewaySettings
from gateway.state.cache import Cache
from gateway.state.link import Link
from gateway.state.resp import ErrorReply

_POLL_S: Final = 0.002
_PATIENCE_S: Final = 1.0
_MEMORY_S: Final = 60.0
_COUNT: Final = 10_000

Yield = Callable[[str], Coroutine[Any, Any, int]]
"""Settles this worker's own slices of a customer, and says how many there were."""

Work = Callable[[Caller], Coroutine[Any, Any, bool]]


class Truce:
    """What this worker knows of truces, and of who has slices at all."""

    def __init__(
        self,
        bulk: Link,
        slicer: Slicer,
        *,
        settings: GatewaySettings,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._bulk = bulk
        self._slicer = slicer
        self._now_s = now_s
        self._settings = settings
        self._length_s = slice_seconds(settings)
        self._known: Cache[str, bool] = Cache(_COUNT)
        self._until_s: Cache[str, bool] = Cache(_COUNT)
        self._settled: Cache[str, bool] = Cache(_COUNT)
        self._stuck: Cache[str, bool] = Cache(_COUNT)
        self._making: dict[str, asyncio.Task[bool]] = {}
        self._learning: dict[str, asyncio.Task[bool]] = {}

    def knows(self, caller: Caller) -> bool | None:
        """Whether the customer has features that are sliced; None where that is not known."""
        return self._known.at_hand(owner_of(caller), now_s=self._now_s())

    def note(self, caller: Caller, *, is_sliced: bool) -> None:
        """What the customer's snapshot says; a new one that says that they are is pushed."""
        until_s = self._now_s() + _MEMORY_S
        self._known.keep(owner_of(caller), is_sliced, until_s=until_s, generation=self._known.generation)

    async def learns(self, caller: Caller, *, deadline: Deadline) -> bool:
        """Whether the customer has features that are sliced; asked where that is not known."""
        known = self.knows(caller)
        if known is None:
            return await self._by(deadline, caller, tasks=self._learning, work=self._learn)
        return known

    async def learn(self, caller: Caller) -> None:
        """Ask, for whoever wants to know later."""
        await self._begun(caller, tasks=self._learning, work=self._learn)

    def hear(self, owner: str) -> None:
        """A truce has begun, or the customer's terms are others: for a moment nothing of it is sliced."""
        self._mark(self._known, owner, for_s=_MEMORY_S)
        self._mark(self._until_s, owner, for_s=self._length_s)

    def holds(self, owner: str) -> bool:
        """Whether there is a truce."""
        return self._until_s.at_hand(owner, now_s=self._now_s()) is not None

    async def make(self, caller: Caller, yield_own: Yield, *, deadline: Deadline) -> bool:
        """Make a truce, or join the one that is being made; whether anything came back by the deadline."""
        if self._settled.at_hand(owner_of(caller), now_s=self._now_s()) is not None:
            return False
        return await self._by(deadline, caller, tasks=self._making, work=partial(self._make, yield_own=yield_own))

    async def _by(
        self, deadline: Deadline, caller: Caller, *, tasks: dict[str, asyncio.Task[bool]], work: Work
    ) -> bool:
        """What comes of the work for this customer, which all who want it wait for; False where it takes longer."""
        task = self._begun(caller, tasks=tasks, work=work)
        await asyncio.wait((task,), timeout=deadline.left_ms() / 1_000)
        return task.done() and task.result()

    @staticmethod
    def _begun(caller: Caller, *, tasks: dict[str, asyncio.Task[bool]], work: Work) -> asyncio.Task[bool]:
        """The task that does this work for the customer; one for all who want it."""
        owner = owner_of(caller)
        task = tasks.get(owner)
        if task is None:
            task = tasks[owner] = asyncio.create_task(work(caller))
            task.add_done_callback(lambda _: tasks.pop(owner, None))
        return task

    async def _learn(self, caller: Caller) -> bool:
        try:
            is_sliced = bool(await self._slicer.units_of(caller))
        except Unavailable:
            return False
        self.note(caller, is_sliced=is_sliced)
        return is_sliced

    async def _make(self, caller: Caller, *, yield_own: Yield) -> bool:
        owner = owner_of(caller)
        self.hear(owner)
        try:
            await self._push(caller)
            has_yielded = await yield_own(owner) > 0
            others = await self._others(caller)
            has_yielded = await self._wait(caller, others) or has_yielded
        except Unavailable:
            return False
        self._mark(self._settled, owner, for_s=self._length_s / 2)
        return has_yielded

    async def _others(self, caller: Caller) -> set[str]:
        """Slices of this customer's that stand; those of dead workers apart. Raises: Unavailable."""
        now_s = self._now_s()
        found = await self._slicer.slices_of(caller)
        return {hold_id for hold_id in found if self._stuck.at_hand(hold_id, now_s=now_s) is None}

    async def _push(self, caller: Caller) -> None:
        words = ("PUBLISH", INVALIDATION_CHANNEL, slices_push(caller.tenant_id, caller.customer_id))
        with contextlib.suppress(ErrorReply):  # then they end by themselves, within a moment
            await self._bulk.send(words, deadline_ms=self._settings.bulk_deadline_ms)

    async def _wait(self, caller: Caller, others: set[str]) -> bool:
        """Whether one of them has ended, once all have or nobody believes in it any more. Raises: Unavailable."""
        until_s, standing = self._now_s() + _PATIENCE_S + self._length_s, others
        while standing and self._now_s() < until_s:
            await asyncio.sleep(_POLL_S)
            standing = await self._slicer.standing(caller, standing)
        for hold_id in standing:
            self._mark(self._stuck, hold_id, for_s=_MEMORY_S)
        return standing != others

    def _mark(self, cache: Cache[str, bool], name: str, *, for_s: float) -> None:
        cache.keep(name, value=True, until_s=self._now_s() + for_s, generation=cache.generation)
