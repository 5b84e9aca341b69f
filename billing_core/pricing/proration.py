"""Proration: which share of a full period a part of it is.

By default seconds of the half-open period are counted, so a plan that is changed at noon is shared at noon. By
days, the start day counts and the end day does not, in the contract's zone. In months of thirty days every month
has thirty, which is what some contracts and the bond market say. A part is always a share of the full period that
it lies in, so three days of February and three days of March are not the same share of a month. Only recurring
fees are prorated: usage and one-time fees never.

Worked example: 100.00 for 2024-02-18 to 2024-03-18, left on 2024-02-25: 22 of 29 days are unused, 75.86 goes back.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from zoneinfo import ZoneInfo

import msgspec

from billing_core.errors import InvalidInput
from billing_core.values.period import Interval, Period, edges_from

_MICROSECOND = timedelta(microseconds=1)


class ProrateBy(StrEnum):
    """What is counted."""

    SECONDS = "seconds"
    DAYS = "days"
    DAYS_OF_THIRTY = "days_of_thirty"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A served part of one full billing period."""

    served: Period
    full: Period
    share: Fraction


def share_of(part: Period, full: Period, *, by: ProrateBy, zone: ZoneInfo) -> Fraction:
    """The part's share of the full period, from 0 to 1.

    Raises: InvalidInput where the part does not lie in the full period.
    """
    if part.start_at < full.start_at or part.end_at > full.end_at:
        raise InvalidInput("what is prorated lies in the full period", field="period")
    if by is ProrateBy.SECONDS:
        return Fraction(
            (part.end_at - part.start_at) // _MICROSECOND, (full.end_at - full.start_at) // _MICROSECOND
        )
    count = _thirty_days if by is ProrateBy.DAYS_OF_THIRTY else _days
    whole = count(full.start_at.astimezone(zone), full.end_at.astimezone(zone))
    if whole <= 0:
        raise InvalidInput("a period that is prorated by days has at least one", field="period")
    return Fraction(count(part.start_at.astimezone(zone), part.end_at.astimezone(zone)), whole)


def shares_of(
    served: Period, *, anchor_at: datetime, interval: Interval, by: ProrateBy, zone: ZoneInfo
) -> list[Share]:
    """What was served, cut at the billing edges, each piece with its share of the full period around it.

    Example: anchored on day 7, served from 31 January to 10 March 2011: 7/31, then 1, then 3/31.
    """
    shares: list[Share] = []
    edges = edges_from(anchor_at, interval, instant=served.start_at, zone=zone)
    start = next(edges)
    for end in edges:
        full = Period(start_at=start, end_at=end)
        piece = Period(start_at=max(start, served.start_at), end_at=min(end, served.end_at))
        shares.append(Share(served=piece, full=full, share=share_of(piece, full, by=by, zone=zone)))
        if end >= served.end_at:
            break
        start = end
    return shares


def _days(start: datetime, end: datetime) -> int:
    return (end.date() - start.date()).days


def _thirty_days(start: datetime, end: datetime) -> int:
    months = (end.year - start.year) * 12 + end.month - start.month
    return months * 30 + min(end.day, 30) - min(start.day, 30)
