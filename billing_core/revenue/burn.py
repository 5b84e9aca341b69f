"""Burn: what left the grants that money pays for, as bookings.

A stretch of a shard's stream is added up per customer, date and act before it is booked. A grant that costs what it
is (money) needs nothing more: a nano of it is a nano in the books. A grant of credits is booked by its share: the
books have floor(price x moved / amount) of it at any moment, so what a stretch books is the difference of two such
floors, and the whole grant books its price to the nano, however it was cut up.

What left it as usage is revenue, what lapsed is breakage, what was drawn on an overdraft is owed, and what new paid
credit repays is taken off both sides: off what is owed as service and off what the customer owes.

Worked example: 3 credits cost 10.00 USD. One is used on Monday: 3.333333333 of revenue. One is used and one lapses
on Tuesday: 3.333333333 of revenue, 3.333333334 of breakage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import msgspec

from billing_core.ledger.booking import Cause, breakage, burn, overdrawn, repaid
from billing_core.ledger.transfer import Transfer
from billing_core.values.invariant import invariant
from billing_core.wallets.grant import share_nanos


class BurnAct(StrEnum):
    """How it left: by usage, by lapse, or to repay an overdraft."""

    BURN = "burn"
    LAPSE = "lapse"
    REPAY = "repay"


class Burn(msgspec.Struct, frozen=True, kw_only=True):
    """What left grants of one customer in one way on one date.

    `grant_id` is "" for all grants that cost what they are; `nanos` is negative where an overdraft got back.
    `currency` is that of the price.
    """

    tenant_id: str
    customer_id: str
    currency: str
    grant_id: str
    overdrawn: bool
    act: BurnAct
    day: datetime
    nanos: int


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """A grant of credits, its price, and how much of it is in the books. Units: nanos."""

    tenant_id: str
    grant_id: str
    amount_nanos: int
    price_nanos: int
    booked_nanos: int

    @property
    def share_nanos(self) -> int:
        """The money in the books."""
        return share_nanos(self.booked_nanos, amount_nanos=self.amount_nanos, price_nanos=self.price_nanos)


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """What a stretch books, and how far its grants of credits are booked then."""

    transfers: tuple[Transfer, ...]
    counted: tuple[Counted, ...]


_Place: TypeAlias = tuple[str, str, str, datetime]
"""Tenant, customer, currency and day."""


class _Sums:
    """The money of one place. Units: nanos."""

    def __init__(self) -> None:
        self.burned = self.lapsed = self.drawn = self.released = self.cleared = 0

    def add(self, one: Burn, nanos: int) -> None:
        """Add the money of one."""
        if one.overdrawn and one.act is BurnAct.REPAY:
            self.cleared -= nanos
        elif one.overdrawn:
            invariant(one.act is BurnAct.BURN, "an undrawn limit that lapses is nothing to the books")
            self.drawn += nanos
        elif one.act is BurnAct.REPAY:
            self.released += nanos
        elif one.act is BurnAct.LAPSE:
            self.lapsed += nanos
        else:
            self.burned += nanos

    def transfers(self, cause: Cause) -> list[Transfer]:
        """The transfers of the place; none for what is nothing."""
        found = (
            burn(cause, self.burned),
            breakage(cause, self.lapsed),
            overdrawn(cause, self.drawn),
            repaid(cause, released_nanos=self.released, cleared_nanos=self.cleared),
        )
        return [one for one in found if one is not None]


def booked(burns: Sequence[Burn], counted: Sequence[Counted], *, source: str) -> Booked:
    """What a stretch books. `counted` has each grant that is told apart; `source` names the stretch."""
    grants = {(one.tenant_id, one.grant_id): one for one in counted}
    places: dict[_Place, _Sums] = defaultdict(_Sums)
    for one in sorted(burns, key=lambda burn: (burn.day, burn.act)):
        nanos, name = one.nanos, (one.tenant_id, one.grant_id)
        if one.grant_id:
            before = grants[name]
            after = grants[name] = msgspec.structs.replace(before, booked_nanos=before.booked_nanos + nanos)
            nanos = after.share_nanos - before.share_nanos
        places[one.tenant_id, one.customer_id, one.currency, one.day].add(one, nanos)
    transfers = [
        transfer
        for place, sums in sorted(places.items(), key=lambda item: item[0])
        for transfer in sums.transfers(_cause(place, source=source))
    ]
    return Booked(transfers=tuple(transfers), counted=tuple(grants.values()))


def _cause(place: _Place, *, source: str) -> Cause:
    tenant_id, customer_id, currency, day = place
    return Cause(
        tenant_id=tenant_id,
        customer_id=customer_id,
        currency=currency,
        source=f"{source}:{customer_id}:{currency}:{day.date().isoformat()}",
        booked_at=day,
    )
