"""Windows: a calendar told to the scripts, which know milliseconds and nothing else.

Equal steps are told as an anchor and a length: minutes and hours always, days and weeks where the zone is UTC.
All other calendars (months, and days where clocks are put forward and back) are told as a list of edges that
reaches far ahead and must be told again before it ends. A list starts one window before the one that holds now,
because the clock of the server that decides may be a little behind.

Worked example: days in Europe/Berlin around 29 March 2026 have edges at 28 March 23:00Z and 29 March 22:00Z; that
day has 23 hours.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from billing_core.contract.snapshot import Window, WindowKind
from billing_core.values.clock import from_ms, to_ms
from billing_core.values.period import Interval, edge, index_of

_STEP_MS = {
    Interval.MINUTE: 60_000,
    Interval.HOUR: 3_600_000,
    Interval.DAY: 86_400_000,
    Interval.WEEK: 604_800_000,
}
_ALWAYS_EQUAL = frozenset({Interval.MINUTE, Interval.HOUR})
_UTC_NAMES = frozenset(
    {"UTC", "Etc/UTC", "Etc/GMT", "GMT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal", "UCT"}
)
_DAYS_AHEAD = timedelta(days=62)
_MONTHS_AHEAD = timedelta(days=26 * 31)

LIFETIME = Window(kind=WindowKind.LIFETIME)


def window_of(anchor_at: datetime, interval: Interval, *, zone: ZoneInfo, now: datetime) -> Window:
    """The calendar with edges counted from the anchor, as it must be told at `now`."""
    if interval in _ALWAYS_EQUAL or (interval in _STEP_MS and zone.key in _UTC_NAMES):
        return Window(kind=WindowKind.STEPS, anchor_ms=to_ms(anchor_at), every_ms=_STEP_MS[interval])
    horizon_at = now + reach_of(interval)
    n = index_of(anchor_at, interval, instant=now, zone=zone) - 1
    edges = [edge(anchor_at, interval, n=n, zone=zone)]
    while edges[-1] <= horizon_at:
        n += 1
        edges.append(edge(anchor_at, interval, n=n, zone=zone))
    return Window(kind=WindowKind.EDGES, edges_ms=tuple(to_ms(one) for one in edges))


def reach_of(interval: Interval) -> timedelta:
    """How far ahead a list of edges reaches: two months of days and weeks, two years of the rest."""
    return _DAYS_AHEAD if interval in _STEP_MS else _MONTHS_AHEAD


def stale_at(window: Window, *, now: datetime) -> datetime | None:
    """When a list of edges must be told again: half way to its end. None where it never ends."""
    if window.kind is not WindowKind.EDGES:
        return None
    last_at = from_ms(window.edges_ms[-1])
    return now + (last_at - now) / 2
