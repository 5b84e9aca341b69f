"""What is told of a route: values, from which the document is made."""

from __future__ import annotations

from typing import Any

import msgspec

JSON = "application/json"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One name outside the body. `place` is path, query or header; `kind` any type that has a JSON Schema."""

    name: str
    place: str
    kind: Any
    is_required: bool = False
    says: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. `kind` is its type, or a tuple of which it is one.

    None: without a body, or with one that is no JSON, in its `media_type`.
    """

    status: int
    says: str
    kind: Any = None
    media_type: str = ""
    headers: tuple[Parameter, ...] = ()


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A body in another media type than JSON. `kind` None: one that no JSON Schema describes."""

    media_type: str
    kind: Any = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One route.

    `query` is a struct whose fields are the query string's; `body` None: it has none, else it is JSON, or one of
    the `other_bodies`. `failures` are the statuses
    that tell a problem. `schemes` are ways to say who asks, one of which is needed; "" among them: or none.
    """

    method: str
    path: str
    name: str
    summary: str
    says: str = ""
    parameters: tuple[Parameter, ...] = ()
    query: type[msgspec.Struct] | None = None
    body: Any = None
    other_bodies: tuple[Body, ...] = ()
    needs_body: bool = True
    replies: tuple[Reply, ...]
    failures: tuple[int, ...] = ()
    schemes: tuple[str, ...] = ()


class Scheme(msgspec.Struct, frozen=True, kw_only=True):
    """A way to say who asks: a bearer token, or the named header."""

    name: str
    says: str
    header: str = ""


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """One plane, whole. `also`: types that the operations only hint at; `text_rule` bounds texts that come in."""

    title: str
    version: str
    says: str
    schemes: tuple[Scheme, ...]
    operations: tuple[Operation, ...]
    also: tuple[type[msgspec.Struct], ...]
    text_rule: dict[str, Any] = {}
