"""`envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`: descriptors in, an answer to each out.

A descriptor of ours has entries with these keys, in any order:

    key          an API key, bare or as the Authorization header has it; or, where none is at hand,
    customer     a customer of the operator whose token the call carries (`initial_metadata`: `authorization`),
    path         with a place in the customer's budgets, such as `team:ml`
    feature      what is counted; required
    request_id   the idempotency key, where Envoy makes it itself (`%REQ(x-request-id)%`)
    mode         `consume` (or nothing); `record` tells what was done already and is never refused, for
                 `apply_on_stream_done`

What other entries say is not read, and a descriptor without `key`, `customer` and `feature` is none of ours: it is
not limited, as Envoy's own service does not limit what it has no rule for. One that has only half of what is needed
is a mistake of the configuration, and the call fails. So does one whose domain is neither `*` nor the tenant
whose key or token it is: a domain keeps tenants apart, and the credential says who it is.

How much: `hits_addend` of the descriptor, else of the request, where 0 means 1. A 0 of the descriptor itself only
looks whether there is one unit more.

Descriptors of one customer at one place are decided in one step, all or nothing: where one is over its limit none
is charged. Descriptors of several customers are decided each for itself.

OVER_LIMIT is every refusal, also of a key that nobody knows; which it is stands in `X-Tallygate-Reason`. Where
nothing could be decided the call fails, and Envoy does what `failure_mode_deny` says.

Source: envoy/service/ratelimit/v3/rls.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from billing_core.contract.path import parse_path
from billing_core.errors import Forbidden, InvalidInput, NotFound, Unavailable
from billing_core.values.ids import is_code
from billing_core.values.money import MAX_EXACT
from gateway.admission.caller import Caller, bearer_of, caller_of_key, caller_of_operator
from gateway.admission.deadline import Deadline
from gateway.admission.decision import Decision
from gateway.admission.gate import Gate
from gateway.admission.order import Charge, Mode, Order
from gateway.admission.reason import RULES, Reason
from gateway.edge.envoy.ask import Descriptor, RateLimit, rate_limit_of
from gateway.edge.envoy.desk import deadline_of
from gateway.edge.envoy.reply import NOT_COUNTED, Counted, limited
from gateway.edge.grpc.call import Call
from gateway.edge.ratelimit import rate_limit_headers, retry_after_ms
from gateway.edge.route.authorize import request_key
from gateway.settings import GatewaySettings
from gateway.state.directory import Directory

ANY_DOMAIN: Final = "*"
_OURS: Final = frozenset({"key", "customer", "path", "feature", "request_id", "mode"})
_NAMING: Final = frozenset({"key", "customer", "feature"})


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """On whose account, how, and under which request: what has this in common is decided in one step."""

    key: str = ""
    customer: str = ""
    path: str = ""
    request_id: str = ""
    mode: Mode = Mode.CONSUME


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a descriptor of ours asks for."""

    who: Who
    charge: Charge


class RateLimitDesk:
    """Decides for Envoy's rate limit filters."""

    def __init__(self, gate: Gate, directory: Directory, *, settings: GatewaySettings) -> None:
        self._gate = gate
        self._directory = directory
        self._deadline_ms = settings.decision_deadline_ms
        self._shadow = settings.authorize_shadow

    async def should_rate_limit(self, call: Call) -> bytes:
        """A RateLimitRequest, and its RateLimitResponse."""
        deadline = deadline_of(call, self._deadline_ms)
        asked = rate_limit_of(call.message)
        asks = asks_of(asked)
        orders = orders_of(asks, shadow=self._shadow)
        token = call.head.metadata.get("authorization", "")
        if len(orders) == 1:
            ((who, order),) = orders.items()
            decisions = {who: await self._decide(who, order, domain=asked.domain, token=token, deadline=deadline)}
        else:
            decided = (
                self._decide(who, order, domain=asked.domain, token=token, deadline=deadline)
                for who, order in orders.items()
            )
            decisions = dict(zip(orders, await asyncio.gather(*decided), strict=True))
        counted = [NOT_COUNTED if ask is None else _counted(ask.charge, decisions[ask.who]) for ask in asks]
        return limited(counted, _headers(list(decisions.values())))

    async def _decide(self, who: Who, order: Order, *, domain: str, token: str, deadline: Deadline) -> Decision:
        caller = await self._caller(who, domain=domain, token=token, deadline=deadline)
        try:
            decision = await self._gate.decide(caller, order, deadline=deadline)
        except NotFound:
            if who.customer:
                raise
            raise Unavailable("the customer of this key is not ready yet") from None
        if decision.reason is Reason.UNAVAILABLE:
            raise Unavailable(RULES[Reason.UNAVAILABLE].title)
        return decision

    async def _caller(self, who: Who, *, domain: str, token: str, deadline: Deadline) -> Caller | None:
        if who.customer:
            caller = await caller_of_operator(
                self._directory, token, customer_id=who.customer, path=who.path, deadline=deadline
            )
        else:
            caller = await caller_of_key(self._directory, bearer_of(who.key) or who.key, deadline=deadline)
        if caller is not None and domain not in (ANY_DOMAIN, caller.tenant_id):
            raise Forbidden("the credential belongs to another tenant than the domain", field="domain")
        return caller


def asks_of(asked: RateLimit) -> list[Ask | None]:
    """What each descriptor asks for; None of those that are not ours.

    Raises: InvalidInput.
    """
    if not asked.domain or not asked.descriptors:
        raise InvalidInput("a domain and a descriptor are required", field="domain")
    return [_ask(descriptor, asked.hits or 1) for descriptor in asked.descriptors]


def _ask(descriptor: Descriptor, hits: int) -> Ask | None:
    entries: dict[str, str] = {}
    for name, value in descriptor.entries:
        if name in _OURS:
            if name in entries:
                raise InvalidInput("stands there twice", field=name)
            entries[name] = value
    if entries.keys().isdisjoint(_NAMING):
        return None
    feature, key, customer = entries.get("feature", ""), entries.get("key", ""), entries.get("customer", "")
    if not is_code(feature):
        raise InvalidInput("a descriptor names what is counted, such as api.calls", field="feature")
    if ("key" in entries) == ("customer" in entries) or ("customer" in entries and not is_code(customer)):
        raise InvalidInput("a descriptor has either a key or a customer", field="key")
    if "path" in entries:
        if not customer:
            raise InvalidInput("stands beside `customer` only: a key brings its own", field="path")
        parse_path(entries["path"])
    quantity = hits if descriptor.hits is None else descriptor.hits
    if quantity > MAX_EXACT:
        raise InvalidInput("must be below 2^53", field="hits_addend")
    mode = _mode(entries.get("mode", Mode.CONSUME.value)) if quantity else Mode.PEEK
    request_id = "" if mode is Mode.PEEK else entries.get("request_id", "")
    who = Who(key=key, customer=customer, path=entries.get("path", ""), request_id=request_id, mode=mode)
    return Ask(who=who, charge=Charge(feature=feature, quantity=quantity or 1))


def _mode(text: str) -> Mode:
    if text not in (Mode.CONSUME, Mode.RECORD):
        raise InvalidInput("must be consume or record", field="mode")
    return Mode(text)


def orders_of(asks: Sequence[Ask | None], *, shadow: bool) -> Mapping[Who, Order]:
    """One order for each who; what several descriptors ask of one feature is added up."""
    units: dict[Who, dict[str, int]] = {}
    for ask in asks:
        if ask is not None:
            wanted = units.setdefault(ask.who, {})
            wanted[ask.charge.feature] = wanted.get(ask.charge.feature, 0) + ask.charge.quantity
    orders: dict[Who, Order] = {}
    for who, wanted in units.items():
        if max(wanted.values()) > MAX_EXACT:
            raise InvalidInput("must be below 2^53, all descriptors together", field="hits_addend")
        charges = tuple(Charge(feature=feature, quantity=quantity) for feature, quantity in wanted.items())
        orders[who] = Order(
            charges=charges,
            mode=who.mode,
            idempotency_key=request_key(charges, who.request_id) if who.request_id else "",
            shadow=shadow and who.mode is Mode.CONSUME,
        )
    return orders


def _counted(charge: Charge, decision: Decision) -> Counted:
    """A refusal that names a feature is that descriptor's; one that names none is everybody's."""
    is_over = not decision.allowed and decision.refused_feature in ("", charge.feature)
    wait_ms = retry_after_ms(decision) if is_over else None
    for outcome in decision.charges:
        if outcome.feature == charge.feature:
            reset_ms = None if outcome.reset_at_ms is None else outcome.reset_at_ms - decision.decided_at_ms
            return Counted(
                is_over=is_over,
                limit_units=outcome.limit_units,
                remaining_units=outcome.remaining_units,
                reset_ms=reset_ms if wait_ms is None else wait_ms,
                name=charge.feature,
            )
    return Counted(is_over=is_over, reset_ms=wait_ms)


def _headers(decisions: Sequence[Decision]) -> Sequence[tuple[str, str]]:
    """What the client is told: of the first refusal; of the first decision where there is none."""
    if not decisions:
        return ()
    first = next((one for one in decisions if not one.allowed), decisions[0])
    told = rate_limit_headers(first)
    return told if first.allowed else (*told, ("X-Tallygate-Reason", first.reason.value))
