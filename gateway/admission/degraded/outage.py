"""Degraded mode: what may be allowed while Redis is away, and how it is made good when Redis is back.

    decision says `outage_units`      a lease is taken beforehand, and kept while such decisions come
    attempt fails, lease covers it    the order goes into the journal, and is allowed as `degraded`
    Redis is back                     the journal is replayed in its order; each order is charged on its lease

Only a consume is allowed so, and only if every one of its features may go on without Redis. While a lease covers an
order, its attempt carries an answer key even where the caller gave none (the decision id), so that an attempt whose
outcome is unknown and the replay of the same order exclude each other. An order that came before under the same key
and is not charged yet gets its first answer back.

Overspend is 0: what is allowed was set aside. The worst that can happen is known at every moment: the leases that
are outstanding (`tallygate_leased_units`) stay set aside until the journal is replayed or they expire.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

from billing_core.contract.keys import shard_of_customer
from billing_core.contract.usage_event import EventBody, encode_body
from billing_core.errors import Failure, IdempotencyConflict, Unavailable
from billing_core.values.clock import Clock, to_ms
from gateway.admission.caller import Caller
from gateway.admission.decision import ChargeOutcome, Decision
from gateway.admission.degraded.journal import Journal, Legacy, legacies
from gateway.admission.degraded.lease import Lease, LeasePool, name_of
from gateway.admission.degraded.lessee import Lessee
from gateway.admission.degraded.record import Done, Entry, packed
from gateway.admission.degraded.replay import Fate, Replay, keep_lost
from gateway.admission.hold import Memory
from gateway.admission.order import Act, Mode, Order
from gateway.admission.reason import Reason
from gateway.settings import GatewaySettings
from gateway.state.link import Link

_LOOK_S: Final = 0.1
_LEGACY_LOOKS: Final = 50
_CHUNK: Final = 64
_CLOSED: Final = frozenset({Reason.SUSPENDED, Reason.NOT_ENTITLED})


class OutageTally:
    """What happened, for telemetry. Units: of features, summed; and entries."""

    __slots__ = ("journalled_units", "lost", "replayed")

    def __init__(self) -> None:
        self.journalled_units = self.lost = 0
        self.replayed = {fate.value: 0 for fate in Fate}


class Outage:
    """Degraded mode of one process; `keep` runs until it is cancelled, `stop` once after that."""

    def __init__(
        self, bulk: Link, *, settings: GatewaySettings, clock: Clock, recall: Memory | None = None
    ) -> None:
        """Make a journal; `recall` is told what was made good. Raises: ConfigurationError."""
        self._bulk = bulk
        self._recall = recall
        self._clock = clock
        self._folder = Path(settings.journal_dir)
        self.leases = LeasePool(settings.lease_count, idle_s=settings.lease_idle_ms / 1_000)
        self._journal = Journal(self._folder, max_bytes=settings.journal_max_bytes)
        self._lessee = Lessee(bulk, self.leases, journal=self._journal, settings=settings, clock=clock)
        self._replay = Replay(bulk, settings=settings)
        self._pending: deque[tuple[Entry, Lease]] = deque()
        self._answers: dict[str, tuple[str, Decision]] = {}
        self._writing_count = self._done_count = 0
        self._wake = asyncio.Event()
        self._looks_until_legacy = 0
        self.tally = OutageTally()

    def lease_for(self, caller: Caller, order: Order) -> Lease | None:
        """The lease that covers this order now, if there is one."""
        if order.mode is not Mode.CONSUME or order.shadow or not len(self.leases):
            return None
        lease = self.leases.get(name_of(caller, order))
        return lease if lease is not None and lease.covers(order.charges, now_s=time.perf_counter()) else None

    def recall(self, act: Act) -> Decision | None:
        """The first answer to this key, where it was given on a lease and is not charged yet.

        Raises: IdempotencyConflict where the key came with other content.
        """
        known = self._answers.get(act.answer_key) if self._answers else None
        if known is None:
            return None
        digest, decision = known
        if digest != act.digest:
            raise IdempotencyConflict("this key came before with other content", field="idempotency_key")
        return msgspec.structs.replace(decision, replayed=True)

    async def allow(self, lease: Lease | None, act: Act, *, order: Order) -> Decision | None:
        """Allow an order on its lease, once the journal has it; None where there is none, or no room."""
        if lease is None or not lease.covers(order.charges, now_s=time.perf_counter()):
            return None
        lease.take(order.charges)
        entry = _entry(lease, act, order=order, at_ms=to_ms(self._clock()) + lease.ahead_ms)
        decision = _decision(act, order, lease=lease, at_ms=entry.at_ms)
        self._answers[act.answer_key] = (act.digest, decision)
        self._writing_count += 1
        try:
            await self._journal.write(entry)
        except Unavailable:
            self._answers.pop(act.answer_key, None)
            lease.owed_count -= 1
            lease.give_back(dict(zip(entry.features, entry.quantities, strict=True)))
            return None
        finally:
            self._writing_count -= 1
        self._pending.append((entry, lease))
        self.tally.journalled_units += sum(entry.quantities)
        return decision

    def learn(self, caller: Caller, order: Order, *, decision: Decision) -> None:
        """Take note of what Redis decided: whether a lease would be of use, and how far the tenant's clock is
        ahead."""
        if decision.reason in _CLOSED:
            for name in self.leases.of_customer(caller):
                self.leases.close(name)
        if order.mode is not Mode.CONSUME or order.shadow or not decision.allowed or decision.would:
            return
        units = {charge.feature: charge.outage_units for charge in decision.charges}
        if not all(units.values()):
            return
        name, now_s = name_of(caller, order), time.perf_counter()
        lease = self.leases.get(name)
        if lease is None:
            if self.leases.want(name, caller, units=units, now_s=now_s):
                self._wake.set()
            return
        lease.touched_s, lease.plan = now_s, decision.plan
        lease.ahead_ms = decision.decided_at_ms - to_ms(self._clock())

    def has_leases(self, caller: Caller) -> bool:
        """Whether `yield_to` would give something back."""
        return bool(self.leases.of_customer(caller))

    def has_a_say(self, caller: Caller) -> bool:
        """Whether anything that was allowed or leased here could matter to this customer's next order."""
        return bool(self._answers) or self.has_leases(caller)

    async def yield_to(self, caller: Caller) -> bool:
        """Give this customer's leases back, so that an ordinary decision can have them; whether there were any."""
        names = self.leases.of_customer(caller)
        now_s = time.perf_counter()
        for name in names:
            self.leases.bar(name, now_s=now_s)
        try:
            await self._lessee.give_back(names)
        except Unavailable:
            return False
        return bool(names)

    def leased_units(self) -> int:
        """Units that could still be allowed on leases."""
        return self.leases.left_units()

    def pending_count(self) -> int:
        """Orders that were allowed and are not charged yet."""
        return len(self._pending)

    async def keep(self) -> None:
        """Make good what was allowed, and keep the leases that are of use, for ever."""
        while True:
            with contextlib.suppress(Unavailable):  # the link counts it; the next look comes soon
                if self._bulk.is_up:
                    await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            self._wake.clear()

    async def stop(self) -> None:
        """Give all leases back that owe nothing; what is left to be done stays in the journal."""
        with contextlib.suppress(Unavailable):  # whoever finds the journal gives them back
            await self._charge_pending()
            await self._lessee.give_back([name for name, _ in self.leases.items()])
            await self._lessee.clear_doubt()
        await self._journal.close(is_empty=not self._pending and not self._lessee.hold_ids())

    async def _look(self) -> None:
        if self._looks_until_legacy <= 0:
            self._looks_until_legacy = _LEGACY_LOOKS
            await self._finish_legacies()
        self._looks_until_legacy -= 1
        await self._charge_pending()
        for name, caller, units in self.leases.wanted():
            await self._lessee.take(name, caller, units=units)
        await self._lessee.renew()
        await self._lessee.give_back(self.leases.cold(now_s=time.perf_counter()))
        await self._lessee.clear_doubt()

    async def _charge_pending(self) -> None:
        """Charge what was allowed, in its order. Raises: Unavailable."""
        while self._pending:
            chunk = [self._pending[at] for at in range(min(_CHUNK, len(self._pending)))]
            fates = await asyncio.gather(*(self._charge(entry) for entry, _ in chunk), return_exceptions=True)
            for (entry, lease), fate in zip(chunk, fates, strict=True):
                if isinstance(fate, BaseException):
                    raise fate
                self._pending.popleft()
                self._done_count += 1
                self._answers.pop(entry.answer_key, None)
                lease.owed_count -= 1
                if fate is Fate.KNOWN:
                    lease.give_back(dict(zip(entry.features, entry.quantities, strict=True)))
            await self._journal.write(Done(count=self._done_count))
        if (self._done_count or self._journal.is_long) and not self._writing_count:
            self._journal.begin_anew(self._lessee.hold_ids())
            self._done_count = 0

    async def _charge(self, entry: Entry) -> Fate | None:
        """What became of it; None where it can never be charged, and is kept apart for a person. Raises:
        Unavailable."""
        try:
            fate = await self._replay.charge(entry)
        except Unavailable:
            raise
        except Failure:
            self.tally.lost += 1
            await asyncio.to_thread(keep_lost, self._folder, entry)
            return None
        self.tally.replayed[fate.value] += 1
        if self._recall is not None:
            shard = shard_of_customer(entry.tenant_id, entry.customer_id)
            self._recall.note(shard, f"{entry.tenant_id}:{entry.decision_id}")
        return fate

    async def _finish_legacies(self) -> None:
        """Make good what processes allowed that are dead. Raises: Unavailable."""
        found = await asyncio.to_thread(legacies, self._folder)
        while found:
            legacy = found[0]
            try:
                await self._finish(legacy)
            except Unavailable:
                for one in found:
                    one.let_go()
                raise
            found.pop(0)

    async def _finish(self, legacy: Legacy) -> None:
        done_count, entries = legacy.left.done_count, legacy.left.entries
        for start in range(0, len(entries), _CHUNK):
            chunk = entries[start : start + _CHUNK]
            await asyncio.gather(*(self._charge(entry) for entry in chunk))
            done_count += len(chunk)
            await asyncio.to_thread(legacy.done, packed(Done(count=done_count)))
        for hold_id in legacy.left.hold_ids:
            await self._lessee.release(hold_id)
        legacy.remove()


def _entry(lease: Lease, act: Act, *, order: Order, at_ms: int) -> Entry:
    """The order as the journal keeps it, its features in the order of the hold's."""
    caller, quantities = lease.caller, {charge.feature: charge.quantity for charge in order.charges}
    features = tuple(sorted(quantities))
    body = EventBody(
        event_id=act.decision_id,
        tenant_id=caller.tenant_id,
        customer_id=caller.customer_id,
        features=features,
        event_at_ms=at_ms,
        key_hint=caller.key_hint,
        path=caller.path,
    )
    return Entry(
        decision_id=act.decision_id,
        hold_id=lease.hold_id,
        answer_key=act.answer_key,
        digest=act.digest,
        body=encode_body(body),
        at_ms=at_ms,
        tenant_id=caller.tenant_id,
        customer_id=caller.customer_id,
        path=caller.path,
        features=features,
        quantities=tuple(quantities[feature] for feature in features),
    )


def _decision(act: Act, order: Order, *, lease: Lease, at_ms: int) -> Decision:
    return Decision(
        reason=Reason.ALLOWED,
        decision_id=act.decision_id,
        degraded=True,
        decided_at_ms=at_ms,
        plan=lease.plan,
        charges=tuple(
            ChargeOutcome(
                feature=charge.feature,
                limit_units=None,
                remaining_units=None,
                reset_at_ms=None,
                cost_nanos=0,
                static_value="",
            )
            for charge in order.charges
        ),
    )
