"""Schedules: a fee that was billed ahead, and how much of it is earned by now.

A schedule belongs to a fee line of a finalized invoice. Each finished day of service earns one equal part; catching
up after a pause books one transfer per calendar month instead of one per day, so that the books say the right month
and do not swell. Transfers are named by line and day, so that the same stretch is booked once.

    state      earn              void
    running    running or done   void
    done       refused           void
    void       refused           refused

Worked example: 31.00 for 15 January to 15 February: on 1 February 17 days are over and 17.00 is earned; 14 follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec

from billing_core.invoices.invoice import Invoice
from billing_core.invoices.line import Line, LineKind
from billing_core.ledger.booking import Cause, fee_earned
from billing_core.ledger.transfer import Transfer
from billing_core.revenue.spread import day_count, days_passed, earned_daily
from billing_core.values.invariant import invariant
from billing_core.values.money import to_nanos
from billing_core.values.period import Period, zone_of


class ScheduleState(StrEnum):
    """Whether there is more to earn."""

    RUNNING = "running"
    DONE = "done"
    VOID = "void"


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """One fee line's total and what of it is earned.

    `days_recognized` of the service's days are booked; `due_at` is when the next day is over.
    """

    tenant_id: str
    invoice_id: str
    line_no: int
    customer_id: str
    currency: str
    time_zone: str
    total_nanos: int
    recognized_nanos: int
    days_recognized: int
    start_at: datetime
    end_at: datetime
    due_at: datetime
    state: ScheduleState = ScheduleState.RUNNING

    @property
    def service(self) -> Period:
        """When it is served."""
        return Period(start_at=self.start_at, end_at=self.end_at)


class Earning(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule after the days that are over, and the transfers that book them."""

    schedule: Schedule
    transfers: tuple[Transfer, ...]


def scheduled(schedule: Schedule) -> Schedule:
    """A new schedule with the instant at which its first day is over."""
    return msgspec.structs.replace(schedule, due_at=_day_end(schedule, 0))


def schedules_of(invoice: Invoice, lines: Iterable[tuple[int, Line]]) -> list[Schedule]:
    """The schedules of an invoice's fee lines, by the number of the line."""
    return [
        scheduled(
            Schedule(
                tenant_id=invoice.tenant_id,
                invoice_id=invoice.invoice_id,
                line_no=line_no,
                customer_id=invoice.customer_id,
                currency=invoice.currency,
                time_zone=invoice.time_zone,
                total_nanos=to_nanos(line.amount_minor, invoice.currency),
                recognized_nanos=0,
                days_recognized=0,
                start_at=line.service_start_at,
                end_at=line.service_end_at,
                due_at=line.service_start_at,
            )
        )
        for line_no, line in lines
        if line.kind is LineKind.FEE and line.amount_minor
    ]


def earned(schedule: Schedule, *, now: datetime) -> Earning:
    """Everything up to the last day that is over at `now`, the tenant's instant."""
    invariant(schedule.state is ScheduleState.RUNNING, "only a running schedule earns")
    zone = zone_of(schedule.time_zone)
    days = day_count(schedule.service, zone=zone)
    passed = days_passed(schedule.service, now, zone=zone)
    if passed <= schedule.days_recognized:
        return Earning(schedule=schedule, transfers=())
    stops = _month_ends(schedule, zone=zone, since=schedule.days_recognized, until=passed)
    transfers: list[Transfer] = []
    before = schedule.recognized_nanos
    for stop in stops:
        total = earned_daily(schedule.total_nanos, passed=stop, days=days)
        transfer = fee_earned(_cause(schedule, stop, zone=zone), total - before)
        transfers += [transfer] if transfer else []
        before = total
    after = msgspec.structs.replace(
        schedule,
        recognized_nanos=before,
        days_recognized=passed,
        due_at=_day_end(schedule, passed),
        state=ScheduleState.DONE if passed == days else ScheduleState.RUNNING,
    )
    return Earning(schedule=after, transfers=tuple(transfers))


def _first_date(schedule: Schedule, zone: ZoneInfo) -> date:
    return schedule.start_at.astimezone(zone).date()


def _month_ends(schedule: Schedule, *, zone: ZoneInfo, since: int, until: int) -> list[int]:
    """The counts of days after which a month ends, then `until`."""
    first = _first_date(schedule, zone)
    inner = [n for n in range(since + 1, until) if (first + timedelta(days=n)).day == 1]
    return [*inner, until]


def _cause(schedule: Schedule, stop: int, *, zone: ZoneInfo) -> Cause:
    """Named by the last day that is earned."""
    last = _first_date(schedule, zone) + timedelta(days=stop - 1)
    return Cause(
        tenant_id=schedule.tenant_id,
        customer_id=schedule.customer_id,
        currency=schedule.currency,
        source=f"{schedule.invoice_id}:{schedule.line_no}:{last.isoformat()}",
        booked_at=datetime.combine(last, time(), tzinfo=UTC),
    )


def _day_end(schedule: Schedule, day: int) -> datetime:
    """When a day, 0 for the first, is over: midnight in the contract's zone, or the service's end."""
    zone = zone_of(schedule.time_zone)
    midnight = datetime.combine(_first_date(schedule, zone) + timedelta(days=day + 1), time(), tzinfo=zone)
    return min(midnight.astimezone(UTC), schedule.end_at)
