"""Tables for people: a heading that starts with `>` is a column of numbers, and stands to the right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.table import Table

from billing_core.values.money import show_minor, show_nanos

Cell = str | int | None


def table_of(headings: Sequence[str], rows: Iterable[Sequence[Cell]], *, title: str = "") -> Table:
    """A table with these headings."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left")
    for row in rows:
        table.add_row(*(word(cell) for cell in row))
    return table


def facts_of(pairs: Iterable[tuple[str, Cell]]) -> Table:
    """Names and values, one pair a line; pairs without a value are left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, ""):
            table.add_row(name, word(value))
    return table


def word(cell: Cell) -> str:
    """A cell as text that rich does not take for markup; thousands of a whole number are set apart."""
    if cell is None:
        return ""
    text = f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
    return text.replace("[", "\\[")


def day(instant: datetime | None) -> str:
    """An instant as people read it, to the minute in UTC."""
    return "" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M}"


def minor(amount_minor: int, currency: str) -> str:
    """Minor units with their currency: `12.34 USD`."""
    return show_minor(amount_minor, currency)


def nanos(amount_nanos: int, currency: str) -> str:
    """Nanos with their currency, all digits that matter: `0.001375 USD`."""
    return show_nanos(amount_nanos, currency)
