"""The control plane over HTTP: routes are mounted here, and each request takes the same way.

Who asks? -> are the names in the path, the query string and the body in order? -> the act, within its
transaction -> the answer's bytes. Every step may raise; the middleware tells it. A POST with an Idempotency-Key
takes the way through `idempotency`. Where the gateway must know what was changed, it is told between commit and
answer; where Redis is away, what is done is no failure: it is told later, and the answer's `applied` is false.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web
from redis.exceptions import RedisError

from billing_core.adapters.projection import Projection
from billing_core.adapters.redis_client import REDIS_FAILURES
from billing_core.api.constraint import POSTGRES_FAULTS
from billing_core.api.credential import Credentials, bearer_of
from billing_core.api.description import IDEMPOTENCY_HEADER, REPLAYED_HEADER, serve_description
from billing_core.api.idempotency import Attempt, Told, derived_secret, once_across, once_within, request_digest
from billing_core.api.probe import PROBES, Tally
from billing_core.api.problem import problems
from billing_core.api.route import HOUSE, Access, AnyCall, AnyRoute, House, Retry, Route
from billing_core.api.routes import (
    books,
    catalog,
    customer,
    entitlement,
    invoice,
    payment,
    subscription,
    tenant,
    usage,
    wallet,
)
from billing_core.api.wire import check_path, decode_body, decode_query
from billing_core.contract.openapi.document import OPENAPI_PATH
from billing_core.errors import InvalidInput
from billing_core.flows.project import Relay, RelayTally
from billing_core.store.database import Transaction
from billing_core.store.setup.tenant import Claim
from billing_core.values.ids import IDEMPOTENCY_KEY_PATTERN, IdempotencyKey, new_secret
from billing_core.values.text import RULES

ROUTES: tuple[AnyRoute, ...] = (
    *tenant.ROUTES,
    *catalog.ROUTES,
    *customer.ROUTES,
    *subscription.ROUTES,
    *entitlement.ROUTES,
    *wallet.ROUTES,
    *usage.ROUTES,
    *invoice.ROUTES,
    *payment.ROUTES,
    *books.ROUTES,
)
"""The whole control plane."""

_CANONICAL = msgspec.json.Encoder(order="sorted")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


CREDENTIALS = web.AppKey("credentials", Credentials)
RELAY = web.AppKey("relay", Relay)
AWAY = (*REDIS_FAILURES, RedisError, *POSTGRES_FAULTS)
"""Why a change that is committed may reach the gateway later than its answer."""


def make_app(house: House) -> web.Application:
    """The application."""
    middlewares = [Tally(house.telemetry).count, problems]
    app = web.Application(middlewares=middlewares, client_max_size=house.settings.max_body_bytes)
    app[HOUSE] = house
    app[CREDENTIALS] = Credentials(house.database, root_token=house.settings.root_token)
    if house.redis is not None:
        app[RELAY] = Relay(house.database, Projection(house.redis), tally=RelayTally())
    for path in sorted({route.path for route in ROUTES}, key=_by_names):
        routes = [route for route in ROUTES if route.path == path]
        for route in routes:
            app.router.add_route(route.method, path, serve(route))
        app.router.add_route("*", path, _refuse_method([route.method for route in routes]))
    app.router.add_routes(PROBES)
    app.router.add_get(OPENAPI_PATH, serve_description(ROUTES))
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """The runner that serves it. Bodies are never unpacked: a small one could become a very large one."""
    return web.AppRunner(app, access_log=None, auto_decompress=False)


def serve(route: AnyRoute) -> _Handler:
    """The route as a handler of aiohttp."""
    decoder = msgspec.json.Decoder(route.body)

    async def handle(request: web.Request) -> web.StreamResponse:
        call = await _open(request, route, decoder=decoder)
        told = await _answer(call, route, bearer=request.headers.get("Authorization", ""), path=request.path)
        if route.tells is not None:
            told = await _tell(call, told, kind=route.answer, tells=route.tells, relay=request.app.get(RELAY))
        headers = {REPLAYED_HEADER: "true"} if told.replayed else {}
        return web.Response(status=told.status, body=told.body, content_type="application/json", headers=headers)

    return handle


def _by_names(path: str) -> list[tuple[bool, str]]:
    """An order in which a path comes before those whose variable part would fit it too."""
    return [(part.startswith("{"), part) for part in path.split("/")]


def _refuse_method(allowed: list[str]) -> _Handler:
    """What any other method of a path is told."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed(request.method, allowed)

    return refuse


async def _open(request: web.Request, route: AnyRoute, *, decoder: msgspec.json.Decoder[Any]) -> AnyCall:
    """Authenticate, then decode."""
    house = request.app[HOUSE]
    now = house.clock()
    tenant_id = await _authenticate(request, route, now=now)
    check_path(request.match_info)
    reads_body = route.method in {"POST", "PUT", "PATCH"}
    raw = await _read(request) if reads_body else b""
    query = decode_query(request.query, route.query)
    plain = route.access is Access.PUBLIC
    return AnyCall(
        house=house,
        tenant_id=tenant_id,
        path=dict(request.match_info),
        query=query,
        body=route.body() if plain else decode_body(raw, decoder),
        now=now,
        idempotency_key=_idempotency_key(request, route),
        secret=new_secret(route.secret_prefix) if route.secret_prefix else "",
        headers=request.headers,
        raw=raw,
    )


async def _authenticate(request: web.Request, route: AnyRoute, *, now: datetime) -> str:
    """The tenant that the request is about; "" where it is about none or the root's."""
    header = request.headers.get("Authorization", "")
    if route.access is Access.OPERATOR:
        return await request.app[CREDENTIALS].tenant(header, now=now)
    if route.access is Access.ROOT:
        await request.app[CREDENTIALS].check_root(header, now=now)
    return ""


async def _read(request: web.Request) -> bytes:
    """The body's bytes, within the bound of the application."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise web.HTTPUnsupportedMediaType(reason="Bodies are read as they are, without a content encoding")
    return await request.read()


def _idempotency_key(request: web.Request, route: AnyRoute) -> str:
    keys = request.headers.getall(IDEMPOTENCY_HEADER, [])
    if route.method != "POST" or route.retry is Retry.NONE or (not keys and route.retry is Retry.OPTIONAL):
        return ""
    if len(keys) != 1:
        raise InvalidInput("is required, once" if not keys else "is given more than once", field=IDEMPOTENCY_HEADER)
    try:
        return msgspec.convert(keys[0], IdempotencyKey)
    except msgspec.ValidationError:
        raise InvalidInput(RULES[IDEMPOTENCY_KEY_PATTERN], field=IDEMPOTENCY_HEADER) from None


async def _answer(call: AnyCall, route: AnyRoute, *, bearer: str, path: str) -> Told:
    """Act, once per idempotency key where there is one."""
    if not call.idempotency_key:
        return Told(status=route.status, body=await _act(call, route))
    attempt = _attempt(call, route, bearer=bearer, path=path)
    call = msgspec.structs.replace(call, secret=attempt.secret_of(call.now))
    if isinstance(route, Route):

        async def act(tx: Transaction) -> bytes:
            return msgspec.json.encode(await route.act(tx, call))

        return await once_within(call.house.database, attempt, act=act)
    return await once_across(call.house.database, attempt, act=lambda: _act(call, route))


async def _tell(
    call: AnyCall,
    told: Told,
    *,
    kind: type[msgspec.Struct],
    tells: Callable[[Any], str],
    relay: Relay | None,
) -> Told:
    """The answer once the gateway knows what it says, or as it is where that must wait."""
    answer = msgspec.json.decode(told.body, type=kind)
    try:
        applied = relay is not None and await relay.tell_customer(
            tenant_id=call.tenant_id, customer_id=tells(answer), now=call.now
        )
    except AWAY:
        applied = False
    body = msgspec.json.encode(msgspec.structs.replace(answer, applied=applied))
    return Told(status=told.status, body=body, replayed=told.replayed)


async def _act(call: AnyCall, route: AnyRoute) -> bytes:
    if isinstance(route, Route):
        async with call.house.database.transaction() as tx:
            return msgspec.json.encode(await route.act(tx, call))
    return msgspec.json.encode(await route.act(call))


def _attempt(call: AnyCall, route: AnyRoute, *, bearer: str, path: str) -> Attempt:
    """Where the answer holds a secret, only the same bearer token gets it again."""
    token = bearer_of(bearer) if route.secret_prefix else ""
    parts = (_CANONICAL.encode(call.query), _CANONICAL.encode(call.body), token.encode())
    claim = Claim(
        tenant_id=call.tenant_id,
        key=call.idempotency_key,
        route=f"{route.method} {path}",
        digest=request_digest(*parts),
    )
    return Attempt(
        claim=claim,
        now=call.now,
        status=route.status,
        secret_of=lambda at: (
            derived_secret(route.secret_prefix, bearer=token, claim=claim, at=at) if route.secret_prefix else ""
        ),
    )
