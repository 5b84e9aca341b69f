"""Rate: meter and price closed periods, many customers at a time.

One query reads one meter for all periods that are asked for; the pricing of each is pure, and done when it is
wanted: a close prices some periods while Postgres writes the bills of others. What comes out is a function of the
events recorded until the cut and of the stored plan version, so it comes out again the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby

import msgspec

from billing_core.catalog.catalog import PlanVersion
from billing_core.invoices.line import Line, Rated, period_lines, reading_name, wallets_of
from billing_core.metering.reading import MeterReading, Span
from billing_core.store import meter as meters
from billing_core.store.billing.subscription import PeriodKey
from billing_core.store.database import Transaction
from billing_core.store.setup.catalog import plan_version
from billing_core.subscriptions.term import Calendar

PeriodName = tuple[str, datetime]
"""A period's subscription and start."""

Readings = dict[tuple[str, datetime], dict[str, list[MeterReading]]]


class RatedPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """What a period costs as of a cut."""

    key: PeriodKey
    plan: PlanVersion
    lines: tuple[Line, ...]


class MeteredPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan's meters say about a period as of a cut, by the names of the readings."""

    key: PeriodKey
    plan: PlanVersion
    recorded_until: datetime
    readings: Mapping[str, Sequence[MeterReading]]

    def rated(self) -> RatedPeriod:
        """The period, priced."""
        lines = period_lines(_rated(self.key, self.plan, recorded_until=self.recorded_until), self.readings)
        return RatedPeriod(key=self.key, plan=self.plan, lines=tuple(lines))


async def meter(
    tx: Transaction, tenant_id: str, *, keys: Sequence[PeriodKey], recorded_until: datetime
) -> dict[PeriodName, MeteredPeriod]:
    """The readings of these periods, by subscription and start."""
    metered: dict[PeriodName, MeteredPeriod] = {}
    ordered = sorted(keys, key=_plan_of)
    for (plan_code, version), group in groupby(ordered, key=_plan_of):
        plan = await plan_version(tx, tenant_id, plan_code=plan_code, version=version)
        members = list(group)
        found = await _readings(tx, tenant_id, plan=plan, keys=members, recorded_until=recorded_until)
        for key in members:
            metered[(key.subscription_id, key.start_at)] = MeteredPeriod(
                key=key,
                plan=plan,
                recorded_until=recorded_until,
                readings=found.get((key.customer_id, key.start_at), {}),
            )
    return metered


async def rate(
    tx: Transaction, tenant_id: str, *, keys: Sequence[PeriodKey], recorded_until: datetime
) -> dict[PeriodName, RatedPeriod]:
    """The usage lines of these periods, by subscription and start."""
    metered = await meter(tx, tenant_id, keys=keys, recorded_until=recorded_until)
    return {name: period.rated() for name, period in metered.items()}


def calendar_for(key: PeriodKey, plan: PlanVersion) -> Calendar:
    """The calendar that the period is cut from."""
    return Calendar(interval=plan.terms.plan.interval, anchor_at=key.anchor_at, time_zone=key.time_zone)


def _plan_of(key: PeriodKey) -> tuple[str, int]:
    return key.plan_code, key.plan_version


def _rated(key: PeriodKey, plan: PlanVersion, *, recorded_until: datetime) -> Rated:
    return Rated(
        version=plan,
        service=key.period,
        full=calendar_for(key, plan).full_period(key.start_at),
        recorded_until=recorded_until,
    )


async def _readings(
    tx: Transaction, tenant_id: str, *, plan: PlanVersion, keys: Sequence[PeriodKey], recorded_until: datetime
) -> Readings:
    spans = [Span(customer_id=key.customer_id, start_at=key.start_at, end_at=key.end_at) for key in keys]
    found: Readings = defaultdict(lambda: defaultdict(list))
    for code, wallets in sorted({(price.meter, wallets_of(plan, price)) for price in plan.terms.plan.prices}):
        read = await meters.read(
            tx,
            tenant_id,
            meter=plan.terms.meter(code),
            spans=spans,
            recorded_until=recorded_until,
            wallets=wallets,
        )
        for reading in read:
            name = reading_name(code, reading.wallet)
            found[(reading.customer_id, reading.start_at)][name].append(reading)
    return found
