"""Lists that come in pages, read to the end or to a bound.

A page is `{"items": [...], "next_cursor": ...}`; the cursor is handed back until there is none. The pages are
joined byte by byte, so that `--json` prints the items just as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from gateway.command.client.answer import Answer, read_answer
from gateway.command.client.plane import Plane

Item = TypeVar("Item")

_MOST_A_PAGE = 100


class Page(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """Some items of a list; "" or None where nothing follows."""

    items: tuple[Item, ...]
    next_cursor: str | None = None


class _RawPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page whose items stay bytes."""

    items: tuple[msgspec.Raw, ...]
    next_cursor: str | None = None


async def read_pages(
    plane: Plane, path: str, *, kind: type[Item], query: Mapping[str, str] | None = None, limit: int = 0
) -> Answer[Page[Item]]:
    """The list's items, all of them or the first `limit`, as one page.

    Raises: Failure as the plane tells it.
    """
    found: list[bytes] = []
    cursor: str | None = ""
    while cursor is not None and not (limit and len(found) >= limit):
        wanted = min(_MOST_A_PAGE, limit - len(found)) if limit else _MOST_A_PAGE
        asked = {**(query or {}), "limit": str(wanted), "cursor": cursor}
        page = await plane.get(path, _RawPage, query=asked)
        found += [bytes(item) for item in page.value.items]
        cursor = page.value.next_cursor or None
    kept = found[:limit] if limit else found
    raw = b'{"items":[' + b",".join(kept) + b'],"next_cursor":' + msgspec.json.encode(cursor) + b"}"
    return read_answer(raw, Page[kind], plane=path)
