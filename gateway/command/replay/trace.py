"""The trace: timed requests read from a CSV file, every row checked before anything is sent.

A row says when a request came, how many input tokens it brought and how many output tokens it made. Rows are named
by the line on which they stand in the file (the header is line 1), in messages as in idempotency keys. One bad row
refuses the file: a bill for half of a trace would prove nothing.

Worked example: `2023-11-16 18:15:46.6805900,374,44` on line 2 is a request at 18:15:46.680590 UTC with 374 units in
and 44 out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from billing_core.errors import InvalidInput
from billing_core.values.quantity import units_of

_WHOLE: Final = re.compile(r"-?[0-9]{1,30}\Z")
_NUMBER: Final = re.compile(r"-?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?\Z")


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The names in the header that are read; other columns are passed over."""

    time: str = "TIMESTAMP"
    input: str = "ContextTokens"
    output: str = "GeneratedTokens"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `row` is its line in the file."""

    row: int
    at: datetime
    input_units: int
    output_units: int


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """All rows in the order of time; what came at the same instant keeps the order of the file."""

    name: str
    requests: tuple[Request, ...]

    @property
    def input_units(self) -> int:
        """The sum over all requests."""
        return sum(request.input_units for request in self.requests)

    @property
    def output_units(self) -> int:
        """The sum over all requests."""
        return sum(request.output_units for request in self.requests)

    @property
    def seconds(self) -> float:
        """From the first request to the last."""
        return (self.requests[-1].at - self.requests[0].at).total_seconds()


def read_trace(path: Path, columns: Columns, *, limit: int = 0) -> Trace:
    """The file's trace, or its first `limit` rows.

    Raises: InvalidInput, one line that names row, column and rule.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", field=str(path)) from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"is not UTF-8 text: {error.reason} at byte {error.start}", field=str(path)) from None
    return trace_of(text, columns, name=path.name, limit=limit)


def trace_of(text: str, columns: Columns, *, name: str, limit: int = 0) -> Trace:
    """The trace in a CSV text. Raises: as `read_trace`."""
    rows: list[Request] = []
    for request in _requests(text, columns, name=name):
        rows.append(request)
        if len(rows) == limit:
            break
    if not rows:
        raise InvalidInput("holds no request", field=name)
    return Trace(name=name, requests=tuple(sorted(rows, key=lambda request: request.at)))


def _requests(text: str, columns: Columns, *, name: str) -> Iterator[Request]:
    reader = csv.reader(io.StringIO(text), strict=True)
    empty: list[str] = []
    try:
        header = [cell.strip() for cell in next(reader, empty)]
        places = {column: _place(header, column, name=name) for column in msgspec.structs.astuple(columns)}
        for cells in reader:
            if cells:
                yield _request(
                    cells, places, columns=columns, at=_At(name=name, row=reader.line_num, width=len(header))
                )
    except csv.Error as error:
        raise InvalidInput(f"is not a CSV file: {error}", field=f"{name}: row {reader.line_num}") from None


class _At(msgspec.Struct, frozen=True, kw_only=True):
    """Which row of which file is being read, and how many cells it must have."""

    name: str
    row: int
    width: int

    def fault(self, column: str, rule: str) -> InvalidInput:
        return InvalidInput(f"{rule}; nothing was sent", field=f"{self.name}: row {self.row}, column {column}")


def _place(header: list[str], column: str, *, name: str) -> int:
    if header.count(column) != 1:
        found = ", ".join(header) or "nothing"
        rule = "must be named once in the header" if column in header else f"is missing; the header has {found}"
        raise InvalidInput(f"{rule}; nothing was sent", field=f"{name}: row 1, column {column}")
    return header.index(column)


def _request(cells: list[str], places: dict[str, int], *, columns: Columns, at: _At) -> Request:
    if len(cells) != at.width:
        missing = columns.time if len(cells) > at.width else _first_missing(places, len(cells))
        raise at.fault(missing, f"the row has {len(cells)} cells, the header {at.width}")
    told = {column: cells[place].strip() for column, place in places.items()}
    return Request(
        row=at.row,
        at=_instant(told[columns.time], columns.time, at=at),
        input_units=_units(told[columns.input], columns.input, at=at),
        output_units=_units(told[columns.output], columns.output, at=at),
    )


def _first_missing(places: dict[str, int], count: int) -> str:
    beyond = sorted((place, column) for column, place in places.items() if place >= count)
    return beyond[0][1] if beyond else max(places, key=lambda column: places[column])


def _instant(text: str, column: str, *, at: _At) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise at.fault(column, f"{text!r} is not a time like 2023-11-16 18:15:46.680") from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _units(text: str, column: str, *, at: _At) -> int:
    value: object = int(text) if _WHOLE.match(text) else None
    if value is None:
        rule = "must be a whole number" if _NUMBER.match(text) else "is not a number"
        raise at.fault(column, f"{text!r} {rule}")
    try:
        return units_of(value, field=column)
    except InvalidInput as error:
        raise at.fault(column, f"{text!r} {error.detail}") from None
