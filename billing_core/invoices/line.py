"""Lines: what was sold, when it was served, and how its amount came about.

A fee line bills the period that begins, a usage line the period that closed, one per price and group. A correction
line bills the difference that late events make to a closed period; it keeps the period of service and says what was
billed before. Each line is rounded once, from an exact amount to minor units.

A usage line of a prepaid price also says how much of it came out of the wallet: what the gate charged for these
events, never more than the line. Where the wallet was short when a hold was settled, or an event did not pass the
gate, the rest is due.

A prepaid price in another currency than the plan's, or in a credit unit, is paid out of its own wallet or not at
all. Its line shows the quantity, what that wallet paid (`wallet_nanos`) and what it could not pay (`unpaid_nanos`),
and has no amount: nothing of it ever becomes due, because nobody agreed what a missing credit costs in money.

Worked example: 22_361_870 tokens at 2.50 a million are 55_904_675_000 nanos: 55.90 USD. The gate charged them all:
prepaid 55.90, due nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

import msgspec

from billing_core.catalog.catalog import PlanVersion
from billing_core.catalog.document import Pay, Price
from billing_core.catalog.rate import rates_of
from billing_core.metering.reading import MeterReading
from billing_core.pricing.charge import charge_of
from billing_core.pricing.record import PartRecord, exact_text, part_records
from billing_core.values.money import nanos_of, to_minor
from billing_core.values.period import Period


class LineKind(StrEnum):
    """What a line bills."""

    FEE = "fee"
    USAGE = "usage"
    CORRECTION = "correction"


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What was billed for a period before a correction. `recorded_until` is the cut that was billed up to.

    `whole_minor` is the whole difference; the line's amount is less where the invoice had no room to give it back.
    """

    quantity: str
    amount_minor: int
    prepaid_minor: int
    event_count: int
    recorded_until: datetime
    whole_minor: int


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `recorded_until` is the cut: events written before it are in, later ones are not.

    Units: `quantity` in the meter's units as exact text, 1 for a fee; amounts in minor units.
    """

    kind: LineKind
    description: str
    plan_code: str
    plan_version: int
    service_start_at: datetime
    service_end_at: datetime
    amount_minor: int
    quantity: str = "1"
    price_code: str = ""
    meter_code: str = ""
    group_key: dict[str, str] = {}
    recorded_until: datetime | None = None
    prepaid_minor: int = 0
    parts: tuple[PartRecord, ...] = ()
    event_count: int = 0
    unreadable_count: int = 0
    event_digest: str = ""
    earlier: Earlier | None = None
    wallet: str = ""
    wallet_nanos: int = 0
    unpaid_nanos: int = 0

    @property
    def due_minor(self) -> int:
        """What the line leaves to pay; negative where it gives back."""
        return self.amount_minor - self.prepaid_minor

    @property
    def service(self) -> Period:
        """When it was served."""
        return Period(start_at=self.service_start_at, end_at=self.service_end_at)


class Rated(msgspec.Struct, frozen=True, kw_only=True):
    """A closed period as its events stand at a cut. `full` is the whole period around a part at its start."""

    version: PlanVersion
    service: Period
    full: Period
    recorded_until: datetime


def fee_line(version: PlanVersion, service: Period, *, share: Fraction) -> Line | None:
    """The plan's fee for the period that begins, in its share of a full period; None where the plan has no fee."""
    plan = version.terms.plan
    fee_nanos = nanos_of(plan.fee_amount, field="fee_amount")
    if not fee_nanos:
        return None
    exact = fee_nanos * share
    part = PartRecord(quantity=exact_text(share), unit_nanos=exact_text(fee_nanos), amount_nanos=exact_text(exact))
    return Line(
        kind=LineKind.FEE,
        description=f"{plan.name or plan.code}: fee",
        plan_code=plan.code,
        plan_version=version.version,
        service_start_at=service.start_at,
        service_end_at=service.end_at,
        amount_minor=to_minor(exact, plan.currency),
        parts=(part,),
    )


def period_lines(rated: Rated, readings: Mapping[str, Sequence[MeterReading]]) -> list[Line]:
    """The usage lines of a closed period in the order of the plan's prices; `readings` by their names."""
    return [
        line
        for price in rated.version.terms.plan.prices
        for line in price_lines(
            rated, price, readings=readings.get(reading_name(price.meter, wallet_of(rated.version, price)), ())
        )
    ]


def reading_name(meter_code: str, wallet: str) -> str:
    """How a meter's readings are called: by its code, and the wallet where events are told apart by it."""
    return f"{meter_code}@{wallet}" if wallet else meter_code


def wallets_of(version: PlanVersion, price: Price) -> tuple[str, ...]:
    """The wallets by which a price's events are told apart; none where one wallet, the plan's own, pays for all.

    The plan's own currency comes first: what no wallet was asked for is due in money where the plan has a price.
    """
    if price.pay is not Pay.PREPAID:
        return ()
    plan = version.terms.plan
    named = [
        one.currency or plan.currency for one in plan.prices if one.pay is Pay.PREPAID and one.meter == price.meter
    ]
    apart = dict.fromkeys(sorted(named, key=lambda code: code != plan.currency))
    return () if set(apart) == {plan.currency} else tuple(apart)


def wallet_of(version: PlanVersion, price: Price) -> str:
    """The wallet whose events the price counts; "" for all events of its meter."""
    return (price.currency or version.terms.plan.currency) if wallets_of(version, price) else ""


def price_lines(rated: Rated, price: Price, *, readings: Sequence[MeterReading]) -> list[Line]:
    """The lines of one price, one per group in the order of the groups' keys, each group priced on its own."""
    groups = sorted(readings, key=lambda reading: sorted(reading.group_key.items()))
    lines = [_usage_line(rated, price, reading=reading) for reading in groups or (None,)]
    return [line for line in lines if line is not None]


def _usage_line(rated: Rated, price: Price, *, reading: MeterReading | None) -> Line | None:
    """The line of one price and group; None where nothing happened and nothing is due.

    A rate per measure of the period counts the full period, also where the customer came in the middle of it.
    """
    plan = rated.version.terms.plan
    if price.currency not in {"", plan.currency}:
        return None if reading is None else _wallet_line(rated, price, reading=reading)
    quantity = reading.quantity if reading else Decimal(0)
    charge = charge_of(rates_of(price, rated.full), quantity)
    amount_minor = to_minor(charge.amount_nanos, plan.currency)
    if reading is None and not amount_minor:
        return None
    charged_nanos = reading.charged_nanos if reading and price.pay is Pay.PREPAID else 0
    return Line(
        kind=LineKind.USAGE,
        description=price.name or price.code,
        plan_code=plan.code,
        plan_version=rated.version.version,
        price_code=price.code,
        meter_code=price.meter,
        group_key=reading.group_key if reading else {},
        service_start_at=rated.service.start_at,
        service_end_at=rated.service.end_at,
        recorded_until=rated.recorded_until,
        quantity=exact_text(Fraction(quantity)),
        amount_minor=amount_minor,
        prepaid_minor=min(amount_minor, to_minor(charged_nanos, plan.currency)),
        parts=part_records(charge),
        event_count=reading.event_count if reading else 0,
        unreadable_count=reading.unreadable_count if reading else 0,
        event_digest=reading.event_digest if reading else "",
    )


def _wallet_line(rated: Rated, price: Price, *, reading: MeterReading) -> Line:
    """What another wallet paid for: told, never due."""
    return Line(
        kind=LineKind.USAGE,
        description=price.name or price.code,
        plan_code=rated.version.terms.plan.code,
        plan_version=rated.version.version,
        price_code=price.code,
        meter_code=price.meter,
        group_key=reading.group_key,
        service_start_at=rated.service.start_at,
        service_end_at=rated.service.end_at,
        recorded_until=rated.recorded_until,
        quantity=exact_text(Fraction(reading.quantity)),
        amount_minor=0,
        parts=part_records(charge_of(rates_of(price, rated.full), reading.quantity)),
        event_count=reading.event_count,
        unreadable_count=reading.unreadable_count,
        event_digest=reading.event_digest,
        wallet=price.currency,
        wallet_nanos=reading.charged_nanos,
        unpaid_nanos=reading.uncollected_nanos,
    )
