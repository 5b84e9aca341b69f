"""Samples: what a meter reads of a usage event, and what it makes of many.

The close reads meters in SQL, over more events than a process should hold; these are the same laws over values,
which the queries are tested against, and the aggregation that SQL has no use for yet, the time-weighted sum.

Worked example: host counts 2, 3 and 3 are, by count, 3; by sum, 8; by max, 3; by unique, 2; by latest, whichever
came last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import msgspec

from billing_core.catalog.document import Aggregation
from billing_core.values.period import Period

_MICROSECOND = timedelta(microseconds=1)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One event as a meter sees it: `text` tells values apart, `number` is the amount, `order` breaks ties."""

    at: datetime
    number: Decimal = Decimal(0)
    text: str = ""
    order: int = 0


def aggregate(aggregation: Aggregation, samples: Sequence[Sample]) -> Decimal:
    """The one quantity of these events; zero where there are none."""
    if not samples:
        return Decimal(0)
    match aggregation:
        case Aggregation.COUNT:
            return Decimal(len(samples))
        case Aggregation.SUM:
            return sum((sample.number for sample in samples), Decimal(0))
        case Aggregation.MAX:
            return max(sample.number for sample in samples)
        case Aggregation.UNIQUE:
            return Decimal(len({sample.text for sample in samples}))
        case Aggregation.LATEST:
            return max(samples, key=lambda sample: (sample.at, sample.order)).number


def weighted_sum(samples: Iterable[Sample], period: Period, *, carried: Decimal = Decimal(0)) -> Fraction:
    """The time-average of a level that the samples raise and lower, over the period.

    `carried` is the level at the period's start. Events before the period are part of it; events after its end do
    not count. Two events at one instant both count.

    Example: +3 at 01:00 on the first of a month of 744 hours is 3 * 743 / 744.
    """
    whole = (period.end_at - period.start_at) // _MICROSECOND
    total = Fraction(carried)
    for sample in samples:
        if period.holds(sample.at):
            total += Fraction(sample.number) * Fraction((period.end_at - sample.at) // _MICROSECOND, whole)
    return total
