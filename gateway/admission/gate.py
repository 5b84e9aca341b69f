"""The gate: one order in, one decision out, in one round trip.

It plans the act, sends it, and reads the reply; nothing is decided here. Single decisions travel on one link and
whatever comes in bulk on another, so that a thousand checks in one request do not stand in the way of the next one.

Each act has a deadline. Redis is told it on its own clock and does nothing later than that; an act whose reply is
late may have run all the same, and the order's idempotency key, sent again, finds out. Where Redis fails an order
that a lease covers, it is allowed on the lease (see `degraded`). What comes all the time is allowed out of a slice,
without asking (see `slice`); and where Redis refuses for units that others have set aside, they give way first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from billing_core.contract.telemetry import Distribution
from billing_core.errors import Failure, Unavailable
from gateway.admission.act.form import Command, Forms, filled
from gateway.admission.caller import Caller
from gateway.admission.deadline import Deadline
from gateway.admission.decision import Decision, decision_of
from gateway.admission.degraded.outage import Outage
from gateway.admission.hold import Memory
from gateway.admission.order import Act, Mode, Order, Terms, plan
from gateway.admission.reason import Reason
from gateway.admission.slice.local import LocalDecisions
from gateway.state.clock import ServerClock
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.pipe import Tell
from gateway.state.resp import ErrorReply

_UNKNOWN_KEY = Decision(reason=Reason.UNKNOWN_KEY, decision_id="")
_SHORT = frozenset({Reason.LIMIT_REACHED, Reason.INSUFFICIENT_BALANCE})


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a say beside Redis.

    Without an `outage` nothing is allowed while Redis is away; `local` decides out of slices; `recall` is told what
    was answered.
    """

    outage: Outage | None = None
    local: LocalDecisions | None = None
    recall: Memory | None = None


class Gate:
    """Decides orders."""

    def __init__(
        self,
        links: tuple[Link, Link],
        *,
        clock: ServerClock,
        beside: Beside,
        terms: Terms,
        latency: Distribution,
    ) -> None:
        """`links` are that of single decisions and that of bulk; `terms` say how long answers are kept."""
        self._link, self._bulk = links
        self._clock = clock
        self._outage, self._local, self._recall = beside.outage, beside.local, beside.recall
        self._is_shared = any(one is not None for one in (beside.outage, beside.local, beside.recall))
        self._terms = terms
        self._latency = latency
        self._forms = Forms(self._link.pack, terms=terms)

    async def decide(self, caller: Caller | None, order: Order, *, deadline: Deadline) -> Decision:
        """The decision on one order; nobody behind the key is a decision too, made here: no shard could be asked.

        Raises: Unavailable within the decision's deadline; NotFound for a customer without a snapshot;
        IdempotencyConflict; Unprocessable.
        """
        if caller is None:
            self._latency.record(_UNKNOWN_KEY.reason.value, 0.0)
            return _UNKNOWN_KEY
        local = self.locally(caller, order, since_s=deadline.since_s)
        if local is not None:
            return local
        try:
            if not self._is_shared:
                decision = await self._alone(self._link, caller, order=order, deadline=deadline)
            else:
                decision = await self._decided(self._link, caller, order=order, deadline=deadline)
        except Failure as failure:
            self._latency.record(failure.code, deadline.spent_s())
            raise
        self._latency.record(decision.reason.value, deadline.spent_s())
        return decision

    def locally(self, caller: Caller, order: Order, *, since_s: float, is_known: bool = False) -> Decision | None:
        """The decision on an order that came then and that a slice covers; None where it is to be asked for.

        `is_known`: where there is none, `decide` comes next.
        """
        decision = self._local.allow(caller, order, is_known=is_known) if self._local is not None else None
        if decision is not None:
            self._latency.record(decision.reason.value, time.perf_counter() - since_s)
        return decision

    def is_asked_alone(self, caller: Caller) -> bool:
        """Whether nobody but Redis has a say on this customer's next order, which no slice covers."""
        outage, local = self._outage, self._local
        return not (outage is not None and outage.has_a_say(caller)) and (
            local is None or not local.matters_to(caller)
        )

    def form(self, caller: Caller, order: Order, *, is_keyed: bool) -> bytes:
        """The form of this very order, for when Redis is asked alone; empty where it has none."""
        return b"" if caller.is_remembered else self._forms.exact(caller, order, is_keyed=is_keyed)

    def command(self, form: bytes, caller: Caller, *, key: str, at_s: float) -> Command | None:
        """The command of an order whose form is known, to be run by that moment; None: it has to be planned."""
        return filled(form, caller, key=key, not_after_ms=self._clock.at_ms(at_s, shard=caller.keys.shard))

    def begin(self, command: Command, caller: Caller, *, tell: Tell, deadline_ms: int) -> None:
        """Run it; whoever waits is told.

        Raises: Unavailable at once, and then nobody is told.
        """
        self._link.post(command.packed, place=caller.keys.snapshot, tell=tell, deadline_ms=deadline_ms)

    def remember(self, caller: Caller, order: Order, *, decision_id: str) -> None:
        """Note what was allowed anew and has left an entry in the shard's stream, where somebody wants to know."""
        if self._recall is not None and any(charge.quantity > 0 for charge in order.charges):
            self._recall.note(caller.keys.shard, f"{caller.tenant_id}:{decision_id}")

    def learn(self, caller: Caller, order: Order, *, decision: Decision) -> None:
        """Take note of what was decided on what `begin` began, for whoever sets units aside."""
        if self._outage is not None and decision.reason is not Reason.UNAVAILABLE:
            self._outage.learn(caller, order, decision=decision)

    def count(self, end: str, since_s: float) -> None:
        """Take note of how what was begun has ended, by its reason or failure, and when it had come."""
        self._latency.record(end, time.perf_counter() - since_s)

    async def decide_all(
        self, orders: Sequence[tuple[Caller | None, Order]], *, deadline: Deadline
    ) -> list[Decision | Failure]:
        """The decisions on many orders, in their order, sent in one turn; a failure stands for its order only."""
        decided = await asyncio.gather(
            *(
                self._decided(self._bulk, caller, order=order, deadline=deadline)
                for caller, order in orders
                if caller is not None
            ),
            return_exceptions=True,
        )
        coming, spent_s = iter(decided), deadline.spent_s()
        answers = [_UNKNOWN_KEY if caller is None else _answer(next(coming)) for caller, _ in orders]
        for answer in answers:
            self._latency.record(answer.reason.value if isinstance(answer, Decision) else answer.code, spent_s)
        return answers

    async def _alone(
        self, link: Link, caller: Caller, *, order: Order, deadline: Deadline, is_final: bool = True
    ) -> Decision:
        """By Redis, where nobody else has a say. Raises: as `decide`."""
        keys = caller.keys
        not_after_ms = self._clock.at_ms(deadline.at_s, shard=keys.shard)
        has_form = is_final and not caller.is_remembered
        command = self._forms.command(caller, order, not_after_ms=not_after_ms) if has_form else None
        if command is None:
            act = self._planned(caller, order, deadline=deadline, is_final=is_final)
            return await self._asked(link, act, order=order, deadline=deadline, is_barred=caller.is_remembered)
        try:
            reply = await link.run_packed(command.packed, place=keys.snapshot, deadline_ms=deadline.left_ms())
        except ErrorReply as error:
            raise failure_of(error) from None
        return decision_of(reply, order, decision_id=command.decision_id)

    async def _decided(self, link: Link, caller: Caller, *, order: Order, deadline: Deadline) -> Decision:
        """One decision, by Redis or on a lease, once slices gave way where they must. Raises: as `decide`."""
        local = self._local
        is_final = local is None or not order.idempotency_key or not local.matters_to(caller)
        decision = await self._by_redis(link, caller, order=order, deadline=deadline, is_final=is_final)
        if local is not None and not decision.allowed and not decision.replayed:
            has_room = decision.reason in _SHORT and await local.give_way(caller, deadline=deadline)
            if has_room or not is_final:
                decision = await self._by_redis(link, caller, order=order, deadline=deadline)
        if self._recall is not None:
            _remember(self._recall, caller, order=order, decision=decision)
        return decision

    async def _by_redis(
        self, link: Link, caller: Caller, *, order: Order, deadline: Deadline, is_final: bool = True
    ) -> Decision:
        """By Redis, or on a lease; of what is not final no refusal is kept. Raises: as `decide`."""
        if self._outage is None:
            return await self._alone(link, caller, order=order, deadline=deadline, is_final=is_final)
        return await self._covered(
            link, caller, outage=self._outage, order=order, deadline=deadline, is_final=is_final
        )

    async def _covered(
        self, link: Link, caller: Caller, *, outage: Outage, order: Order, deadline: Deadline, is_final: bool
    ) -> Decision:
        """By Redis; or on a lease, where one covers the order and Redis fails. Raises: as `decide`."""
        lease = outage.lease_for(caller, order)
        if lease is None and not outage.has_a_say(caller):
            decision = await self._alone(link, caller, order=order, deadline=deadline, is_final=is_final)
            if decision.allowed or decision.replayed or not outage.has_leases(caller):
                self.learn(caller, order, decision=decision)
                return decision
        act = self._planned(caller, order, deadline=deadline, keyed=lease is not None, is_final=is_final)
        known = outage.recall(act)
        if known is not None:
            return known
        first, is_barred = act, caller.is_remembered
        if order.idempotency_key and outage.has_leases(caller):  # they may give way; till then no refusal is kept
            first = self._planned(caller, order, deadline=deadline, is_final=False)
        try:
            decision = await self._asked(link, first, order=order, deadline=deadline, is_barred=is_barred)
        except Unavailable:
            allowed = await outage.allow(lease, act, order=order)
            if allowed is None:
                raise
            return allowed
        if decision.reason is Reason.UNAVAILABLE:
            return await outage.allow(lease, act, order=order) or decision
        if not decision.allowed and not decision.replayed:
            has_room = decision.reason in _SHORT and await outage.yield_to(caller)
            if has_room or first is not act:
                decision = await self._asked(link, act, order=order, deadline=deadline)
        outage.learn(caller, order, decision=decision)
        return decision

    async def _asked(
        self, link: Link, act: Act, *, order: Order, deadline: Deadline, is_barred: bool = False
    ) -> Decision:
        """What Redis decides; it is not asked for somebody whom it did not name."""
        if is_barred:
            raise Unavailable("Redis does not say whose key this is")
        try:
            left_ms = deadline.left_ms()
            reply = await link.run(act.script, act.keys, args=act.args, deadline_ms=left_ms, place=act.place)
        except ErrorReply as error:
            raise failure_of(error) from None
        return decision_of(reply, order, decision_id=act.decision_id)

    def _planned(
        self, caller: Caller, order: Order, *, deadline: Deadline, keyed: bool = False, is_final: bool = True
    ) -> Act:
        """The act; one that is not final keeps no refusal."""
        terms = Terms(
            window_ms=self._terms.window_ms,
            refusal_ms=self._terms.refusal_ms if is_final else 0,
            not_after_ms=self._clock.at_ms(deadline.at_s, shard=caller.keys.shard),
            keyed=keyed,
        )
        return plan(order, caller, terms=terms)


def _remember(recall: Memory, caller: Caller, *, order: Order, decision: Decision) -> None:
    """Note what has left an entry in the shard's stream, or will when its hold is settled."""
    is_elsewhere = decision.replayed or decision.degraded or bool(decision.would)
    if not decision.allowed or is_elsewhere or order.mode is Mode.PEEK:
        return
    if decision.hold is not None:
        recall.note_hold(decision.hold.hold_id, f"{caller.tenant_id}:{decision.decision_id}")
    elif any(charge.quantity > 0 for charge in order.charges):
        recall.note(caller.keys.shard, f"{caller.tenant_id}:{decision.decision_id}")


def _answer(decided: Decision | BaseException) -> Decision | Failure:
    if isinstance(decided, Decision | Failure):
        return decided
    raise decided
