"""The cast: who plays the customers of a replay, and which part of the trace each of them gets.

Requests go round: the first to the first customer, the second to the second. Half of the customers pay by card
through Stripe, and of the others one half by ACH and the other by wire, as the operator marks it.
"""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from typing import Final

import msgspec

from billing_core.values.money import NANOS_PER_UNIT
from gateway.command.replay.list_price import ListPrice
from gateway.command.replay.trace import Trace

_NAMES: Final = ("Ada", "Bela", "Chiara", "Dan", "Edda", "Femi", "Goran", "Hana")
_ROOM_PERCENT: Final = 10
_LEAST_UNITS: Final = 5


class Method(StrEnum):
    """How a customer pays."""

    STRIPE = "stripe"
    ACH = "ach"
    WIRE = "wire"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the trace, in sums."""

    requests: int = 0
    input_units: int = 0
    output_units: int = 0

    def cost_nanos(self, price: ListPrice) -> Fraction:
        """What it costs at list price, exactly."""
        return price.cost_nanos(self.input_units, self.output_units)


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """One customer and its share."""

    customer_id: str
    name: str
    method: Method
    share: Share

    @property
    def is_offline(self) -> bool:
        """Whether the operator has to mark its payments."""
        return self.method is not Method.STRIPE


def cast_of(trace: Trace, count: int) -> tuple[Actor, ...]:
    """So many customers with their shares of the trace."""
    return tuple(
        Actor(
            customer_id=f"customer-{index + 1:02d}",
            name=f"{_NAMES[index % len(_NAMES)]} {index // len(_NAMES) + 1}",
            method=_method(index, count),
            share=_share(trace, index, count=count),
        )
        for index in range(count)
    )


def player_of(place: int, count: int) -> int:
    """Who of so many customers plays the request at this place of the trace."""
    return place % count


def top_up_units(share: Share, price: ListPrice, *, held_nanos: Fraction) -> int:
    """Whole units of the currency that are enough for the share.

    `held_nanos` is the most that can be set aside at one moment beyond what is spent. A tenth is added.
    """
    needed = share.cost_nanos(price) * (100 + _ROOM_PERCENT) / 100 + held_nanos
    return max(_LEAST_UNITS, -(-needed.numerator // (needed.denominator * NANOS_PER_UNIT)))


def _method(index: int, count: int) -> Method:
    if index < (count + 1) // 2:
        return Method.STRIPE
    return Method.ACH if (index - (count + 1) // 2) % 2 == 0 else Method.WIRE


def _share(trace: Trace, index: int, *, count: int) -> Share:
    played = [request for place, request in enumerate(trace.requests) if player_of(place, count) == index]
    return Share(
        requests=len(played),
        input_units=sum(request.input_units for request in played),
        output_units=sum(request.output_units for request in played),
    )
