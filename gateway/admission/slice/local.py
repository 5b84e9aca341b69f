"""Local decisions: what a worker allows by itself, out of slices that it has taken.

An order is decided here only where a slice covers it and nothing else has to be known: one charge of one feature,
to be consumed, under no idempotency key (every worker would have to find its answer again), not in shadow mode and
without a receipt. All else, and whatever no slice covers, is decided by Redis as ever.

    never an overspend    what is allowed here was set aside by a hold before; it is used for `slice_ms` after the
                          hold was asked for, and settled long before the hold's end
    nothing lost, nothing twice
                          each slice becomes one usage event, with the sum of what was used; what was used stands in
                          the sheet before the answer leaves, and a killed worker's sheet is settled by the next
    fresh                 a slice knows what Redis knew when it was taken, at most `slice_ms` ago. A new snapshot
                          (suspension, other plan) and whoever runs short are pushed to all workers: then the
                          customer's slices end at once. Who the caller is is looked at for every order
    counted               a slice counts against limits and wallet while it is held, and in the window and billing
                          period of its settlement: at most `slice_ms` and a settlement after it was used
    fair                  Redis refuses nobody for units that other workers have set aside: they give way first

A machine that is lost has its slices set aside until their holds end (`slice_ttl_ms`); then they are released, and
what was used of them since they were taken is charged when its disk comes back, and else to nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from billing_core.contract.keys import SLICES_PREFIX
from billing_core.errors import Unavailable
from gateway.admission.caller import Caller
from gateway.admission.deadline import Deadline
from gateway.admission.decision import Decision
from gateway.admission.order import Mode, Order
from gateway.admission.slice.slice import Kind, Slice, SliceTally, Stand, Stands, owner_of
from gateway.admission.slice.slicer import Slicer, slice_seconds
from gateway.admission.slice.truce import Truce
from gateway.settings import GatewaySettings

_LOOKS: Final = 8
_LOOK_S: Final = 0.1
_LEGACY_S: Final = 5.0


class LocalDecisions:
    """The slices of one worker; `keep` runs until it is cancelled, `stop` once after that."""

    def __init__(
        self,
        slicer: Slicer,
        truce: Truce,
        *,
        settings: GatewaySettings,
        is_told: Callable[[], bool],
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`is_told`: whether pushes arrive; nothing is taken while they do not."""
        self._slicer = slicer
        self._truce = truce
        self._settings = settings
        self._is_told = is_told
        self._now_s = now_s
        self._slice_s = slice_seconds(settings)
        self._after_count = settings.slice_after_count
        self._stands = Stands()
        self._heat: dict[Kind, int] = {}
        self._cool_s = now_s()
        self._barred: dict[Kind, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self.tally: SliceTally = slicer.tally

    def allow(self, caller: Caller, order: Order, *, is_known: bool = False) -> Decision | None:
        """The decision on an order that a slice covers; None where Redis decides.

        `is_known`: where there is none, this very order is looked at once more, and counted then.
        """
        charges = order.charges
        if order.idempotency_key or len(charges) != 1 or order.mode is not Mode.CONSUME:
            return None
        charge = charges[0]
        units, kind = charge.quantity, (caller.keys.snapshot, caller.path, caller.key_hint, charge.feature)
        stand = self._stands.of_kind.get(kind)
        if stand is None:
            if not is_known:
                self._warm(kind, caller)
            return None
        if units <= 0 or charge.is_level or order.shadow or order.attested or caller.is_remembered:
            return None
        piece, now_s = stand.in_use, self._now_s()
        if piece is None or units > piece.left or now_s >= piece.until_s:
            piece = self._turned(stand, units, now_s=now_s)
            if piece is None:
                return None
        if not piece.order_count:  # Redis decides the first, and tells what else is to be known from time to time
            piece.order_count = 0 if is_known else 1
            return None
        if piece.left <= stand.low_units and not stand.is_asked and stand.following is None:
            self._ask(kind, stand, units=piece.units)
        self.tally.decided += 1
        return piece.take(units)

    def matters_to(self, caller: Caller) -> bool:
        """Whether some worker may have slices of this customer's; where that is not known, it soon will be."""
        is_known = self._truce.knows(caller)
        if is_known is None:
            self._spawn(self._truce.learn(caller))
        return is_known is not False

    async def give_way(self, caller: Caller, *, deadline: Deadline) -> bool:
        """Have all slices of this customer settled, here and by other workers; whether any was.

        For an order that ran short: what was set aside may be what it lacks.
        """
        if not await self._truce.learns(caller, deadline=deadline):
            return False
        return await self._truce.make(caller, self._yielded, deadline=deadline)

    def hear(self, payload: str) -> None:
        """A push message: the customer's terms have changed, or somebody runs short of what is set aside here."""
        if payload.startswith(SLICES_PREFIX):
            owner = payload.removeprefix(SLICES_PREFIX)
            self._truce.hear(owner)
            self._end_all(self._close(owner))

    def left_units(self) -> int:
        """Units that could still be allowed out of slices."""
        return self._stands.left_units()

    async def keep(self) -> None:
        """Take slices ahead of need, end those that are over, and finish what dead workers left, for ever."""
        looked_s = -_LEGACY_S
        while True:
            if self._now_s() - looked_s >= _LEGACY_S:
                with contextlib.suppress(Unavailable):  # the link counts it; the next look comes soon
                    await self._slicer.finish_legacies()
                    looked_s = self._now_s()
            self._look()
            await self._slicer.end_owed()
            await asyncio.sleep(min(_LOOK_S, self._slice_s / _LOOKS))

    async def stop(self) -> None:
        """Settle all slices; what cannot be settled now stays in the sheet."""
        self._is_over = True
        for kind in list(self._stands.of_kind):
            self._end_all(self._stands.remove(kind))
        while self._tasks:
            await asyncio.gather(*self._tasks)
        await self._slicer.end_owed()
        self._slicer.close()

    def _warm(self, kind: Kind, caller: Caller) -> None:
        """Count an order that Redis decides; of a kind that comes often, the next ones are decided here."""
        count = self._heat[kind] = self._heat.get(kind, 0) + 1
        if count == self._after_count and not caller.is_remembered and not self._is_over:
            self._spawn(self._begin(kind, caller))

    async def _begin(self, kind: Kind, caller: Caller) -> None:
        """Put up a stand for a kind that comes often, where its feature is sliced."""
        if not self._is_free(kind, caller) or len(self._stands.of_kind) * 2 >= self._settings.slice_count:
            return
        try:
            units = (await self._slicer.units_of(caller)).get(kind[3], 0)
        except Unavailable:
            return
        self._truce.note(caller, is_sliced=units > 0)
        if not units:
            self._bar(kind)
        elif kind not in self._stands.of_kind and self._is_free(kind, caller):
            stand = Stand(caller, kind[3])
            self._stands.add(kind, stand)
            self._ask(kind, stand, units=units)

    def _ask(self, kind: Kind, stand: Stand, *, units: int) -> None:
        """Take the next slice for this stand."""
        if stand.following is None and self._is_free(kind, stand.caller):
            stand.is_asked = True
            self._spawn(self._take(kind, stand, units=units))

    async def _take(self, kind: Kind, stand: Stand, *, units: int) -> None:
        try:
            piece = await self._slicer.take(stand.caller, stand.feature, units=units)
        except Unavailable:
            piece = None
        finally:
            stand.is_asked = False
        if piece is None:
            self._bar(kind)
        elif self._stands.of_kind.get(kind) is stand and self._is_free(kind, stand.caller):
            stand.add(piece)
        else:
            await self._slicer.end(piece)

    def _turned(self, stand: Stand, units: int, *, now_s: float) -> Slice | None:
        """The slice that covers these units once what is over is closed, if one does."""
        closed = stand.turn(units, now_s=now_s)
        if closed is not None:
            self._end_all([closed])
        piece = stand.in_use
        return piece if piece is not None and units <= piece.left and now_s < piece.until_s else None

    def _look(self) -> None:
        """Ask for what is wanted ahead of need, take down what nobody needs, and forget how often orders came."""
        now_s = self._now_s()
        for kind, stand in list(self._stands.of_kind.items()):
            piece = stand.in_use
            if piece is not None and now_s >= piece.until_s:
                self._turned(stand, 1, now_s=now_s)
            elif piece is not None and stand.wants(now_s=now_s, busy_count=self._after_count):
                self._ask(kind, stand, units=piece.units)
            if stand.in_use is None and not stand.is_asked:
                self._end_all(self._stands.remove(kind))
        if now_s - self._cool_s >= self._slice_s:
            self._cool_s = now_s
            self._heat.clear()
            self._barred = {kind: until_s for kind, until_s in self._barred.items() if until_s > now_s}

    def _is_free(self, kind: Kind, caller: Caller) -> bool:
        """Whether a slice of this kind may be taken now."""
        is_barred = self._barred.get(kind, 0.0) > self._now_s() or self._truce.holds(owner_of(caller))
        return not is_barred and not self._is_over and self._is_told()

    def _bar(self, kind: Kind) -> None:
        """Nobody asks for it again for a moment."""
        self._barred[kind] = self._now_s() + self._slice_s

    def _close(self, owner: str) -> list[Slice]:
        """Serve nothing of this customer's any more; what there was."""
        closed = [piece for kind in self._stands.of_owner(owner) for piece in self._stands.remove(kind)]
        self.tally.yielded += len(closed)
        return closed

    async def _yielded(self, owner: str) -> int:
        """Settle this worker's slices of the customer; how many there were."""
        closed = self._close(owner)
        await asyncio.gather(*(self._slicer.end(piece) for piece in closed))
        return len(closed)

    def _end_all(self, closed: list[Slice]) -> None:
        for piece in closed:
            self._spawn(self._end(piece))

    async def _end(self, piece: Slice) -> None:
        await self._slicer.end(piece)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Raises what a task found wrong, to the loop."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()
