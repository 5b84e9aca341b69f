"""The gate: one order in, one decision out, in one round trip.

It plans the act, sends it, and reads the reply; nothing is decided here. Single decisions travel on one link and
whatever comes in bulk on another, so that a thousand checks in one request do not stand in the way of the next one.
Each act has a deadline. When it passes the act may have run all the same: the order's idempotency key, sent again,
finds out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from billing_core.contract.keys import epoch_key, hold_key, shard_holds_key, shard_of_hold, stream_key
from billing_core.contract.telemetry import Distribution
from billing_core.errors import Failure, NotFound
from gateway.admission.caller import Caller
from gateway.admission.deadline import Deadline
from gateway.admission.decision import Decision, decision_of
from gateway.admission.order import Act, Charge, Order, digest_of_charges, plan
from gateway.admission.outcome import HoldEnd, Outcome, outcome_of
from gateway.admission.reason import Reason
from gateway.settings import GatewaySettings
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply, Reply, Word

_UNKNOWN_KEY = Decision(reason=Reason.UNKNOWN_KEY, decision_id="")


class Gate:
    """Decides orders and ends holds."""

    def __init__(self, link: Link, bulk: Link, *, settings: GatewaySettings, latency: Distribution) -> None:
        self._link = link
        self._bulk = bulk
        self._settings = settings
        self._latency = latency

    async def decide(self, caller: Caller | None, order: Order, *, deadline: Deadline) -> Decision:
        """The decision on one order; nobody behind the key is a decision too, made here: no shard could be asked.

        Raises: Unavailable within the decision's deadline; NotFound for a customer without a snapshot;
        IdempotencyConflict; Unprocessable.
        """
        if caller is None:
            self._latency.record(_UNKNOWN_KEY.reason.value, 0.0)
            return _UNKNOWN_KEY
        act = plan(order, caller, window_ms=self._settings.idempotency_window_ms)
        try:
            reply = await self._send(self._link, act, deadline_ms=deadline.left_ms())
        except ErrorReply as error:
            failure = failure_of(error)
            self._latency.record(failure.code, deadline.spent_s())
            raise failure from None
        except Failure as failure:
            self._latency.record(failure.code, deadline.spent_s())
            raise
        decision = decision_of(reply, order, decision_id=act.decision_id)
        self._latency.record(decision.reason.value, deadline.spent_s())
        return decision

    async def decide_all(
        self, orders: Sequence[tuple[Caller | None, Order]], *, deadline: Deadline
    ) -> list[Decision | Failure]:
        """The decisions on many orders, in their order, sent in one turn; a failure stands for its order only."""
        window_ms, left_ms = self._settings.idempotency_window_ms, deadline.left_ms()
        acts = [plan(order, caller, window_ms=window_ms) for caller, order in orders if caller is not None]
        replies = await asyncio.gather(
            *(self._send(self._bulk, act, deadline_ms=left_ms) for act in acts),
            return_exceptions=True,
        )
        coming = iter(zip(acts, replies, strict=True))
        answers = [
            _UNKNOWN_KEY if caller is None else _answer(*next(coming), order=order) for caller, order in orders
        ]
        spent_s = deadline.spent_s()
        for answer in answers:
            self._latency.record(answer.reason.value if isinstance(answer, Decision) else answer.code, spent_s)
        return answers

    async def settle(self, hold_id: str, charges: tuple[Charge, ...], *, deadline: Deadline) -> Outcome:
        """End a hold by what was really used; features that are not named settle as held.

        Raises: NotFound, Conflict, IdempotencyConflict, Unavailable.
        """
        shard = _shard(hold_id)
        keys = (epoch_key(shard), hold_key(hold_id, shard), shard_holds_key(shard), stream_key(shard))
        args: list[Word] = [digest_of_charges(charges), self._settings.idempotency_window_ms, len(charges)]
        for charge in charges:
            args += (charge.feature, charge.quantity)
        return outcome_of(await self._ended("settle", keys, args=args, deadline=deadline), wanted=HoldEnd.SETTLED)

    async def release(self, hold_id: str, *, deadline: Deadline) -> Outcome:
        """End a hold without a charge.

        Raises: NotFound, Conflict, Unavailable.
        """
        shard = _shard(hold_id)
        keys = (epoch_key(shard), hold_key(hold_id, shard), shard_holds_key(shard))
        args: list[Word] = [self._settings.idempotency_window_ms]
        return outcome_of(await self._ended("release", keys, args=args, deadline=deadline), wanted=HoldEnd.RELEASED)

    async def _ended(self, name: str, keys: Sequence[Word], *, args: Sequence[Word], deadline: Deadline) -> Reply:
        try:
            return await self._link.run(name, keys, args=args, deadline_ms=deadline.left_ms())
        except ErrorReply as error:
            raise failure_of(error) from None

    async def _send(self, link: Link, act: Act, *, deadline_ms: int) -> Reply:
        return await link.run(act.script, act.keys, args=act.args, deadline_ms=deadline_ms)


def _answer(act: Act, reply: Reply | BaseException, *, order: Order) -> Decision | Failure:
    if isinstance(reply, ErrorReply):
        return failure_of(reply)
    if isinstance(reply, Failure):
        return reply
    if isinstance(reply, BaseException):
        raise reply
    return decision_of(reply, order, decision_id=act.decision_id)


def _shard(hold_id: str) -> int:
    shard = shard_of_hold(hold_id)
    if shard is None:
        raise NotFound("no such hold", field="hold")
    return shard
