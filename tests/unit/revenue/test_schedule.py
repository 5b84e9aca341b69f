"""A schedule earns what is over, books each month apart, and ends exactly at its total."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import InvariantBroken
from billing_core.revenue.schedule import Schedule, ScheduleState, earned, scheduled

START = datetime(2026, 1, 15, tzinfo=UTC)


def schedule(
    total: int = 31,
    *,
    start: datetime = START,
    end: datetime = datetime(2026, 2, 15, tzinfo=UTC),
    zone: str = "UTC",
) -> Schedule:
    return scheduled(
        Schedule(
            tenant_id="t",
            invoice_id="inv_1",
            line_no=1,
            customer_id="c",
            currency="USD",
            time_zone=zone,
            total_nanos=total,
            recognized_nanos=0,
            days_recognized=0,
            start_at=start,
            end_at=end,
            due_at=start,
        )
    )


def test_a_late_run_books_one_transfer_per_month_named_by_its_last_day() -> None:
    """17 days of January, 9 of February; then the rest."""
    first = earned(schedule(), now=datetime(2026, 2, 10, 8, tzinfo=UTC))
    assert [(t.source, t.entries[0].nanos) for t in first.transfers] == [
        ("inv_1:1:2026-01-31", 17),
        ("inv_1:1:2026-02-09", 9),
    ]
    assert [t.booked_at.isoformat()[:10] for t in first.transfers] == ["2026-01-31", "2026-02-09"]
    assert (first.schedule.due_at, first.schedule.state) == (
        datetime(2026, 2, 11, tzinfo=UTC),
        ScheduleState.RUNNING,
    )
    rest = earned(first.schedule, now=datetime(2026, 5, 1, tzinfo=UTC))
    assert [(t.source, t.entries[0].nanos) for t in rest.transfers] == [("inv_1:1:2026-02-14", 5)]
    assert rest.schedule.state is ScheduleState.DONE
    with pytest.raises(InvariantBroken):
        earned(rest.schedule, now=datetime(2026, 5, 1, tzinfo=UTC))


def test_nothing_is_booked_while_no_day_is_over() -> None:
    """The first day counts when it ends."""
    assert schedule().due_at == START + timedelta(days=1)
    assert earned(schedule(), now=START + timedelta(hours=23)).transfers == ()


def test_march_in_berlin_is_march_in_the_books() -> None:
    """Although it begins on 28 February at 23:00Z, and summer time comes in it."""
    berlin = schedule(
        start=datetime(2026, 2, 28, 23, tzinfo=UTC), end=datetime(2026, 3, 31, 22, tzinfo=UTC), zone="Europe/Berlin"
    )
    done = earned(berlin, now=datetime(2026, 4, 2, tzinfo=UTC))
    assert [t.booked_at.isoformat()[:10] for t in done.transfers] == ["2026-03-31"]


@given(
    total=st.integers(1, 10**15),
    days=st.integers(1, 400),
    hour=st.integers(0, 23),
    looks=st.lists(st.integers(0, 500 * 24), max_size=12),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
)
def test_however_often_one_looks_the_whole_is_earned_once(
    total: int, days: int, hour: int, looks: list[int], zone: str
) -> None:
    """Any looks book the same sum, never more than the total, and due_at never passes in vain."""
    start = START.replace(hour=hour)
    current, booked = schedule(total, start=start, end=start + timedelta(days=days), zone=zone), 0
    for hours in [*sorted(looks), 600 * 24]:
        now = start + timedelta(hours=hours)
        if current.state is ScheduleState.RUNNING:
            due = current.due_at <= now
            earning = earned(current, now=now)
            assert (earning.schedule != current) is due

            booked += sum(t.entries[0].nanos for t in earning.transfers)
            current = earning.schedule
            assert booked == current.recognized_nanos <= total
    assert (booked, current.state) == (total, ScheduleState.DONE)
