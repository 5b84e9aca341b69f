"""The aiohttp shell: HTTP in and out, and nothing else.

It turns aiohttp's request into ours and our answer into aiohttp's. What aiohttp refuses by itself (no such path,
wrong method, body above the bound) is told as a problem like everything else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from billing_core.errors import InvalidInput, NotFound, TooLarge
from gateway.edge.door import Door
from gateway.edge.message import Answer, Request, Route
from gateway.edge.reply import failed
from gateway.edge.slumber import Slumber

_ANYTHING = r"[\s\S]*"
_HttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(routes: Sequence[Route], door: Door, *, slumber: Slumber, max_body_bytes: int) -> web.Application:
    """An aiohttp application that serves the routes."""
    app = web.Application(client_max_size=max_body_bytes, middlewares=[_problems])
    for route in routes:
        handler = _served(route, door, slumber=slumber, max_body_bytes=max_body_bytes)
        path = f"{route.stem}{{subject:{_ANYTHING}}}" if route.is_open else route.path
        app.router.add_route(route.method, path, handler)
    return app


def _served(route: Route, door: Door, *, slumber: Slumber, max_body_bytes: int) -> _HttpHandler:
    has_subject, stem = "{subject}" in route.path, route.stem if route.is_open else ""

    async def serve(http: web.Request) -> web.StreamResponse:
        try:
            body = await http.read() if http.body_exists else b""
        except web.HTTPRequestEntityTooLarge:
            return _response(failed(TooLarge(f"the body is larger than {max_body_bytes} bytes", field="body")))
        subject = http.match_info["subject"] if has_subject else ""
        if stem:
            subject = http.rel_url.raw_path.removeprefix(stem)  # as it came: what is decoded may read otherwise
        request = Request(
            headers=http.headers,
            query=http.rel_url.raw_query_string,
            subject=subject,
            body=body,
            since_s=slumber.since_s(http.transport),
        )
        return _response(await door.answer(route, request))

    return serve


def _response(answer: Answer) -> web.Response:
    response = web.Response(status=answer.status, body=answer.body or None, headers=answer.headers)
    if answer.body:
        response.headers["Content-Type"] = answer.media_type
    return response


@web.middleware
async def _problems(request: web.Request, handler: _HttpHandler) -> web.StreamResponse:
    """What aiohttp raises instead of answering, as problems."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _response(failed(NotFound("no such path", field="path")))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = _response(failed(InvalidInput(f"must be {allowed}", field="method"), status=error.status))
        response.headers["Allow"] = allowed
        return response
