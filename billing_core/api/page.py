"""Pages of a list: a bounded number of items, and an opaque cursor to the ones behind them.

A cursor names the list and the last item shown, not an offset, so that what is added meanwhile shifts nothing.
It is opaque (base64 of a short JSON text) and refused by every other list.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

import msgspec

from billing_core.errors import InvalidInput
from billing_core.values.ids import is_code

Item = TypeVar("Item")

PageCursor = Annotated[str, msgspec.Meta(max_length=400)]
PageLimit = Annotated[int, msgspec.Meta(ge=1, le=500)]
DEFAULT_LIMIT = 50

_PLACE = msgspec.json.Decoder(tuple[str, str])


class PageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a list, and from where."""

    cursor: PageCursor = ""
    limit: PageLimit = DEFAULT_LIMIT


class Page(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """Some items of a list, and the cursor to what follows, if anything does."""

    items: tuple[Item, ...]
    next_cursor: str | None = None


def cursor_of(listing: str, last: str) -> str:
    """The cursor to what stands behind the item with the id `last`."""
    return base64.urlsafe_b64encode(msgspec.json.encode((listing, last))).decode().rstrip("=")


def place_of(cursor: str, listing: str) -> str:
    """The id that a cursor names; "" for no cursor.

    Raises: InvalidInput where the cursor does not come from this list.
    """
    if not cursor:
        return ""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found, last = _PLACE.decode(raw)
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, ValueError):
        raise InvalidInput("is no cursor of this list", field="cursor") from None
    if found != listing or not is_code(last):
        raise InvalidInput("is no cursor of this list", field="cursor")
    return last


def page_of(rows: Sequence[Item], query: PageQuery, *, listing: str, name: Callable[[Item], str]) -> Page[Item]:
    """The page of rows that were read one further than the limit; `name` is the id that the rows are ordered by."""
    items = tuple(rows[: query.limit])
    more = len(rows) > query.limit
    return Page(items=items, next_cursor=cursor_of(listing, name(items[-1])) if more else None)
