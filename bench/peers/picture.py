"""Pictures of a run, as SVG: bars with their spread, and lines over an axis of rates.

Only what these two need. Colours are told twice, by place or by name, so that nothing hangs on seeing them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Final

import msgspec

_OURS: Final = "#0b6e4f"
_THEIRS: Final = "#8a94a6"
_INK: Final = "#1f2933"
_RULE: Final = "#d9dee5"
_LINES: Final = (_OURS, "#c2571a", "#3b5bdb", "#7048a8", "#8a94a6")
_FONT: Final = "font-family='system-ui, sans-serif' font-size='13'"
_BOLD: Final = "font-weight='bold'"
_SMALL: Final = "font-size='12'"
_WIDTH: Final = 760


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One bar: its value, and the least and the most of the rounds."""

    label: str
    value: float
    least: float
    most: float
    is_ours: bool = False


def bars(title: str, unit: str, *, rows: Sequence[Bar]) -> str:
    """Bars, the longest first."""
    ordered = sorted(rows, key=lambda row: -row.value)
    left, step, top = 290, 30, 52
    height = top + step * len(ordered) + 12
    scale = (_WIDTH - left - 90) / max((row.most for row in ordered), default=1.0)
    parts = [_text(16, 24, title, style=_BOLD), _text(16, 42, unit, style=_SMALL)]
    for number, row in enumerate(ordered):
        y = top + number * step
        middle_y = y + 10
        parts.append(_text(left - 10, y + 15, row.label, anchor="end", style=_BOLD if row.is_ours else ""))
        parts.append(
            f"<rect x='{left}' y='{y}' width='{row.value * scale:.1f}' height='20' rx='2' "
            f"fill='{_OURS if row.is_ours else _THEIRS}'/>"
        )
        low, high = left + row.least * scale, left + row.most * scale
        parts.append(f"<path d='M{low:.1f} {middle_y}H{high:.1f}' stroke='{_INK}' stroke-width='2'/>")
        parts.append(_text(max(high, left + row.value * scale) + 8, y + 15, f"{row.value:,.0f}"))
    return _document(height, parts, title=title)


def lines(title: str, unit: str, *, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A line per name over a common axis; the upright one is logarithmic."""
    points = [point for one in series.values() for point in one]
    if not points:
        return _document(60, [_text(16, 24, title)], title=title)
    left, right, top, bottom, height = 70, 190, 60, 40, 380
    most_x = max(x for x, _ in points)
    low = math.floor(math.log10(min(max(y, 0.001) for _, y in points)))
    high = max(low + 1, math.ceil(math.log10(max(y for _, y in points))))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (_WIDTH - left - right) * x / most_x
        up = (height - top - bottom) * (math.log10(max(y, 0.001)) - low) / (high - low)
        return left + across, height - bottom - up

    parts = [_text(16, 24, title, style=_BOLD), _text(16, 42, unit, style=_SMALL)]
    parts += _rules(range(low, high + 1), place=lambda power: place(0, 10**power)[1], left=left, right=right)
    for x in sorted({x for x, _ in points}):
        parts.append(_text(place(x, 1)[0], height - bottom + 18, f"{x:,.0f}", anchor="middle", style=_SMALL))
    for colour, (name, one) in zip(_LINES, series.items(), strict=False):
        way = " ".join(f"{'M' if not number else 'L'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(
            place(*point) for point in one))  # fmt: skip
        parts.append(f"<path d='{way}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in (place(*p) for p in one)]
        end_x, end_y = place(*one[-1])
        parts.append(_text(end_x + 8, end_y + 4, name, style=f"fill='{colour}'"))
    return _document(height, parts, title=title)


def _rules(powers: range, *, place: Callable[[int], float], left: int, right: int) -> Iterator[str]:
    for power in powers:
        y = place(power)
        yield f"<path d='M{left} {y:.1f}H{_WIDTH - right}' stroke='{_RULE}'/>"
        yield _text(left - 8, y + 4, f"{10.0**power:,g}", anchor="end", style=_SMALL)


def _text(x: float, y: float, words: str, *, anchor: str = "start", style: str = "") -> str:
    fill = "" if "fill=" in style else f" fill='{_INK}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'{fill} {style}>{escape(words)}</text>"


def _document(height: int, parts: Sequence[str], *, title: str) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}' role='img' {_FONT}>"
    body = "\n".join(
        (f"<title>{escape(title)}</title>", f"<rect width='{_WIDTH}' height='{height}' fill='#fff'/>", *parts)
    )
    return f"{head}\n{body}\n</svg>\n"
