"""Time, injected. The one place that reads the machine's clock.

Everything else receives an instant. Inside the house an instant is an aware `datetime` in UTC, or an
integer of milliseconds since the epoch where Redis is near.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Clock = Callable[[], datetime]


def system_now() -> datetime:
    """The machine's time in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place


def to_ms(instant: datetime) -> int:
    """Milliseconds since the epoch, truncated towards the past.

    Raises: ValueError for a naive instant.
    """
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return (instant - EPOCH) // timedelta(milliseconds=1)


def next_ms(instant: datetime) -> datetime:
    """The instant, rounded up to a whole millisecond: nothing that was decided before it is told to be later."""
    return EPOCH - (EPOCH - instant) // timedelta(milliseconds=1) * timedelta(milliseconds=1)


def from_ms(instant_ms: int) -> datetime:
    """The instant of so many milliseconds since the epoch."""
    return EPOCH + timedelta(milliseconds=instant_ms)
