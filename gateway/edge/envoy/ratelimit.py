"""`envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`: descriptors in, an answer to each out.

What descriptors say is told in `descriptor`. One that is none of ours is not limited, as Envoy's own service does
not limit what it has no rule for. Where one is a mistake of the configuration the call fails; so it does where the
domain is neither `*` nor the tenant whose key or token it is: a domain keeps tenants apart, the credential says who
it is.

Descriptors of one customer at one place are decided in one step, all or nothing: where one is over its limit none
is charged. Descriptors of several customers are decided each for itself. One that names a hold ends it by what was
used (`apply_on_stream_done`): the answer is OK, because what was served is not refused any more.

OVER_LIMIT is every refusal, also of a key that nobody knows; which it is stands in `X-Tallygate-Reason`. Where
nothing could be decided the call fails, and Envoy does what `failure_mode_deny` says.

Source: envoy/service/ratelimit/v3/rls.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from billing_core.errors import Forbidden, NotFound, Unavailable
from gateway.admission.caller import Caller, bearer_of, caller_at_hand, caller_of_key, caller_of_operator
from gateway.admission.deadline import Deadline
from gateway.admission.decision import Decision
from gateway.admission.gate import Gate
from gateway.admission.hold import Holds
from gateway.admission.order import Order
from gateway.admission.reason import RULES, Reason
from gateway.edge.envoy.descriptor import Ask, Readings, Who
from gateway.edge.envoy.desk import deadline_of
from gateway.edge.envoy.reply import NOT_COUNTED, Counted, limited
from gateway.edge.grpc.call import Call
from gateway.edge.ratelimit import retry_after_ms
from gateway.edge.refusal.answer import Notices
from gateway.settings import GatewaySettings
from gateway.state.directory import Directory

ANY_DOMAIN: Final = "*"
_SETTLED: Final = Decision(reason=Reason.ALLOWED, decision_id="")


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What the whole request says besides its descriptors."""

    domain: str
    token: str
    deadline: Deadline


class RateLimitDesk:
    """Decides for Envoy's rate limit filters."""

    def __init__(
        self, gate: Gate, holds: Holds, *, directory: Directory, settings: GatewaySettings, notices: Notices
    ) -> None:
        self._gate = gate
        self._holds = holds
        self._directory = directory
        self._deadline_ms = settings.decision_deadline_ms
        self._notices = notices
        self._readings = Readings(shadow=settings.authorize_shadow)

    async def should_rate_limit(self, call: Call) -> bytes:
        """A RateLimitRequest, and its RateLimitResponse."""
        deadline = deadline_of(call, self._deadline_ms)
        reading = self._readings.read(call.message)
        orders, token = reading.orders, call.head.metadata.get("authorization", "")
        errand = Errand(domain=reading.domain, token=token, deadline=deadline)
        if len(orders) == 1:
            ((who, order),) = orders.items()
            decisions = {who: await self._decide(who, order, errand=errand)}
        else:
            coming = (self._decide(who, order, errand=errand) for who, order in orders.items())
            decisions = dict(zip(orders, await asyncio.gather(*coming), strict=True))
        counted = [_counted(ask, decisions) for ask in reading.asks]
        return limited(counted, _headers(list(decisions.values()), self._notices))

    async def _decide(self, who: Who, order: Order, *, errand: Errand) -> Decision:
        if who.hold:
            await self._holds.settle(who.hold, order.charges, deadline=errand.deadline)
            return _SETTLED
        caller = caller_at_hand(self._directory, _secret(who)) if who.key else None
        if caller is None:
            caller = await self._caller(who, errand)
        if caller is not None and errand.domain not in (ANY_DOMAIN, caller.tenant_id):
            raise Forbidden("the credential belongs to another tenant than the domain", field="domain")
        try:
            decision = await self._gate.decide(caller, order, deadline=errand.deadline)
        except NotFound:
            if who.customer:
                raise
            raise Unavailable("the customer of this key is not ready yet") from None
        if decision.reason is Reason.UNAVAILABLE:
            raise Unavailable(RULES[Reason.UNAVAILABLE].title)
        return decision

    async def _caller(self, who: Who, errand: Errand) -> Caller | None:
        if not who.customer:
            return await caller_of_key(self._directory, _secret(who), deadline=errand.deadline) if who.key else None
        return await caller_of_operator(
            self._directory, errand.token, customer_id=who.customer, path=who.path, deadline=errand.deadline
        )


def _secret(who: Who) -> str:
    """The key, bare or as the Authorization header has it."""
    return bearer_of(who.key) or who.key


def _counted(ask: Ask | None, decisions: dict[Who, Decision]) -> Counted:
    """A refusal that names a feature is that descriptor's; one that names none is everybody's."""
    if ask is None:
        return NOT_COUNTED
    decision, feature = decisions[ask.who], ask.charge.feature
    is_over = not decision.allowed and decision.refused_feature in ("", feature)
    wait_ms = retry_after_ms(decision) if is_over else None
    for outcome in decision.charges:
        if outcome.feature == feature:
            reset_ms = None if outcome.reset_at_ms is None else outcome.reset_at_ms - decision.decided_at_ms
            return Counted(
                is_over=is_over,
                limit_units=outcome.limit_units,
                remaining_units=outcome.remaining_units,
                reset_ms=reset_ms if wait_ms is None else wait_ms,
                name=feature,
            )
    return Counted(is_over=is_over, reset_ms=wait_ms)


def _headers(decisions: Sequence[Decision], notices: Notices) -> Sequence[tuple[str, str]]:
    """What the client is told: of the first refusal; of the first decision where there is none."""
    if not decisions:
        return ()
    first = next((one for one in decisions if not one.allowed), decisions[0])
    told = notices.headers(first)
    return told if first.allowed else (*told, ("X-Tallygate-Reason", first.reason.value))
