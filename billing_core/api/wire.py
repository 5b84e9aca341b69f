"""What comes in, typed and bounded.

A body, a query string and the names in a path are each decoded by a type that forbids unknown fields. Two rules
that types do not say are checked here, once for every text and instant in them, however deep: a text has no
zero byte (no Postgres column can keep it) and at most 1,000 characters; an instant names its zone and lies from
1970 until 2200.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TypeVar, cast

import msgspec
from multidict import MultiMapping

from billing_core.contract.problem import decode_json
from billing_core.errors import InvalidInput, NotFound
from billing_core.values.ids import is_code
from billing_core.values.text import check_instant

Value = TypeVar("Value", bound=msgspec.Struct)

MAX_TEXT_CHARACTERS = 1000

_DATE = re.compile(r"\d{4}-")


class Nothing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body or query string without fields."""


def decode_body(raw: bytes, decoder: msgspec.json.Decoder[Value]) -> Value:
    """The typed body; no bytes at all read as `{}`.

    Raises: InvalidInput naming field and rule.
    """
    body = decode_json(raw or b"{}", decoder)
    check_values(body)
    return body


def decode_query(query: MultiMapping[str], kind: type[Value]) -> Value:
    """The typed query string, in which all is text: neither `null` nor a number of seconds means anything there.

    Raises: InvalidInput naming field and rule.
    """
    for name in query:
        if len(query.getall(name)) > 1:
            raise InvalidInput("is given more than once", field=name)
    value = decode_body(msgspec.json.encode(dict(query)), msgspec.json.Decoder(kind, strict=False))
    for field in msgspec.structs.fields(kind):
        text, found = query.get(field.encode_name), getattr(value, field.name)
        if text is not None and found is None:
            raise InvalidInput("is left out where it has no value", field=field.encode_name)
        if text is not None and isinstance(found, datetime) and not _DATE.match(text):
            raise InvalidInput("must be a date and a time (RFC 3339), not a number", field=field.encode_name)
    return value


def check_path(names: Mapping[str, str]) -> None:
    """Raise NotFound where a name in the path cannot be anybody's, so that no query ever sees it."""
    for kind, name in names.items():
        if not is_code(name):
            raise NotFound(f"there is no such {kind.removesuffix('_id').replace('_', ' ')}", field=kind)


def check_values(value: object) -> None:
    """Raise InvalidInput for a text or an instant anywhere in the value that breaks its rule."""
    for field, leaf in _leaves(value, ""):
        if isinstance(leaf, datetime):
            check_instant(leaf, field=field)
        elif isinstance(leaf, str) and len(leaf) > MAX_TEXT_CHARACTERS:
            raise InvalidInput(f"must have at most {MAX_TEXT_CHARACTERS} characters", field=field)
        elif isinstance(leaf, str) and "\0" in leaf:
            raise InvalidInput("must have no zero byte", field=field)


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Every value that has no parts, with its path."""
    if isinstance(value, msgspec.Struct):
        for name, told in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            yield from _leaves(getattr(value, name), f"{path}.{told}" if path else told)
    elif isinstance(value, tuple):
        for index, part in enumerate(cast("tuple[object, ...]", value)):
            yield from _leaves(part, f"{path}[{index}]")
    else:
        yield path, value
