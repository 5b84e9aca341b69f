"""What a hold covers, and how it comes to cover more.

A part of a response passes only where the hold covers it. Where it does not, more is asked for, `extend_units` at
a time, and where that is refused just as much as is needed; where that is refused too the response ends there, so
that nobody gets what nobody has set aside. Where nobody can be asked it ends as well, unless the route lets
requests pass in an outage: then it goes on, and what it comes to is charged at its end, as far as the wallet goes.
"""

from __future__ import annotations

import asyncio
import time

from billing_core.errors import Failure
from gateway.admission.deadline import deadline_in
from gateway.admission.hold import Change, Holds
from gateway.admission.order import Charge
from gateway.admission.reason import Reason


class Cover:
    """Of one hold, for one of its features. `units` None: nothing is measured against it."""

    __slots__ = (
        "_deadline_ms", "_extend_units", "_feature", "_hold_id", "_holds", "_outlasts_outage", "_renewal",
        "_renewed_s", "_ttl_ms", "more", "units",
    )  # fmt: skip

    def __init__(self, holds: Holds, hold_id: str, *, ttl_ms: int, deadline_ms: int) -> None:
        self._holds, self._hold_id = holds, hold_id
        self._ttl_ms, self._deadline_ms = ttl_ms, deadline_ms
        self._feature, self._extend_units, self._outlasts_outage = "", 0, False
        self._renewed_s = time.perf_counter()
        self._renewal: asyncio.Task[str] | None = None
        self.units: int | None = None
        self.more = 0

    def measure(self, charge: Charge, *, extend_units: int, outlasts_outage: bool) -> None:
        """Let so much pass, and ask for so much more where that is used up."""
        self._feature, self._extend_units, self.units = charge.feature, extend_units, charge.quantity
        self._outlasts_outage = outlasts_outage

    async def extend(self, wanted: int) -> str:
        """Cover at least so many units; why it cannot be, or nothing."""
        if self.units is None or wanted <= self.units:
            return ""
        if not self._extend_units:
            return Reason.INSUFFICIENT_BALANCE.value
        least = wanted - self.units
        most = -(-least // self._extend_units) * self._extend_units
        reason = ""
        for more in sorted({most, least}, reverse=True):
            reason = await self._change((Charge(feature=self._feature, quantity=more),))
            if not reason:
                self.units += more
                self.more += more
            if reason in ("", Reason.UNAVAILABLE.value):
                break
        if reason == Reason.UNAVAILABLE.value and self._outlasts_outage:
            self.units, reason = wanted, ""
        return reason

    def keep(self, now_s: float) -> None:
        """Called now and then while the work goes on: half its time before its end the hold gets all of it again.

        Where that fails the work goes on all the same: a hold that was given back meanwhile is settled late.
        """
        if (now_s - self._renewed_s) * 2_000 > self._ttl_ms and (self._renewal is None or self._renewal.done()):
            self._renewed_s = now_s
            self._renewal = asyncio.create_task(self._change(()))

    async def _change(self, charges: tuple[Charge, ...]) -> str:
        change = Change(charges=charges, ttl_ms=self._ttl_ms)
        try:
            decision = await self._holds.extend(self._hold_id, change, deadline=deadline_in(self._deadline_ms))
        except Failure as failure:
            return failure.code
        return "" if decision.allowed else decision.reason.value
