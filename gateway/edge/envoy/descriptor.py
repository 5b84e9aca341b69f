"""What a descriptor of ours asks for, and what is asked together.

Entries with these keys are read, in any order; what others say is not:

    key          an API key, bare or as the Authorization header has it; or, where none is at hand,
    customer     a customer of the operator whose token the call carries (`initial_metadata`: `authorization`),
    path         with a place in the customer's budgets, such as `team:ml`; or
    hold         a hold that `ext_authz` placed: it ends here, by what was used
    feature      what is counted; required
    request_id   the idempotency key, where Envoy makes it itself (`%REQ(x-request-id)%`)
    mode         `consume` (or nothing); `record` tells what was done already and is never refused

How much: `hits_addend` of the descriptor, else of the request, where 0 means 1. A 0 of the descriptor itself only
looks whether there is one unit more; where a hold is named it is a quantity like any other.

A proxy asks the same again and again, word for word, as long as nobody's request id stands in it. So what was read
of a request is remembered, by its bytes.

A descriptor without `key`, `customer`, `hold` and `feature` is none of ours. One that has only half of what is
needed is a mistake of the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from billing_core.contract.path import parse_path
from billing_core.errors import InvalidInput
from billing_core.values.ids import is_code
from billing_core.values.money import MAX_EXACT
from gateway.admission.order import Charge, Mode, Order
from gateway.edge.authorize.order import request_key
from gateway.edge.envoy.ask import Descriptor, RateLimit, rate_limit_of

_OURS: Final = frozenset({"key", "customer", "path", "hold", "feature", "request_id", "mode"})
_NAMING: Final = frozenset({"key", "customer", "hold", "feature"})
_SHORT_BYTES: Final = 512
_CAPACITY: Final = 4_096
_OF_AN_ORDER: Final = ("path", "request_id", "mode")


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """On whose account, how, and under which request: what has this in common is decided in one step."""

    key: str = ""
    customer: str = ""
    path: str = ""
    hold: str = ""
    request_id: str = ""
    mode: Mode = Mode.CONSUME


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a descriptor of ours asks for."""

    who: Who
    charge: Charge


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A whole request: what each descriptor asks for (None: it is none of ours), and the order of each who.

    Of the order of a who that names a hold only the charges matter.
    """

    domain: str
    asks: tuple[Ask | None, ...]
    orders: dict[Who, Order]


class Readings:
    """Reads requests; remembers short ones that may come again, at most so many, then it begins anew."""

    def __init__(self, *, shadow: bool) -> None:
        """`shadow`: refusals are recorded and not made."""
        self._shadow = shadow
        self._known: dict[bytes, Reading] = {}

    def read(self, message: bytes) -> Reading:
        """What a RateLimitRequest asks for.

        Raises: InvalidInput.
        """
        known = self._known.get(message)
        if known is not None:
            return known
        asked = rate_limit_of(message)
        asks = asks_of(asked)
        orders = {who: order_of(who, charges, shadow=self._shadow) for who, charges in together(asks).items()}
        reading = Reading(domain=asked.domain, asks=tuple(asks), orders=orders)
        if len(message) <= _SHORT_BYTES and not any(who.request_id or who.hold for who in orders):
            if len(self._known) >= _CAPACITY:
                self._known.clear()
            self._known[message] = reading
        return reading


def asks_of(asked: RateLimit) -> list[Ask | None]:
    """What each descriptor asks for; None of those that are not ours.

    Raises: InvalidInput.
    """
    if not asked.domain or not asked.descriptors:
        raise InvalidInput("a domain and a descriptor are required", field="domain")
    return [_ask(descriptor, asked.hits or 1) for descriptor in asked.descriptors]


def together(asks: Sequence[Ask | None]) -> Mapping[Who, tuple[Charge, ...]]:
    """The charges of each who; what several descriptors ask of one feature is added up.

    Raises: InvalidInput.
    """
    if len(asks) == 1 and asks[0] is not None:
        return {asks[0].who: (asks[0].charge,)}
    units: dict[Who, dict[str, int]] = {}
    for ask in asks:
        if ask is not None:
            wanted = units.setdefault(ask.who, {})
            wanted[ask.charge.feature] = wanted.get(ask.charge.feature, 0) + ask.charge.quantity
            _check_quantity(wanted[ask.charge.feature])
    return {
        who: tuple(Charge(feature=feature, quantity=quantity) for feature, quantity in wanted.items())
        for who, wanted in units.items()
    }


def order_of(who: Who, charges: tuple[Charge, ...], *, shadow: bool) -> Order:
    """The order that decides them."""
    return Order(
        charges=charges,
        mode=who.mode,
        idempotency_key=request_key(charges, who.request_id) if who.request_id else "",
        shadow=shadow and who.mode is Mode.CONSUME,
    )


def _ask(descriptor: Descriptor, hits: int) -> Ask | None:
    entries: dict[str, str] = {}
    for name, value in descriptor.entries:
        if name in _OURS:
            if name in entries:
                raise InvalidInput("stands there twice", field=name)
            entries[name] = value
    if entries.keys().isdisjoint(_NAMING):
        return None
    feature = entries.get("feature", "")
    if not is_code(feature):
        raise InvalidInput("a descriptor names what is counted, such as api.calls", field="feature")
    if ("key" in entries) + ("customer" in entries) + ("hold" in entries) != 1:
        raise InvalidInput("a descriptor has either a key, or a customer, or a hold", field="key")
    quantity = hits if descriptor.hits is None else descriptor.hits
    _check_quantity(quantity)
    if "hold" in entries:
        if not entries["hold"]:
            raise InvalidInput("is empty: the hold's id stands in the metadata of ext_authz", field="hold")
        for name in _OF_AN_ORDER:
            if name in entries:
                raise InvalidInput("has no meaning for a hold, which knows it", field=name)
        return Ask(who=Who(hold=entries["hold"]), charge=Charge(feature=feature, quantity=quantity))
    return Ask(who=_who(entries, peeks=not quantity), charge=Charge(feature=feature, quantity=quantity or 1))


def _who(entries: Mapping[str, str], *, peeks: bool) -> Who:
    customer, path = entries.get("customer", ""), entries.get("path", "")
    if "customer" in entries:
        if not is_code(customer):
            raise InvalidInput("is no customer's code", field="customer")
        parse_path(path)
    elif "path" in entries:
        raise InvalidInput("stands beside `customer` only: a key brings its own", field="path")
    mode = entries.get("mode", Mode.CONSUME.value)
    if mode not in (Mode.CONSUME, Mode.RECORD):
        raise InvalidInput("must be consume or record", field="mode")
    return Who(
        key=entries.get("key", ""),
        customer=customer,
        path=path,
        request_id="" if peeks else entries.get("request_id", ""),
        mode=Mode.PEEK if peeks else Mode(mode),
    )


def _check_quantity(quantity: int) -> None:
    if quantity > MAX_EXACT:
        raise InvalidInput("must be below 2^53", field="hits_addend")
