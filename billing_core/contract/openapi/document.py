"""The OpenAPI 3.1 document of a plane.

Schemas are those that msgspec makes of the types which decode and encode, so that the document cannot say anything
else than the code does. What is changed is their form: a pattern's `\\Z` is `$` in the dialect of JSON Schema, and
names of generic types and of types that share a name become readable.

Source: OpenAPI 3.1.1; JSON Schema 2020-12; ECMA-262 for patterns.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, cast

import msgspec

from billing_core.contract.openapi.operation import JSON, Operation, Parameter, Plane, Reply, Scheme
from billing_core.contract.problem import MEDIA_TYPE, Problem
from billing_core.values.invariant import invariant

OPENAPI_PATH = "/openapi.json"

Schema = dict[str, Any]

PLACE = "#/components/schemas/"
_GENERIC = re.compile(r"^(\w+?)_(\w+?)_$")


class _Schemas:
    """The schemas of all types of a plane, by type."""

    def __init__(self, plane: Plane) -> None:
        kinds = list(dict.fromkeys(kind for one in plane.operations for kind in _kinds_of(one)))
        kinds += [kind for kind in plane.also if kind not in kinds]
        made, named = msgspec.json.schema_components(kinds, schema_hook=_schema_of, ref_template=PLACE + "{name}")
        self._names = {name: _readable(name) for name in named}
        invariant(len(set(self._names.values())) == len(named), "no two schemas have one name")
        asked = {kind for one in plane.operations for kind in _asked_of(one)}
        incoming = _reached([schema for kind, schema in zip(kinds, made, strict=True) if kind in asked], named)
        self._of = {kind: self._shaped(schema, {}) for kind, schema in zip(kinds, made, strict=True)}
        self.named = {
            self._names[name]: self._shaped(schema, plane.text_rule if name in incoming else {})
            for name, schema in sorted(named.items())
        }

    def of(self, kind: Any) -> Schema:
        """The schema of a type, or a reference to it; of a tuple: one of them."""
        if isinstance(kind, tuple):
            return {"anyOf": [self._of[one] for one in cast("tuple[Any, ...]", kind)]}
        return self._of[kind]

    def fields_of(self, kind: type[msgspec.Struct]) -> tuple[dict[str, Schema], list[str]]:
        """The schemas of a struct's fields, and which of them are required; it is no schema of its own."""
        schema = self.named[self.of(kind)["$ref"].removeprefix(PLACE)]
        return schema["properties"], schema.get("required", [])

    def _shaped(self, part: Any, text_rule: Schema) -> Any:
        """The schema in the document's form; texts that nothing else bounds have the rule."""
        if isinstance(part, list):
            return [self._shaped(one, text_rule) for one in cast("list[Any]", part)]
        if not isinstance(part, dict):
            return part
        schema = cast("Schema", part)
        shaped = {name: self._shaped(value, text_rule) for name, value in schema.items()}
        if isinstance(schema.get("$ref"), str):
            shaped["$ref"] = PLACE + self._names[schema["$ref"].removeprefix(PLACE)]
        if isinstance(schema.get("pattern"), str):
            shaped["pattern"] = schema["pattern"].removesuffix(r"\Z") + "$"
        if isinstance(schema.get("description"), str):
            shaped["description"] = _prose(schema["description"])
        if schema.get("type") == "string" and not {"pattern", "format", "enum"} & set(schema):
            shaped = text_rule | shaped
        return shaped


def document_of(plane: Plane) -> bytes:
    """The document, as JSON."""
    schemas = _Schemas(plane)
    paths: dict[str, dict[str, Schema]] = {}
    for operation in plane.operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    queries = {schemas.of(one.query)["$ref"] for one in plane.operations if one.query is not None}
    used = {name: schema for name, schema in schemas.named.items() if PLACE + name not in queries}
    document = {
        "openapi": "3.1.1",
        "info": {"title": plane.title, "version": plane.version, "description": plane.says},
        "paths": paths,
        "components": {
            "schemas": used,
            "responses": {"Problem": _content("A problem (RFC 9457).", schemas.of(Problem), media_type=MEDIA_TYPE)},
            "securitySchemes": {scheme.name: _scheme(scheme) for scheme in plane.schemes},
        },
    }
    return msgspec.json.encode(document)


def _operation(operation: Operation, schemas: _Schemas) -> Schema:
    told: Schema = {"operationId": operation.name, "summary": operation.summary}
    if operation.says:
        told["description"] = operation.says
    parameters = [_parameter(one, schemas) for one in operation.parameters]
    if operation.query is not None:
        fields, required = schemas.fields_of(operation.query)
        parameters += [_field(name, schema, is_required=name in required) for name, schema in fields.items()]
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        content = {JSON: {"schema": schemas.of(operation.body)}} | {
            one.media_type: {"schema": {"type": "string"} if one.kind is None else schemas.of(one.kind)}
            for one in operation.other_bodies
        }
        told["requestBody"] = {"required": operation.needs_body, "content": content}
    told["responses"] = {str(one.status): _reply(one, schemas) for one in operation.replies} | {
        str(status): {"$ref": "#/components/responses/Problem"}
        for status in operation.failures
        if status not in {one.status for one in operation.replies}
    }
    told["security"] = [{scheme: []} if scheme else {} for scheme in operation.schemes]
    return told


def _parameter(one: Parameter, schemas: _Schemas) -> Schema:
    told = {"name": one.name, "in": one.place, "required": one.is_required, "schema": schemas.of(one.kind)}
    return told | ({"description": one.says} if one.says else {})


def _field(name: str, schema: Schema, *, is_required: bool) -> Schema:
    """A field of a query string; there is no null there, so what may be null may be left out."""
    shown = dict(schema)
    if "anyOf" in shown:
        parts: list[Schema] = [part for part in shown.pop("anyOf") if part != {"type": "null"}]
        shown = shown | parts[0] if len(parts) == 1 else shown | {"anyOf": parts}
    if shown.get("default", "") is None:
        del shown["default"]
    return {"name": name, "in": "query", "required": is_required, "schema": shown}


def _reply(reply: Reply, schemas: _Schemas) -> Schema:
    told: Schema = {"description": reply.says or HTTPStatus(reply.status).phrase}
    if reply.kind is not None:
        told = _content(reply.says, schemas.of(reply.kind), media_type=reply.media_type or JSON)
    elif reply.media_type:
        told = _content(reply.says, {"type": "string"}, media_type=reply.media_type)
    if reply.headers:
        told["headers"] = {
            one.name: {"schema": schemas.of(one.kind), "required": one.is_required, "description": one.says}
            for one in reply.headers
        }
    return told


def _content(says: str, schema: Schema, *, media_type: str) -> Schema:
    return {"description": says, "content": {media_type: {"schema": schema}}}


def _scheme(scheme: Scheme) -> Schema:
    if scheme.header:
        return {"type": "apiKey", "in": "header", "name": scheme.header, "description": scheme.says}
    return {"type": "http", "scheme": "bearer", "description": scheme.says}


def _asked_of(operation: Operation) -> list[Any]:
    """The types of what comes in, but for parameters."""
    kinds = [operation.query, operation.body, *(one.kind for one in operation.other_bodies)]
    return [kind for kind in kinds if kind is not None]


def _kinds_of(operation: Operation) -> list[Any]:
    kinds = _asked_of(operation)
    kinds += [one.kind for one in operation.parameters]
    for reply in operation.replies:
        kinds += reply.kind if isinstance(reply.kind, tuple) else (reply.kind,)
        kinds += [*(one.kind for one in reply.headers)]
    return [kind for kind in kinds if kind is not None]


def _schema_of(kind: type) -> Schema:
    """What msgspec makes no schema of. Raises: NotImplementedError."""
    if kind is object:
        return {"title": "Value"}
    raise NotImplementedError(f"no schema of {kind}")


def _reached(schemas: list[Schema], named: dict[str, Schema]) -> set[str]:
    """The names of all schemas that these lead to."""
    reached: set[str] = set()
    ways: list[Any] = [*schemas]
    while ways:
        part = ways.pop()
        if isinstance(part, list):
            ways += cast("list[Any]", part)
        elif isinstance(part, dict):
            ways += cast("Schema", part).values()
        elif isinstance(part, str) and part.startswith(PLACE):
            name = part.removeprefix(PLACE)
            if name not in reached:
                reached.add(name)
                ways.append(named[name])
    return reached


def _readable(name: str) -> str:
    """`CustomerPage` of `Page_Customer_`; `WalletPriceView` of `billing_core.api.routes.wallet.PriceView`."""
    generic = _GENERIC.match(name)
    if generic:
        return f"{generic[2]}{generic[1]}"
    *modules, short = name.split(".")
    return f"{modules[-1].title()}{short}" if modules else short


def _prose(text: str) -> str:
    """A docstring's paragraphs, each in one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
