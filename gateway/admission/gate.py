"""The gate: one order in, one decision out, in one round trip.

It plans the act, sends it, and reads the reply; nothing is decided here. Single decisions travel on one link and
whatever comes in bulk on another, so that a thousand checks in one request do not stand in the way of the next one.

Each act has a deadline. Redis is told it on its own clock and does nothing later than that; an act whose reply is
late may have run all the same, and the order's idempotency key, sent again, finds out. Where Redis fails an order
that a lease covers, it is allowed on the lease (see `degraded`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from billing_core.contract.telemetry import Distribution
from billing_core.errors import Failure, Unavailable
from gateway.admission.act.form import Forms
from gateway.admission.caller import Caller
from gateway.admission.deadline import Deadline
from gateway.admission.decision import Decision, decision_of
from gateway.admission.degraded.outage import Outage
from gateway.admission.hold import Memory
from gateway.admission.order import Act, Mode, Order, Terms, plan
from gateway.admission.reason import Reason
from gateway.state.clock import ServerClock
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply

_UNKNOWN_KEY = Decision(reason=Reason.UNKNOWN_KEY, decision_id="")
_SHORT = frozenset({Reason.LIMIT_REACHED, Reason.INSUFFICIENT_BALANCE})


class Gate:
    """Decides orders. Without an `outage` nothing is allowed while Redis is away."""

    def __init__(
        self,
        links: tuple[Link, Link],
        *,
        clock: ServerClock,
        outage: Outage | None,
        recall: Memory | None = None,
        terms: Terms,
        latency: Distribution,
    ) -> None:
        """`links` are that of single decisions and that of bulk; `terms` say how long answers are kept."""
        self._link, self._bulk = links
        self._clock = clock
        self._outage = outage
        self._recall = recall
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
        try:
            if self._outage is None and self._recall is None:
                decision = await self._alone(self._link, caller, order=order, deadline=deadline)
            else:
                decision = await self._decided(self._link, caller, order=order, deadline=deadline)
        except Failure as failure:
            self._latency.record(failure.code, deadline.spent_s())
            raise
        self._latency.record(decision.reason.value, deadline.spent_s())
        return decision

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

    async def _alone(self, link: Link, caller: Caller, *, order: Order, deadline: Deadline) -> Decision:
        """By Redis, where nobody else has a say. Raises: as `decide`."""
        keys = caller.keys
        not_after_ms = self._clock.at_ms(deadline.at_s, shard=keys.shard)
        command = None if caller.is_remembered else self._forms.command(caller, order, not_after_ms=not_after_ms)
        if command is None:
            act = self._planned(caller, order, deadline=deadline)
            return await self._asked(link, act, order=order, deadline=deadline, is_barred=caller.is_remembered)
        try:
            reply = await link.run_packed(command.packed, place=keys.snapshot, deadline_ms=deadline.left_ms())
        except ErrorReply as error:
            raise failure_of(error) from None
        return decision_of(reply, order, decision_id=command.decision_id)

    async def _decided(self, link: Link, caller: Caller, *, order: Order, deadline: Deadline) -> Decision:
        """One decision, by Redis or on a lease. Raises: as `decide`."""
        if self._outage is None:
            decision = await self._alone(link, caller, order=order, deadline=deadline)
        else:
            decision = await self._covered(link, caller, outage=self._outage, order=order, deadline=deadline)
        if self._recall is not None:
            _remember(self._recall, caller, order=order, decision=decision)
        return decision

    async def _covered(
        self, link: Link, caller: Caller, *, outage: Outage, order: Order, deadline: Deadline
    ) -> Decision:
        """By Redis; or on a lease, where one covers the order and Redis fails. Raises: as `decide`."""
        lease = outage.lease_for(caller, order)
        if lease is None and not outage.has_a_say(caller):
            decision = await self._alone(link, caller, order=order, deadline=deadline)
            if decision.allowed or decision.replayed or not outage.has_leases(caller):
                if decision.reason is not Reason.UNAVAILABLE:
                    outage.learn(caller, order, decision=decision)
                return decision
        act = self._planned(caller, order, deadline=deadline, keyed=lease is not None)
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
