"""Middlewares beyond the first page: who is refused and how, holds that end with the response, outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from gateway.sdk.blocking import Tallygate
from gateway.sdk.client import AsyncTallygate
from gateway.sdk.hold import current_hold
from gateway.sdk.middleware.asgi import TallygateASGI
from gateway.sdk.middleware.rule import Rule, Visit
from gateway.sdk.middleware.web import tallygate_middleware
from gateway.sdk.middleware.wsgi import TallygateWSGI

NANOS = 100
TERMS = {"on_outage": "refuse", "deadline_ms": 60_000, "attempt_ms": 30_000}
RULE = Rule(charges={"tokens": 5})
HELD = Rule(charges={"tokens": 5}, ttl_ms=600_000)

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers by lower-case name, body."""


class BurntError(Exception):
    """What a handler raises."""


class Asgi:
    """An application called as an ASGI server calls it."""

    def __init__(self, url: str, rule: Rule, **terms: Any) -> None:
        self.tallygate = AsyncTallygate(url, **TERMS | terms)
        self.app = TallygateASGI(self.serve, self.tallygate, rule=rule)

    async def serve(self, scope: Any, _: Any, send: Any) -> None:
        hold = current_hold()
        if scope["path"] == "/burnt":
            raise BurntError
        if scope["path"] == "/inner":
            await self.tallygate.require(key="tgk_nobody", feature="tokens")
        if hold is not None:
            hold.used({"tokens": 2})
        await send({"type": "http.response.start", "status": int(scope["path"][1:] or 200), "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async def __call__(self, path: str, headers: dict[str, str]) -> Reply:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.app({"type": "http", "method": "GET", "path": path, "headers": raw}, None, send)
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])

    async def close(self) -> None:
        await self.tallygate.close()


class Wsgi:
    """An application called as a WSGI server calls it, in a thread."""

    def __init__(self, url: str, rule: Rule, **terms: Any) -> None:
        self.tallygate = Tallygate(url, **TERMS | terms)
        self.app = TallygateWSGI(self.serve, self.tallygate, rule=rule)

    def serve(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/inner":
            self.tallygate.require(key="tgk_nobody", feature="tokens")
        start_response(f"{path[1:] if path[1:].isdigit() else 200} OK", [])
        if path == "/burnt":
            raise BurntError
        return self.parts(path)

    def parts(self, path: str) -> Any:
        yield b"hel"
        hold = current_hold()
        if hold is not None:
            hold.used({"tokens": 2})
        if path == "/torn":
            raise BurntError
        yield b"lo"

    async def __call__(self, path: str, headers: dict[str, str]) -> Reply:
        return await asyncio.to_thread(self.ask, path, headers)

    def ask(self, path: str, headers: dict[str, str]) -> Reply:
        begun: list[Any] = []
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        environ |= {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": ""}
        body = self.app(environ, lambda *told: begun.append(told))
        try:
            content = b"".join(body)
        finally:
            if hasattr(body, "close"):
                body.close()
        status, told = begun[-1][:2]
        return int(status.split()[0]), {name.lower(): value for name, value in told}, content

    async def close(self) -> None:
        self.tallygate.close()


class Web:
    """An aiohttp application on a socket."""

    def __init__(self, url: str, rule: Rule, **terms: Any) -> None:
        self.tallygate = AsyncTallygate(url, **TERMS | terms)
        self.app = web.Application(middlewares=[tallygate_middleware(self.tallygate, rule)])
        self.app.add_routes([web.get("/{path:.*}", self.serve)])
        self.runner = web.AppRunner(self.app)

    async def serve(self, request: web.Request) -> web.Response:
        if request.path == "/burnt":
            raise BurntError
        if request.path == "/inner":
            await self.tallygate.require(key="tgk_nobody", feature="tokens")
        hold = current_hold()
        if hold is not None:
            hold.used({"tokens": 2})
        status = int(request.path[1:] or 200)
        if status == 404:
            raise web.HTTPNotFound(text="hello")
        return web.Response(status=status, text="hello")

    async def __call__(self, path: str, headers: dict[str, str]) -> Reply:
        if not self.runner.addresses:
            await self.runner.setup()
            await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        host, port = self.runner.addresses[0]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{host}:{port}{path}", headers=headers) as reply,
        ):
            content = await reply.read()
            if path == "/burnt" and reply.status == 500:
                raise BurntError
            return reply.status, {name.lower(): value for name, value in reply.headers.items()}, content

    async def close(self) -> None:
        await self.runner.cleanup()
        await self.tallygate.close()


KINDS = {"asgi": Asgi, "wsgi": Wsgi, "aiohttp": Web}
Open = Callable[..., Any]


@pytest.fixture(params=KINDS)
async def behind(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Puts an application behind each middleware."""
    made: list[Any] = []

    def begin(url: str, rule: Rule, **terms: Any) -> Any:
        made.append(KINDS[request.param](url, rule, **terms))
        return made[-1]

    yield begin
    for one in made:
        await one.close()


async def wallet(call: Any, world: Any) -> tuple[int, int]:
    """Units that are left, and held."""
    _, body, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    (one,) = body["wallets"]
    return one["balance_nanos"] // NANOS, one["held_nanos"] // NANOS


async def test_who_may_not_gets_the_gateways_own_status(behind: Open, call: Any, world: Any) -> None:
    """As problem+json, with what a caller needs to come back."""
    app = behind(call.url, Rule(charges={"calls": 10}))
    bearer = {"Authorization": f"Bearer {world.key}"}
    assert (await app("/", {"X-Api-Key": world.key}))[0] == 200
    status, headers, content = await app("/", bearer)
    problem = msgspec.json.decode(content)
    assert (status, problem["status"], problem["code"]) == (429, 429, "limit_reached")
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["retry-after"]) > 0
    assert headers["ratelimit-policy"] == '"calls";q=10'
    assert headers["ratelimit"].startswith('"calls";r=0;t=')
    for nobody in ({}, {"X-Api-Key": "tgk_nobody"}, {"Authorization": "Basic x"}):
        status, headers, content = await app("/", nobody)
        assert (status, msgspec.json.decode(content)["code"]) == (401, "unknown_key")
        assert headers["www-authenticate"].startswith("Bearer")


async def test_what_a_rule_does_not_charge_passes_unasked(behind: Open, free_port: Any) -> None:
    """Nobody listens, and nobody need."""
    app = behind(f"http://127.0.0.1:{free_port()}", Rule(charges=lambda _: None))
    assert (await app("/", {}))[0] == 200


async def test_a_rule_sees_the_request(behind: Open, call: Any, world: Any) -> None:
    """And may charge by it, and say who pays."""
    await world.grant(100 * NANOS)
    seen: list[Visit] = []

    def charges(visit: Visit) -> dict[str, int]:
        seen.append(visit)
        return {"tokens": len(visit.path)}

    app = behind(call.url, Rule(charges=charges, key=lambda visit: visit.headers["x-payer"]))
    assert (await app("/200", {"X-Payer": world.key}))[0] == 200
    assert await wallet(call, world) == (96, 0)
    assert [(visit.method, visit.path) for visit in seen] == [("GET", "/200")]


async def test_a_held_charge_ends_with_the_response(behind: Open, call: Any, world: Any) -> None:
    """Settled by what the handler told; free where it failed, or where the rule says so."""
    await world.grant(100 * NANOS)
    bearer = {"Authorization": f"Bearer {world.key}"}
    app = behind(call.url, HELD)
    assert (await app("/", bearer))[0] == 200
    assert await wallet(call, world) == (98, 0)
    assert (await app("/404", bearer))[0] == 404
    assert await wallet(call, world) == (96, 0)
    assert (await app("/503", bearer))[0] == 503
    with pytest.raises(BurntError):
        await app("/burnt", bearer)
    assert await wallet(call, world) == (96, 0)
    strict = behind(call.url, msgspec.structs.replace(HELD, free_from_status=400))
    assert (await strict("/404", bearer))[0] == 404
    assert await wallet(call, world) == (96, 0)


async def test_a_refusal_that_the_application_raises_is_told_too(behind: Open, call: Any, world: Any) -> None:
    """And what was held before is given back."""
    await world.grant(100 * NANOS)
    status, _, content = await behind(call.url, HELD)("/inner", {"X-Api-Key": world.key})
    assert (status, msgspec.json.decode(content)["code"]) == (401, "unknown_key")
    assert await wallet(call, world) == (100, 0)


@pytest.mark.parametrize("rule", [RULE, HELD], ids=["charged", "held"])
async def test_a_dead_gateway_refuses_all_or_lets_all_pass(
    behind: Open, free_port: Any, world: Any, rule: Rule
) -> None:
    """As was said."""
    url, terms = f"http://127.0.0.1:{free_port()}", {"deadline_ms": 100, "attempt_ms": 100}
    status, headers, content = await behind(url, rule, **terms)("/", {"X-Api-Key": world.key})
    assert (status, msgspec.json.decode(content)["code"], headers["retry-after"]) == (503, "unavailable", "1")
    opened = behind(url, rule, **terms, on_outage="allow")
    assert (await opened("/", {"X-Api-Key": world.key}))[0] == 200


async def test_a_response_that_breaks_off_is_not_charged_and_one_that_is_not_read_to_its_end_is(
    call: Any, world: Any
) -> None:
    """WSGI: the body's exception releases; the server's close settles."""
    await world.grant(100 * NANOS)
    app = Wsgi(call.url, HELD)
    with pytest.raises(BurntError):
        await app("/torn", {"X-Api-Key": world.key})
    assert await wallet(call, world) == (100, 0)

    def hang_up() -> None:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_X_API_KEY": world.key}
        body = app.app(environ, lambda *_: None)
        next(iter(body))
        body.close()

    await asyncio.to_thread(hang_up)
    assert await wallet(call, world) == (95, 0)
    await app.close()


@pytest.mark.parametrize("has_extension", [True, False])
async def test_a_websocket_is_charged_when_it_opens(call: Any, world: Any, has_extension: bool) -> None:
    """Who may not is refused before it is accepted, in the server's own way."""
    await world.grant(7 * NANOS)
    tallygate = AsyncTallygate(call.url, **TERMS)

    async def talk(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})

    app = TallygateASGI(talk, tallygate, rule=RULE)
    extensions = {"websocket.http.response": {}} if has_extension else {}

    async def ask() -> list[str]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"x-api-key", world.key.encode())]
        await app(
            {"type": "websocket", "path": "/", "headers": headers, "extensions": extensions},
            None,
            send,
        )
        return [message["type"] for message in sent]

    assert await ask() == ["websocket.accept", "websocket.close"]
    told = ["websocket.http.response.start", "websocket.http.response.body"]
    assert await ask() == (told if has_extension else ["websocket.close"])
    await tallygate.close()


async def test_the_client_is_closed_with_the_applications_lifespan(call: Any, world: Any) -> None:
    """And serves again if it must."""
    tallygate = AsyncTallygate(call.url, **TERMS)

    async def live(scope: Any, receive: Any, send: Any) -> None:
        assert (await tallygate.peek(key=world.key, feature="export")).allowed

    await TallygateASGI(live, tallygate, rule=RULE)({"type": "lifespan"}, None, None)
    assert tallygate._session is None
    assert (await tallygate.peek(key=world.key, feature="export")).allowed
    await tallygate.close()
