"""In front of an ASGI application: Starlette, FastAPI, Django, Quart.

    app = TallygateASGI(app, tallygate, rule=Rule(charges={"api.calls": 1}))

A WebSocket is charged when it is opened; one that may not is refused before it is accepted. What the application
itself raises as Refused, before it has begun to answer, is told in the same way. The client is closed with the
application's lifespan.

Source: ASGI 3.0, HTTP and WebSocket 2.4, and its extension "websocket.http.response".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any, Final

from billing_core.errors import Unavailable
from billing_core.values.clock import system_now
from gateway.sdk.client import AsyncTallygate
from gateway.sdk.hold import AsyncHold
from gateway.sdk.middleware.rule import Rule, Visit
from gateway.sdk.refusal import Refused, turned_away

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION: Final = 1008


class TallygateASGI:
    """The application, for those who may."""

    def __init__(self, app: App, tallygate: AsyncTallygate, *, rule: Rule) -> None:
        self._app = app
        self._tallygate = tallygate
        self._rule = rule

    async def __call__(self, scope: Message, receive: Receive, *sends: Send) -> None:
        """Serve, or refuse."""
        (send,) = sends
        if scope["type"] == "lifespan":
            try:
                return await self._app(scope, receive, send)
            finally:
                await self._tallygate.close()
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        answer = _Answer(send)
        try:
            await self._serve(scope, receive, answer=answer)
        except (Refused, Unavailable) as why:
            if answer.status:
                raise
            await _turn_away(scope, send, why=why)
        return None

    async def _serve(self, scope: Message, receive: Receive, *, answer: _Answer) -> None:
        asked = self._rule.asked(_visit(scope))
        async with AsyncExitStack() as stack:
            hold: AsyncHold | None = None
            if asked is not None and self._rule.ttl_ms:
                hold = await stack.enter_async_context(self._tallygate.hold(**asked, ttl_ms=self._rule.ttl_ms))
            elif asked is not None:
                await self._tallygate.require(**asked)
            await self._app(scope, receive, answer.send)
            if hold is not None and answer.status >= self._rule.free_from_status:
                await hold.release()


class _Answer:
    """What the application sends, passed on; `status` is 0 until it has begun to answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        elif message["type"] == "websocket.accept":
            self.status = 101
        await self._send(message)


def _visit(scope: Message) -> Visit:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return Visit(method=scope.get("method", "GET"), path=scope["path"], headers=headers)


async def _turn_away(scope: Message, send: Send, *, why: Refused | Unavailable) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            return await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": str(why)})
    told = turned_away(why, now=system_now())
    headers = [(name.lower().encode(), value.encode()) for name, value in told.headers]
    await send({"type": f"{kind}.start", "status": told.status, "headers": headers})
    return await send({"type": f"{kind}.body", "body": told.body})
