"""The client meets problems, silence and nonsense, and tells each in one line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from billing_core.contract.problem import MEDIA_TYPE, problem_of
from billing_core.errors import (
    Failure,
    IdempotencyConflict,
    InvalidInput,
    NotFound,
    StillRunning,
    Unauthenticated,
    Unavailable,
)
from gateway.command.client.answer import told
from gateway.command.client.page import read_pages
from gateway.command.client.persistence import Persistence, persist
from gateway.command.client.plane import Plane, new_session
from gateway.command.client.route import route

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Ask = Callable[[Handler], Awaitable[Plane]]


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    name: str


@pytest.fixture
async def plane() -> AsyncIterator[Ask]:
    """A plane whose every path is answered by one function."""
    servers: list[TestServer] = []
    async with new_session() as session:

        async def make(handler: Handler) -> Plane:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            server = TestServer(app)
            await server.start_server()
            servers.append(server)
            return Plane(session, str(server.make_url("")), name="control plane", flag="--url", token="tgo_x")

        yield make
    for server in servers:
        await server.close()


def problem(failure: Failure) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        body = msgspec.json.encode(problem_of(failure))
        return web.Response(status=failure.status, body=body, content_type=MEDIA_TYPE)

    return answer


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (InvalidInput("must not be negative", field="quantity"), "quantity: must not be negative"),
        (NotFound("there is no customer 'x'", field="customer_id"), "customer_id: there is no customer 'x'"),
        (Unauthenticated("nobody knows this token"), "nobody knows this token"),
        (IdempotencyConflict("this key was used for another request"), "this key was used for another request"),
        (StillRunning("the first request is being worked on"), "the first request is being worked on"),
        (Unavailable("two\nlines"), "two lines"),
    ],
)
async def test_a_problem_becomes_the_failure_it_tells(plane: Ask, failure: Failure, line: str) -> None:
    """Its kind by the code, its line with the field first."""
    with pytest.raises(type(failure)) as caught:
        await (await plane(problem(failure))).get("/v1/x", Thing)
    assert type(caught.value) is type(failure)
    assert told(caught.value) == line


@pytest.mark.parametrize(
    ("status", "kind"), [(500, Failure), (404, Failure), (502, Unavailable), (504, Unavailable)]
)
async def test_an_error_without_a_problem_is_told_by_its_status(
    plane: Ask, status: int, kind: type[Failure]
) -> None:
    """A proxy in between speaks HTML."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="<h1>Bad</h1>")

    with pytest.raises(kind, match=f"the control plane answered {status} <h1>Bad</h1>") as caught:
        await (await plane(answer)).get("/v1/x", Thing)
    assert type(caught.value) is kind


async def test_an_answer_of_another_shape_is_not_guessed(plane: Ask) -> None:
    """It says what is wrong with it."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"name": 1})

    with pytest.raises(Failure, match="cannot read: Expected `str`, got `int`"):
        await (await plane(answer)).get("/v1/x", Thing)


async def test_nobody_listening_says_what_to_start() -> None:
    """In one line, with the option that names another address."""
    async with new_session() as session:
        peer = Plane(session, "http://127.0.0.1:1/", name="gateway", flag="--gateway-url")
        with pytest.raises(Unavailable) as caught:
            await peer.get("/v1/x", Thing)
    assert told(caught.value) == (
        "no gateway listens at http://127.0.0.1:1: start it with `tallygate up`, or set --gateway-url"
    )


async def test_a_connection_that_breaks_may_be_tried_again(plane: Ask) -> None:
    """The act may have happened; the idempotency key finds out."""

    async def answer(request: web.Request) -> web.Response:
        invariant = request.transport
        assert invariant is not None
        invariant.abort()
        return web.Response()

    with pytest.raises(Unavailable) as caught:
        await (await plane(answer)).post("/v1/x", Thing, idempotency_key="k")
    assert caught.value.retry_is_safe


async def test_what_is_sent_says_who_asks_and_how_to_retry(plane: Ask) -> None:
    """Bearer token, idempotency key, JSON; empty values of a query are left out."""
    seen: list[tuple[str | None, str | None, str, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append(
            (
                headers.get("Authorization"),
                headers.get("Idempotency-Key"),
                request.path_qs,
                await request.read(),
            )
        )
        return web.json_response({"name": "x"})

    peer = await plane(answer)
    await peer.post("/v1/x", Thing, body={"a": 1}, idempotency_key="k-1")
    assert (await peer.get("/v1/x", Thing, query={"a": "1", "b": ""})).value.name == "x"
    assert seen == [("Bearer tgo_x", "k-1", "/v1/x", b'{"a":1}'), ("Bearer tgo_x", None, "/v1/x?a=1", b"")]


@pytest.mark.parametrize(("limit", "names"), [(0, ["a", "b", "c"]), (2, ["a", "b"]), (3, ["a", "b", "c"])])
async def test_pages_are_read_to_the_end_or_the_limit(plane: Ask, limit: int, names: list[str]) -> None:
    """The bytes of the items stay as they came, with what no shape names."""
    pages = {"": (["a", "b"], "next"), "next": (["c"], None)}

    async def answer(request: web.Request) -> web.Response:
        found, cursor = pages[request.query.get("cursor", "")]
        return web.json_response({"items": [{"name": name, "more": 1} for name in found], "next_cursor": cursor})

    page = await read_pages(await plane(answer), "/v1/things", kind=Thing, limit=limit)
    assert [thing.name for thing in page.value.items] == names
    assert msgspec.json.decode(page.raw)["items"] == [{"name": name, "more": 1} for name in names]


async def test_persistence_asks_until_there_is_an_answer() -> None:
    """And counts how often it was in vain."""
    left, retries = [3], [0]

    async def attempt() -> str:
        left[0] -= 1
        if left[0]:
            raise Unavailable("not now")
        return "answer"

    def count() -> None:
        retries[0] += 1

    assert await persist(attempt, Persistence(on_retry=count)) == "answer"
    assert retries == [2]


async def test_persistence_ends_with_patience_and_where_a_retry_cannot_help() -> None:
    """A rule that is broken stays broken."""

    async def broken() -> str:
        raise InvalidInput("never")

    async def away() -> str:
        raise Unavailable("not now")

    with pytest.raises(InvalidInput):
        await persist(broken, Persistence())
    with pytest.raises(Unavailable, match="no answer within 0 s: not now"):
        await persist(away, Persistence(patience_s=0))


def test_a_name_in_a_path_leads_nowhere_else() -> None:
    """It is one step, whatever it holds."""
    assert route("/v1/customers/{}/keys", "a/b?c") == "/v1/customers/a%2Fb%3Fc/keys"
    for name in ("", ".", ".."):
        with pytest.raises(InvalidInput):
            route("/v1/customers/{}", name)
