"""Where a plan's billing periods start.

A calendar plan's periods start at calendar edges in the contract's zone, so its first period is usually a part of
one; a subscription plan's periods all start on the day, and at the time of day, of the subscription.

Worked example: a monthly plan that starts on 17 March 2026 at 14:00 UTC is anchored at 1 March 00:00 when it
follows the calendar, and else at 17 March 14:00.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from billing_core.catalog.document import Plan, PlanAnchor
from billing_core.values.period import calendar_anchor


def billing_anchor(plan: Plan, started_at: datetime, *, zone: ZoneInfo) -> datetime:
    """The instant from which all edges of the subscription's billing periods are counted, in UTC."""
    if plan.anchor is PlanAnchor.SUBSCRIPTION:
        return started_at
    return calendar_anchor(plan.interval, started_at, zone=zone)
