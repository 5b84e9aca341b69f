"""Named queries: SQL lives in files, one per noun, and says about itself what a caller must know.

A query starts with a header that the loader checks against its text:

    -- name: grant_by_id
    -- rows: maybe
    -- params: tenant_id text, grant_id text
    SELECT ...  WHERE tenant_id = $1 AND grant_id = $2

`rows` is one, maybe, many or none. Parameters are counted against the highest `$n`. A test PREPAREs every query
against the real schema with these types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import msgspec

from billing_core.errors import ConfigurationError

QUERY_FOLDER = Path(__file__).resolve().parent.parent / "sql" / "queries"
INVARIANT_FOLDER = Path(__file__).resolve().parent.parent / "sql" / "invariants"
_PLACE = re.compile(r"\$(\d+)")


class Rows(StrEnum):
    """How many rows a query gives back."""

    ONE = "one"
    MAYBE = "maybe"
    MANY = "many"
    NONE = "none"


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A named query. `params` are (name, SQL type) in the order of `$1`, `$2`, ..."""

    name: str
    rows: Rows
    params: tuple[tuple[str, str], ...]
    sql: str


def parse(text: str, origin: str) -> Iterator[Query]:
    """All queries of one file.

    Raises: ConfigurationError naming the file and the query whose header is wrong.
    """
    for part in re.split(r"(?m)^(?=-- name:)", text)[1:]:
        yield _parse_one(part, origin)


def _parse_one(part: str, origin: str) -> Query:
    header = dict(re.findall(r"(?m)^-- (name|rows|params):[ ]*(.*?)\s*$", part))
    name = header.get("name", "")
    sql = re.sub(r"(?m)^-- (name|rows|params):.*\n?", "", part).strip().rstrip(";")
    params = tuple(_param(item, f"{origin}: {name}") for item in header.get("params", "").split(", ") if item)
    highest = max((int(place) for place in _PLACE.findall(sql)), default=0)
    if not name or header.get("rows") not in set(Rows) or highest != len(params) or not sql:
        raise ConfigurationError(f"{origin}: {name}: header needs name, rows and {highest} params")
    return Query(name=name, rows=Rows(header["rows"]), params=params, sql=sql)


def _param(item: str, origin: str) -> tuple[str, str]:
    name, _, sql_type = item.strip().partition(" ")
    if not sql_type:
        raise ConfigurationError(f"{origin}: param {item!r} needs a type")
    return name, sql_type


def load_folder(folder: Path) -> Mapping[str, Query]:
    """Every query of every file in the folder, by name.

    Raises: ConfigurationError where two queries share a name.
    """
    found: dict[str, Query] = {}
    for file in sorted(folder.glob("*.sql")):
        for query in parse(file.read_text("utf-8"), file.name):
            if query.name in found:
                raise ConfigurationError(f"{file.name}: {query.name}: a query of that name exists")
            found[query.name] = query
    return MappingProxyType(found)


Q = load_folder(QUERY_FOLDER)
INVARIANTS = load_folder(INVARIANT_FOLDER)
