"""Days of the books: dates of the contract, written as midnight UTC.

What was served on 31 March in Berlin belongs to March, although 1 April begins there at 22:00Z. So the day that a
transfer belongs to is the date that its instant has in the contract's zone, and months of the books are months of
these dates.
"""

from __future__ import annotations

from datetime import UTC, datetime, time

from billing_core.values.period import zone_of


def accounting_day(instant: datetime, *, time_zone: str) -> datetime:
    """The day in the books that an instant of a contract belongs to."""
    return datetime.combine(instant.astimezone(zone_of(time_zone)).date(), time(), tzinfo=UTC)
