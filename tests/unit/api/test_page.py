"""Cursors and pages."""

from __future__ import annotations

import base64

import pytest

from billing_core.api.page import PageQuery, cursor_of, page_of, place_of
from billing_core.errors import InvalidInput


def test_a_cursor_leads_back_to_its_place() -> None:
    """And no cursor to the beginning."""
    assert place_of(cursor_of("customers", "acme"), "customers") == "acme"
    assert place_of("", "customers") == ""


@pytest.mark.parametrize(
    "cursor",
    [
        cursor_of("payments", "acme"),
        cursor_of("customers", "no code"),
        cursor_of("customers", "a\0"),
        "nonsense",
        "####",
        "\N{SNOWMAN}",
        base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b'["customers"]').decode(),
        base64.b64encode(b'{"customers":"acme"}').decode(),
    ],
)
def test_a_cursor_that_is_not_of_this_list_is_refused(cursor: str) -> None:
    """By field and rule."""
    with pytest.raises(InvalidInput, match="is no cursor of this list") as failure:
        place_of(cursor, "customers")
    assert failure.value.field == "cursor"


@pytest.mark.parametrize(("count", "shown", "more"), [(0, 0, False), (2, 2, False), (3, 2, True)])
def test_a_page_has_a_cursor_where_more_follows(count: int, shown: int, more: bool) -> None:
    """One row more than the limit is read to find out."""
    rows = [f"r{number}" for number in range(count)]
    page = page_of(rows, PageQuery(limit=2), listing="rows", name=lambda row: row)
    assert (len(page.items), page.next_cursor is not None) == (shown, more)
    if page.next_cursor is not None:
        assert place_of(page.next_cursor, "rows") == "r1"
