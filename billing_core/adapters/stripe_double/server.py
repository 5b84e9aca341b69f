"""The server: Stripe's HTTP around the acts, with its idempotency and, for tests, its bad days.

A POST under an idempotency key runs once. The same key with the same parameters gets the first answer again, marked
`Idempotent-Replayed: true`, errors of a begun act among them; with other parameters it is refused; while the first
request is still running it is refused too. A request that fails its checks has not begun, and keeps nothing.

Beside the API there are `/healthz`, `/readyz` and `/_control`, which switches faults and settles bank payments.

Source: docs.stripe.com/api/idempotent_requests.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from billing_core.adapters.stripe_double.act import ENDPOINTS, Endpoint, Request, settle_intent
from billing_core.adapters.stripe_double.answer import Answer, Json, StripeError, Work, refusal
from billing_core.adapters.stripe_double.fault import FaultKind, Faults, Switch
from billing_core.adapters.stripe_double.form import tree_of
from billing_core.adapters.stripe_double.rule import checked
from billing_core.adapters.stripe_double.state import EVENTS, INTENTS, State, kept_change
from billing_core.adapters.stripe_double.webhook import Postman
from billing_core.values.clock import Clock, to_ms

Handler = Callable[[web.Request], Awaitable[web.Response]]

_BROKEN = Answer(status=500, body={"error": {"type": "api_error", "message": "Something went wrong."}})
_MAX_KEY = 255


class Double:
    """Everything that one double is made of."""

    def __init__(self, state: State, postman: Postman, *, clock: Clock, adopts: bool) -> None:
        self.state = state
        self.postman = postman
        self.faults = Faults()
        self._clock = clock
        self._adopts = adopts
        self._running: set[str] = set()

    def application(self) -> web.Application:
        """The routes of the API and of the control."""
        app = web.Application()
        for endpoint in ENDPOINTS:
            app.router.add_route(endpoint.method, endpoint.path, self._handler(endpoint))
        app.router.add_get("/healthz", self._well)
        app.router.add_get("/readyz", self._well)
        app.router.add_post("/_control/faults", self._switch)
        app.router.add_delete("/_control/faults", self._clear)
        app.router.add_post("/_control/settle/{name}", self._settle)
        app.router.add_get("/_control/summary", self._summary)
        return app

    def _handler(self, endpoint: Endpoint) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            try:
                return await self._serve(endpoint, request)
            except StripeError as error:
                return _told(error.answer)

        return handle

    async def _serve(self, endpoint: Endpoint, request: web.Request) -> web.Response:
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            raise refusal(401, "invalid_request_error", message="You did not provide an API key.")
        pairs = await request.post() if endpoint.method == "POST" else request.query
        tree = tree_of((name, str(value)) for name, value in pairs.items())
        key = request.headers.get("Idempotency-Key", "") if endpoint.method == "POST" else ""
        if self._lost(endpoint, request, kind=FaultKind.LOSE_REQUEST):
            return _told(_BROKEN)
        digest = hashlib.sha256(msgspec.json.encode((request.path, tree), order="sorted")).hexdigest()
        replayed = self._replayed(key, digest)
        if replayed is not None:
            return _told(replayed, replayed=True)
        params = checked(endpoint.params, tree)
        self._running.add(key)
        try:
            await self._slow(endpoint)
            name = request.match_info.get("name", "")
            work = self._work(endpoint, self._request(params, name=name), key=key, digest=digest)
        finally:
            self._running.discard(key)
        self._lost(endpoint, request, kind=FaultKind.LOSE_ANSWER)
        return _told(work.answer)

    def _request(self, params: Json, *, name: str) -> Request:
        now = to_ms(self._clock()) // 1000
        return Request(params=params, now=now, name=name, adopts=self._adopts)

    def _replayed(self, key: str, digest: str) -> Answer | None:
        if not key:
            return None
        if len(key) > _MAX_KEY:
            raise refusal(400, "idempotency_error", message="Idempotency keys have up to 255 characters.")
        if key in self._running:
            raise refusal(
                409,
                "idempotency_error",
                message="Another request with this key is in progress.",
                code="idempotency_key_in_use",
            )
        kept = self.state.answer_under(key)
        if kept is not None and kept.digest != digest:
            message = f"Keys can only be used with the same parameters they were first used with: '{key}'."
            raise refusal(400, "idempotency_error", message=message)
        return None if kept is None else kept.answer

    def _work(self, endpoint: Endpoint, request: Request, *, key: str, digest: str) -> Work:
        """Run the act and commit it with its answer; post its events."""
        if self.faults.take(endpoint.act, FaultKind.FAIL_BEFORE):
            work = Work(answer=_BROKEN)
        else:
            work = endpoint.run(self.state, request)
            if self.faults.take(endpoint.act, FaultKind.FAIL_AFTER):
                work = Work(answer=_BROKEN, changes=work.changes)
        kept = (kept_change(key, digest=digest, answer=work.answer),) if key else ()
        self.state.commit((*work.changes, *kept))
        self._post(endpoint.act, work)
        return work

    def _post(self, act: str, work: Work) -> None:
        events = [change.value for change in work.changes if change.kind == EVENTS]
        if not events:
            return
        fault = self.faults.take(act, FaultKind.DOUBLE_WEBHOOK, FaultKind.HOLD_WEBHOOK)
        for event in events:
            if fault is not None and fault.kind is FaultKind.HOLD_WEBHOOK:
                self.postman.hold(event)
            else:
                self.postman.post(event, copies=1 if fault is None else 2)

    def _lost(self, endpoint: Endpoint, request: web.Request, *, kind: FaultKind) -> bool:
        """Whether the connection was cut, which no answer survives."""
        if self.faults.take(endpoint.act, kind) is None or request.transport is None:
            return False
        request.transport.abort()  # pyright: ignore[reportAttributeAccessIssue]
        return True

    async def _slow(self, endpoint: Endpoint) -> None:
        fault = self.faults.take(endpoint.act, FaultKind.SLOW)
        if fault is not None:
            await asyncio.sleep(fault.delay_ms / 1000)

    async def _well(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"status": "ok"})

    async def _switch(self, request: web.Request) -> web.Response:
        try:
            self.faults.add(msgspec.json.decode(await request.read(), type=Switch))
        except msgspec.MsgspecError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"on": True})

    async def _clear(self, request: web.Request) -> web.Response:
        del request
        self.faults.clear()
        self.postman.release()
        return web.json_response({"on": False})

    async def _settle(self, request: web.Request) -> web.Response:
        try:
            work = settle_intent(self.state, self._request({}, name=request.match_info["name"]))
        except StripeError as error:
            return _told(error.answer)
        self.state.commit(work.changes)
        self._post("settle", work)
        return _told(work.answer)

    async def _summary(self, request: web.Request) -> web.Response:
        """What was charged, and what is still to be told: for tests that ask whether anything happened twice."""
        del request
        intents = self.state.all_of(INTENTS)
        paid = [intent for intent in intents if intent["status"] == "succeeded"]
        return web.json_response(
            {
                "intents": len(intents),
                "succeeded": len(paid),
                "received": sum(intent["amount_received"] for intent in paid),
                "webhooks_waiting": self.postman.waiting,
            }
        )


def _told(answer: Answer, *, replayed: bool = False) -> web.Response:
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    return web.Response(
        body=msgspec.json.encode(answer.body),
        status=answer.status,
        headers=headers,
        content_type="application/json",
    )
