"""Windows: a calendar told to the scripts, which know milliseconds and nothing else.

Equal steps are told as an anchor and a length: minutes and hours always, days and weeks where the zone is UTC.
All other calendars (months, and days where clocks are put forward and back) are told as a list of edges that
reaches far ahead and must be told again before it ends. A list starts one window before the one that holds now,
because the clock of the server that decides may be a little behind; earlier where units are carried over from
windows before. What counts only from an instant on, within a window, has that instant as an edge. A rolling window
is told by its length: a month is 30 days then, a quarter 90, a year 365.

Worked example: days in Europe/Berlin around 29 March 2026 have edges at 28 March 23:00Z and 29 March 22:00Z; that
day has 23 hours.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from billing_core.contract.snapshot import Window, WindowKind
from billing_core.values.clock import from_ms, to_ms
from billing_core.values.period import Interval, edge, index_of

_DAY_MS = 86_400_000
_STEP_MS = {
    Interval.MINUTE: 60_000,
    Interval.HOUR: 3_600_000,
    Interval.DAY: _DAY_MS,
    Interval.WEEK: 7 * _DAY_MS,
}
_ROLLING_MS = _STEP_MS | {
    Interval.MONTH: 30 * _DAY_MS,
    Interval.QUARTER: 90 * _DAY_MS,
    Interval.YEAR: 365 * _DAY_MS,
}
_ALWAYS_EQUAL = frozenset({Interval.MINUTE, Interval.HOUR})
_UTC_NAMES = frozenset(
    {"UTC", "Etc/UTC", "Etc/GMT", "GMT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal", "UCT"}
)
_DAYS_AHEAD = timedelta(days=62)
_MONTHS_AHEAD = timedelta(days=26 * 31)

LIFETIME = Window(kind=WindowKind.LIFETIME)


def window_of(
    anchor_at: datetime,
    interval: Interval,
    *,
    zone: ZoneInfo,
    now: datetime,
    before: int = 1,
    since_at: datetime | None = None,
) -> Window:
    """The calendar with edges counted from the anchor, as it must be told at `now`.

    A list begins `before` windows before the one that holds now. Where counting starts anew at `since_at`, that
    instant is an edge too, as long as now, or a clock that is a little behind, may fall beside it.
    """
    current = index_of(anchor_at, interval, instant=now, zone=zone)
    is_cut = since_at is not None and since_at > edge(anchor_at, interval, n=current - 1, zone=zone)
    if not is_cut and (interval in _ALWAYS_EQUAL or (interval in _STEP_MS and zone.key in _UTC_NAMES)):
        return Window(kind=WindowKind.STEPS, anchor_ms=to_ms(anchor_at), every_ms=_STEP_MS[interval])
    n, horizon_at = current - before, now + reach_of(interval)
    edges = [edge(anchor_at, interval, n=n, zone=zone)]
    while edges[-1] <= horizon_at:
        n += 1
        edges.append(edge(anchor_at, interval, n=n, zone=zone))
    told = {to_ms(one) for one in edges}
    if since_at is not None and is_cut:
        told.add(to_ms(since_at))
    return Window(kind=WindowKind.EDGES, edges_ms=tuple(sorted(told)))


def rolling_window(interval: Interval) -> Window:
    """The time just gone by, of that length."""
    return Window(kind=WindowKind.ROLLING, every_ms=_ROLLING_MS[interval])


def reach_of(interval: Interval) -> timedelta:
    """How far ahead a list of edges reaches: two months of days and weeks, two years of the rest."""
    return _DAYS_AHEAD if interval in _STEP_MS else _MONTHS_AHEAD


def stale_at(window: Window, *, now: datetime) -> datetime | None:
    """When a list of edges must be told again: half way to its end. None where it never ends."""
    if window.kind is not WindowKind.EDGES:
        return None
    last_at = from_ms(window.edges_ms[-1])
    return now + (last_at - now) / 2


def bounds_of(window: Window, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Start and end of the window that holds the instant; nothing where it has none, or none is told."""
    now_ms = to_ms(now)
    if window.kind is WindowKind.STEPS:
        start_ms = now_ms - (now_ms - window.anchor_ms) % window.every_ms
        return from_ms(start_ms), from_ms(start_ms + window.every_ms)
    place = bisect_right(window.edges_ms, now_ms)
    if not 0 < place < len(window.edges_ms):
        return None, None
    return from_ms(window.edges_ms[place - 1]), from_ms(window.edges_ms[place])
