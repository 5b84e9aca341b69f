"""Terms of a subscription in time: where it may start, and the periods that it is billed by.

Periods are half-open and follow one another without a gap. A calendar-anchored plan has periods of the calendar in
the contract's zone, so that its first one is a part of a full period; a plan anchored on the subscription counts
whole periods from its start, keeping the day and clamping it where a month is short.

Worked example: monthly, anchored on the subscription, started 31 January 2026 in UTC: [31 Jan, 28 Feb), [28 Feb,
31 Mar), [31 Mar, 30 Apr). Anchored on the calendar: [31 Jan, 1 Feb), which is 1 day of 31, then whole months.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from billing_core.catalog.document import PlanAnchor
from billing_core.errors import InvalidInput
from billing_core.values.period import Interval, Period, calendar_anchor, period_at, zone_of

MAX_BACKDATE = timedelta(days=31)
"""How far in the past a subscription may start: what happened before has been closed and told to others."""


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a subscription's periods."""

    interval: Interval
    anchor_at: datetime
    time_zone: str

    def full_period(self, instant: datetime) -> Period:
        """The whole period of this calendar that holds the instant."""
        return period_at(self.anchor_at, self.interval, instant=instant, zone=zone_of(self.time_zone))

    def period_from(self, start_at: datetime) -> Period:
        """The billing period that starts at the instant and ends at the next edge."""
        return Period(start_at=start_at, end_at=self.full_period(start_at).end_at)


def contract_zone(*, customer_zone: str, plan_zone: str) -> str:
    """The customer's own zone where it has one, else the plan's."""
    return plan_zone if customer_zone == "UTC" else customer_zone


def calendar_of(anchor: PlanAnchor, interval: Interval, *, start_at: datetime, time_zone: str) -> Calendar:
    """The calendar of a subscription that starts at the instant."""
    calendar = anchor is PlanAnchor.CALENDAR
    anchor_at = calendar_anchor(interval, start_at, zone=zone_of(time_zone)) if calendar else start_at
    return Calendar(interval=interval, anchor_at=anchor_at, time_zone=time_zone)


def anchor_after(
    before: Calendar, *, was: PlanAnchor, anchor: PlanAnchor, interval: Interval, at: datetime
) -> datetime:
    """Where periods are counted from after a change of plan at the instant.

    A subscription keeps its day where both plans follow it and have periods of one length; else the new plan's
    calendar begins at the instant.
    """
    if was is anchor is PlanAnchor.SUBSCRIPTION and before.interval is interval:
        return before.anchor_at
    return calendar_of(anchor, interval, start_at=at, time_zone=before.time_zone).anchor_at


def check_start(start_at: datetime, *, now: datetime, free_from: datetime | None) -> None:
    """Refuse a start that time or an earlier subscription does not allow.

    `now` is the tenant's instant; `free_from` is the end of the customer's last subscription.

    Raises: InvalidInput naming the field and the rule.
    """
    if start_at.tzinfo is None:
        raise InvalidInput("needs a time zone", field="start_at")
    if start_at > now:
        raise InvalidInput(f"must not lie in the future: it is {now.isoformat()}", field="start_at")
    if start_at < now - MAX_BACKDATE:
        rule = f"a clock in the past: may lie at most {MAX_BACKDATE.days} days before {now.isoformat()}"
        raise InvalidInput(rule, field="start_at")
    if free_from is not None and start_at < free_from:
        rule = f"periods never overlap: the subscription before this one lasted until {free_from.isoformat()}"
        raise InvalidInput(rule, field="start_at")
