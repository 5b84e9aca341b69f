"""The control plane, described: an OpenAPI document made of the table of routes and their types.

What types do not say of texts that come in stands here once, as `wire` checks it for all of them. Rules between
fields, and those that need the database, are told by problems only.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from billing_core.api.probe import Alive
from billing_core.api.route import Access, AnyRoute, Retry
from billing_core.api.wire import MAX_TEXT_CHARACTERS, Nothing
from billing_core.contract.openapi.document import OPENAPI_PATH, document_of
from billing_core.contract.openapi.operation import JSON, Operation, Parameter, Plane, Reply, Scheme
from billing_core.contract.problem import Problem
from billing_core.contract.telemetry import EXPOSITION_TYPE
from billing_core.values.ids import Code, IdempotencyKey

IDEMPOTENCY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"

_SCHEMES = {Access.OPERATOR: ("operator",), Access.ROOT: ("root",), Access.PUBLIC: ("stripe",)}
_ALWAYS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_WITH_CHANGE = (
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.BAD_GATEWAY,
)
_SAYS = (
    "The control plane of Tallygate: catalog, customers, keys, subscriptions, wallets, invoices, payments, books. "
    "Every answer that is no success is a problem (RFC 9457). A POST that is sent again with its Idempotency-Key "
    "gets the first answer back. Lists come in pages: `next_cursor` of one is the `cursor` of the next."
)


def describe(routes: Sequence[AnyRoute]) -> bytes:
    """The document, as JSON."""
    return document_of(
        Plane(
            title="Tallygate control plane",
            version="1",
            says=_SAYS,
            schemes=(
                Scheme(name="operator", says="A token of the tenant's operator."),
                Scheme(name="root", says="The root token of the settings."),
                Scheme(name="stripe", says="The signature of a webhook.", header="Stripe-Signature"),
            ),
            operations=(*(_operation(route) for route in routes), *_PROBES),
            also=(Problem,),
            text_rule={"maxLength": MAX_TEXT_CHARACTERS, "pattern": "^[^\\u0000]*$"},
        )
    )


def serve_description(routes: Sequence[AnyRoute]) -> Handler:
    """The handler that answers with the document, made once."""
    document = describe(routes)

    async def tell(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type=JSON)

    return tell


def _operation(route: AnyRoute) -> Operation:
    is_change = route.method != "GET"
    is_public = route.access is Access.PUBLIC
    body: Any = None
    if route.method in {"POST", "PUT"}:
        body = dict[str, Any] if is_public else route.body
    headers: tuple[Parameter, ...] = ()
    if _may_be_repeated(route):
        headers = (
            Parameter(name=REPLAYED_HEADER, place="header", kind=str, says="This is the first answer, again."),
        )
    return Operation(
        method=route.method,
        path=route.path,
        name=_name(route),
        summary=route.summary,
        says=route.act.__doc__ or "",
        parameters=_parameters(route),
        query=None if route.query is Nothing else route.query,
        body=body,
        needs_body=not is_public and bool(_required(route.body)),
        replies=(Reply(status=route.status, says=_first_line(route.answer), kind=route.answer, headers=headers),),
        failures=(*_ALWAYS, *(_WITH_CHANGE if is_change else ())),
        schemes=_SCHEMES[route.access],
    )


def _parameters(route: AnyRoute) -> tuple[Parameter, ...]:
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    told = [Parameter(name=name, place="path", kind=Code, is_required=True) for name in names]
    if _may_be_repeated(route):
        must = route.retry is Retry.REQUIRED
        says = "Names this request: sent again with the same, it gets the first answer back."
        told.append(
            Parameter(name=IDEMPOTENCY_HEADER, place="header", kind=IdempotencyKey, is_required=must, says=says)
        )
    return tuple(told)


def _may_be_repeated(route: AnyRoute) -> bool:
    return route.method == "POST" and route.retry is not Retry.NONE


def _required(kind: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.required]


def _name(route: AnyRoute) -> str:
    """Module and function of the act, such as `customer_issue_key`."""
    return f"{route.act.__module__.rpartition('.')[2]}_{route.act.__name__}"


def _first_line(kind: Any) -> str:
    return (getattr(kind, "__origin__", kind).__doc__ or "").partition("\n")[0]


def _probe(path: str, name: str, *, says: str, reply: Reply, failures: tuple[int, ...] = ()) -> Operation:
    return Operation(method="GET", path=path, name=name, summary=says, replies=(reply,), failures=failures)


_PROBES = (
    _probe("/healthz", "healthz", says="Whether the process serves", reply=Reply(status=200, says="", kind=Alive)),
    _probe(
        "/readyz",
        "readyz",
        says="Whether all that an act needs answers",
        reply=Reply(status=200, says="", kind=Alive),
        failures=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
    _probe(
        "/metrics",
        "metrics",
        says="What this process counts",
        reply=Reply(status=200, says="Prometheus text.", media_type=EXPOSITION_TYPE.partition(";")[0]),
    ),
    _probe(
        OPENAPI_PATH,
        "openapi",
        says="This document",
        reply=Reply(status=200, says="OpenAPI 3.1.", kind=dict[str, Any]),
    ),
)
