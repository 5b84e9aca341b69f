"""A trace is read whole, and a bad row is named before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from billing_core.errors import InvalidInput
from gateway.command.replay.trace import Columns, Request, read_trace, trace_of

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2023-11-16 18:15:46.6805900,374,44\n"
COLUMNS = Columns()


def test_a_row_is_a_request_at_its_line() -> None:
    """Seven digits of a second are cut to six; a time without a zone is UTC."""
    trace = trace_of(HEADER + GOOD, COLUMNS, name="t.csv")
    at = datetime(2023, 11, 16, 18, 15, 46, 680590, tzinfo=UTC)
    assert trace.requests == (Request(row=2, at=at, input_units=374, output_units=44),)


def test_requests_come_in_the_order_of_time() -> None:
    """The row keeps the line of the file all the same."""
    trace = trace_of(HEADER + "2026-01-01 00:00:05,1,1\n2026-01-01 00:00:01,2,2\n", COLUMNS, name="t.csv")
    assert [request.row for request in trace.requests] == [3, 2]
    assert trace.seconds == 4


def test_other_columns_are_passed_over_and_names_can_be_told() -> None:
    """Whose export it is does not matter."""
    text = "model,at,in,out\nsmall,2026-01-01T00:00:00+02:00, 7 ,8\n\n"
    trace = trace_of(text, Columns(time="at", input="in", output="out"), name="t.csv")
    assert (trace.input_units, trace.output_units) == (7, 8)
    assert trace.requests[0].at == datetime(2025, 12, 31, 22, tzinfo=UTC)


def test_a_limit_reads_no_further() -> None:
    """What stands behind it may be anything."""
    assert len(trace_of(HEADER + GOOD + "nonsense\n", COLUMNS, name="t.csv", limit=1).requests) == 1


@pytest.mark.parametrize(
    ("row", "field", "rule"),
    [
        ("2026-01-01,12,x", "row 3, column GeneratedTokens", "'x' is not a number"),
        ("2026-01-01,1.5,1", "row 3, column ContextTokens", "'1.5' must be a whole number"),
        ("2026-01-01,-1,1", "row 3, column ContextTokens", "'-1' must not be negative"),
        ("2026-01-01,9007199254740992,1", "row 3, column ContextTokens", "must be below 2^53"),
        ("2026-01-01,,1", "row 3, column ContextTokens", "'' is not a number"),
        ("2026-01-01,1e3,1", "row 3, column ContextTokens", "'1e3' must be a whole number"),
        ("yesterday,1,1", "row 3, column TIMESTAMP", "'yesterday' is not a time"),
        ("2026-01-01,1", "row 3, column GeneratedTokens", "the row has 2 cells, the header 3"),
        ("2026-01-01,1,1,1", "row 3, column TIMESTAMP", "the row has 4 cells, the header 3"),
    ],
)
def test_a_bad_row_refuses_the_file(row: str, field: str, rule: str) -> None:
    """Row, column and rule, in one line."""
    with pytest.raises(InvalidInput) as caught:
        trace_of(HEADER + GOOD + row + "\n" + GOOD, COLUMNS, name="t.csv")
    assert caught.value.field == f"t.csv: {field}"
    assert rule in caught.value.detail
    assert caught.value.detail.endswith("nothing was sent")


@pytest.mark.parametrize(
    ("text", "field", "rule"),
    [
        ("", "t.csv: row 1, column TIMESTAMP", "is missing; the header has nothing"),
        ("a,b,c\n", "t.csv: row 1, column TIMESTAMP", "is missing; the header has a, b, c"),
        ("TIMESTAMP," + HEADER, "t.csv: row 1, column TIMESTAMP", "must be named once"),
        (HEADER, "t.csv", "holds no request"),
        (HEADER + '2026-01-01,"1\n', "t.csv: row 2", "is not a CSV file"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(text: str, field: str, rule: str) -> None:
    """The header is line 1."""
    with pytest.raises(InvalidInput) as caught:
        trace_of(text, COLUMNS, name="t.csv")
    assert caught.value.field == field
    assert rule in caught.value.detail


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    """By its path."""
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, rule in ((tmp_path / "none.csv", "cannot be read"), (binary, "is not UTF-8 text")):
        with pytest.raises(InvalidInput, match=rule) as caught:
            read_trace(path, COLUMNS)
        assert caught.value.field == str(path)
