"""Every answer that is not a success is a problem document, made here and nowhere else.

Failures of the house, refusals of Postgres, and what aiohttp itself raises (no such route, another method, a
body that is too large or breaks off) all end in this middleware. What nobody expected is logged with its trace
and told as a bare 500: the caller learns nothing about the inside.

Source: RFC 9457; RFC 6750 section 3 for `WWW-Authenticate`.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from billing_core.api.constraint import POSTGRES_FAULTS, failure_of
from billing_core.contract.problem import MEDIA_TYPE, Problem, problem_of
from billing_core.errors import Failure, InvalidInput, NotFound, TooLarge

_LOG = logging.getLogger(__name__)
_RETRY_AFTER_S = "1"


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer, or tell what went wrong."""
    try:
        return await handler(request)
    except Failure as failure:
        return _answer_failure(failure)
    except POSTGRES_FAULTS as fault:
        told = failure_of(fault)
        if told is None:
            raise _unexpected(request, fault) from fault
        return _answer_failure(told, cause=fault)
    except web.HTTPException as told:
        return _answer_http(told)
    except (HttpProcessingError, web.RequestPayloadError) as fault:
        return _answer_failure(InvalidInput(f"the body cannot be read: {type(fault).__name__}", field="body"))
    except Exception as fault:
        raise _unexpected(request, fault) from fault


def _unexpected(request: web.Request, fault: BaseException) -> web.HTTPException:
    """A bare 500; the trace goes to the log."""
    _LOG.error("%s %s failed", request.method, request.path, exc_info=fault)
    problem = problem_of(Failure("something went wrong here, and nobody expected it"))
    return web.HTTPInternalServerError(text=msgspec.json.encode(problem).decode(), content_type=MEDIA_TYPE)


def _answer_failure(failure: Failure, *, cause: BaseException | None = None) -> web.Response:
    if failure.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.warning("%s: %s", failure.code, failure.detail, exc_info=cause)
    headers: dict[str, str] = {}
    if failure.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="tallygate"'
    if failure.retry_is_safe:
        headers["Retry-After"] = _RETRY_AFTER_S
    return _answer(problem_of(failure), headers)


def _answer_http(told: web.HTTPException) -> web.StreamResponse:
    """aiohttp's own exceptions; one that is a success passes."""
    if told.status < HTTPStatus.BAD_REQUEST:
        return told
    if isinstance(told, web.HTTPRequestEntityTooLarge):
        return _answer_failure(TooLarge("the body is larger than this server reads", field="body"))
    if told.status == HTTPStatus.NOT_FOUND:
        return _answer_failure(NotFound("there is no such route"))
    code = HTTPStatus(told.status).phrase.lower().replace(" ", "_")
    problem = Problem(
        type=f"urn:tallygate:problem:{code}",
        title=code.replace("_", " "),
        status=told.status,
        detail=told.reason,
        code=code,
    )
    return _answer(problem, {name: told.headers[name] for name in ("Allow",) if name in told.headers})


def _answer(problem: Problem, headers: dict[str, str]) -> web.Response:
    body = msgspec.json.encode(problem)
    return web.Response(status=problem.status, body=body, content_type=MEDIA_TYPE, headers=headers)
