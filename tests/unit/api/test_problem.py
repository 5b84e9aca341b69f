"""The middleware that tells every failure."""

from __future__ import annotations

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from billing_core.api.problem import problems
from billing_core.errors import Conflict, Unauthenticated, Unavailable


async def _told(fault: BaseException) -> web.StreamResponse:
    async def handler(_: web.Request) -> web.StreamResponse:
        raise fault

    return await problems(make_mocked_request("GET", "/"), handler)


@pytest.mark.parametrize(
    ("fault", "status", "code", "header"),
    [
        (Conflict("no", field="x"), 409, "conflict", None),
        (Unauthenticated("no"), 401, "unauthenticated", "WWW-Authenticate"),
        (Unavailable("no"), 503, "unavailable", "Retry-After"),
        (web.HTTPNotFound(), 404, "not_found", None),
        (web.HTTPMethodNotAllowed("GET", {"PUT"}), 405, "method_not_allowed", "Allow"),
        (web.HTTPRequestEntityTooLarge(1, 2), 413, "too_large", None),
        (ConnectionRefusedError("away"), 503, "unavailable", "Retry-After"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), 400, "invalid_input", None),
    ],
)
async def test_a_failure_is_told_as_a_problem(
    fault: BaseException, status: int, code: str, header: str | None
) -> None:
    """With the header that belongs to it."""
    answer = await _told(fault)
    assert isinstance(answer, web.Response)
    problem = msgspec.json.decode(answer.body)
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert answer.content_type == "application/problem+json"
    assert header is None or header in answer.headers


async def test_what_nobody_expected_tells_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    """A bare 500 for the caller, the trace for the log."""
    with pytest.raises(web.HTTPInternalServerError) as told:
        await _told(RuntimeError("the secret inside"))
    assert told.value.content_type == "application/problem+json"
    problem = msgspec.json.decode(told.value.text or "")
    assert (problem["status"], problem["code"]) == (500, "failure")
    assert "secret" not in str(problem)
    assert "the secret inside" in caplog.text
