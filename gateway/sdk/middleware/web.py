"""In front of the handlers of an aiohttp application.

    app = web.Application(middlewares=[tallygate_middleware(tallygate, Rule(charges={"api.calls": 1}))])
    app.on_cleanup.append(lambda _: tallygate.close())

What a handler itself raises as Refused is told in the same way as a refusal here.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from billing_core.errors import Unavailable
from billing_core.values.clock import system_now
from gateway.sdk.client import AsyncTallygate
from gateway.sdk.hold import AsyncHold
from gateway.sdk.middleware.rule import Rule, Visit
from gateway.sdk.refusal import Refused, turned_away


def tallygate_middleware(tallygate: AsyncTallygate, rule: Rule) -> Middleware:
    """The middleware."""

    async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked = rule.asked(_visit(request))
        async with AsyncExitStack() as stack:
            hold: AsyncHold | None = None
            if asked is not None and rule.ttl_ms:
                hold = await stack.enter_async_context(tallygate.hold(**asked, ttl_ms=rule.ttl_ms))
            elif asked is not None:
                await tallygate.require(**asked)
            try:
                answer = await handler(request)
            except web.HTTPException as told:
                answer = told
            if hold is not None and answer.status >= rule.free_from_status:
                await hold.release()
        if isinstance(answer, web.HTTPException):
            raise answer
        return answer

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await serve(request, handler)
        except (Refused, Unavailable) as why:
            told = turned_away(why, now=system_now())
            return web.Response(status=told.status, body=told.body, headers=told.headers)

    return admit


def _visit(request: web.Request) -> Visit:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Visit(method=request.method, path=request.path, headers=headers)
