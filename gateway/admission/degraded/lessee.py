"""Who takes leases, keeps them whole, and gives them back.

A lease is taken once a decision said that it would be of use, extended while such decisions come, filled up
again after an outage, and given back when it is cold or when its customer runs short: then the units serve
ordinary decisions better. What was taken stands in the journal before it is asked for, so that whoever finds a
dead process' journal gives its leases back too. A command whose outcome is unknown leaves a hold that may be
there; it is released when Redis can be asked again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from billing_core.errors import Conflict, Failure, NotFound, Unavailable
from billing_core.values.clock import Clock, to_ms
from gateway.admission.caller import Caller
from gateway.admission.deadline import deadline_in
from gateway.admission.decision import decision_of
from gateway.admission.degraded.journal import Journal
from gateway.admission.degraded.lease import Lease, LeaseName, LeasePool
from gateway.admission.degraded.record import Ended, Leased
from gateway.admission.hold import Change, Holds
from gateway.admission.order import Charge, Mode, Order, Terms, plan
from gateway.settings import GatewaySettings
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply

LEASE_MARK = "lease"
_RENEW_SHARE = 4


class Lessee:
    """Leases on Redis' side."""

    def __init__(
        self, bulk: Link, pool: LeasePool, *, journal: Journal, settings: GatewaySettings, clock: Clock
    ) -> None:
        self._bulk = bulk
        self._clock = clock
        self._pool = pool
        self._journal = journal
        self._settings = settings
        self._holds = Holds(bulk, window_ms=settings.idempotency_window_ms)
        self._doubtful: set[str] = set()

    def hold_ids(self) -> list[str]:
        """Every hold that may be there."""
        return [lease.hold_id for _, lease in self._pool.items()] + sorted(self._doubtful)

    async def take(self, name: LeaseName, caller: Caller, *, units: dict[str, int]) -> None:
        """Take a lease; where it is refused, nobody asks for it again for a while.

        Raises: Unavailable where Redis or the journal cannot be asked now.
        """
        charges = tuple(Charge(feature=feature, quantity=units[feature]) for feature in name.features)
        order = Order(charges=charges, mode=Mode.HOLD, ttl_ms=self._settings.lease_ttl_ms)
        act = plan(order, caller, terms=Terms(window_ms=0, mark=LEASE_MARK))
        now_s = time.perf_counter()
        await self._journal.write(Leased(hold_id=act.hold_id))
        self._doubtful.add(act.hold_id)
        try:
            deadline_ms = self._settings.bulk_deadline_ms
            reply = await self._bulk.run(act.script, act.keys, args=act.args, deadline_ms=deadline_ms)
        except ErrorReply as error:
            self._pool.bar(name, now_s=now_s)
            failure = failure_of(error)
            if isinstance(failure, Unavailable):
                raise failure from None
            return
        decision = decision_of(reply, order, decision_id=act.decision_id)
        if not decision.allowed or decision.would:
            self._pool.bar(name, now_s=now_s)
            if not decision.would:
                await self._ended(act.hold_id)
            return
        self._doubtful.discard(act.hold_id)
        lease = Lease(caller, act.hold_id, units=units, now_s=now_s, until_s=self._until_s(now_s))
        lease.ahead_ms = decision.decided_at_ms - to_ms(self._clock())
        lease.plan = decision.plan
        self._pool.add(name, lease)

    async def renew(self) -> None:
        """Extend what is in use, and fill up what was used. Raises: Unavailable."""
        now_s = time.perf_counter()
        late_s = self._settings.lease_ttl_ms / 1_000 / _RENEW_SHARE
        for name, lease in self._pool.items():
            if now_s >= lease.until_s:
                continue
            missing = {} if lease.owed_count else lease.missing()
            if missing or now_s - lease.renewed_s > late_s:
                await self._extend(name, lease, missing=missing)

    async def give_back(self, names: Iterable[LeaseName]) -> None:
        """Give leases back, but for those that still owe. Raises: Unavailable."""
        for name in names:
            lease = self._pool.get(name)
            if lease is not None and not lease.owed_count:
                self._pool.remove(name)
                self._doubtful.add(lease.hold_id)
                await self._end(lease.hold_id)

    async def clear_doubt(self) -> None:
        """Release what may be there and is not wanted. Raises: Unavailable."""
        for hold_id in sorted(self._doubtful):
            await self._end(hold_id)

    async def release(self, hold_id: str) -> None:
        """Release a hold, whatever became of it. Raises: Unavailable."""
        try:
            await self._holds.release(hold_id, deadline=deadline_in(self._settings.bulk_deadline_ms))
        except (NotFound, Conflict):
            return  # it is not there, or has ended in another way

    async def _extend(self, name: LeaseName, lease: Lease, *, missing: dict[str, int]) -> None:
        charges = tuple(Charge(feature=feature, quantity=units) for feature, units in missing.items())
        now_s = time.perf_counter()
        key = f"renewal-{lease.renewal_count}"  # a retry of one whose outcome is unknown sets nothing aside twice
        change = Change(charges=charges, ttl_ms=self._settings.lease_ttl_ms, idempotency_key=key)
        try:
            deadline = deadline_in(self._settings.bulk_deadline_ms)
            decision = await self._holds.extend(lease.hold_id, change, deadline=deadline)
            gone = not decision.allowed or bool(decision.would)
        except Unavailable:
            raise
        except Failure:
            gone = True  # the hold is not there any more, or cannot grow
        if gone:
            self._pool.bar(name, now_s=now_s)
            await self.give_back((name,))
            return
        lease.give_back(missing)
        lease.renewal_count += 1
        lease.renewed_s, lease.until_s = now_s, self._until_s(now_s)

    async def _end(self, hold_id: str) -> None:
        await self.release(hold_id)
        await self._ended(hold_id)

    async def _ended(self, hold_id: str) -> None:
        self._doubtful.discard(hold_id)
        await self._journal.write(Ended(hold_id=hold_id))

    def _until_s(self, now_s: float) -> float:
        return now_s + (self._settings.lease_ttl_ms - self._settings.lease_margin_ms) / 1_000
