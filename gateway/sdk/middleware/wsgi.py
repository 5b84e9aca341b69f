"""In front of a WSGI application: Flask, Django, Pyramid.

    app = TallygateWSGI(app, tallygate, rule=Rule(charges={"api.calls": 1}))

A hold lasts until the server has closed the response. What the application itself raises as Refused, before it has
begun to answer, is told in the same way as a refusal here.

Source: PEP 3333.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from billing_core.errors import Unavailable
from billing_core.values.clock import system_now
from gateway.sdk.blocking import Tallygate
from gateway.sdk.hold import Hold
from gateway.sdk.middleware.rule import Rule, Visit
from gateway.sdk.refusal import Refused, turned_away

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class TallygateWSGI:
    """The application, for those who may."""

    def __init__(self, app: App, tallygate: Tallygate, *, rule: Rule) -> None:
        self._app = app
        self._tallygate = tallygate
        self._rule = rule

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve, or refuse."""
        answer = _Answer(start_response)
        try:
            return self._serve(environ, answer)
        except (Refused, Unavailable) as why:
            if answer.status:
                raise
            told = turned_away(why, now=system_now())
            start_response(f"{told.status} {HTTPStatus(told.status).phrase}", list(told.headers))
            return [told.body]

    def _serve(self, environ: Environ, answer: _Answer) -> Iterable[bytes]:
        asked = self._rule.asked(_visit(environ))
        if asked is None:
            return self._app(environ, answer.start)
        if not self._rule.ttl_ms:
            self._tallygate.require(**asked)
            return self._app(environ, answer.start)
        hold = self._tallygate.hold(**asked, ttl_ms=self._rule.ttl_ms)
        hold.__enter__()
        try:
            body = self._app(environ, answer.start)
        except BaseException:
            hold.__exit__(*sys.exc_info())
            raise
        return _HeldBody(body, hold, is_free=lambda: answer.status >= self._rule.free_from_status)


class _Answer:
    """What the application begins to answer; `status` is 0 until then."""

    def __init__(self, start_response: StartResponse) -> None:
        self._start = start_response
        self.status = 0

    def start(self, status: str, headers: list[tuple[str, str]], *fault: Any) -> Any:
        self.status = int(status.partition(" ")[0])
        return self._start(status, headers, *fault)


class _HeldBody:
    """A response's body; its hold ends with it."""

    def __init__(self, body: Iterable[bytes], hold: Hold, *, is_free: Callable[[], bool]) -> None:
        self._body = body
        self._parts = iter(body)
        self._hold = hold
        self._is_free = is_free

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except StopIteration:
            raise
        except BaseException:
            self._hold.__exit__(*sys.exc_info())
            raise

    def close(self) -> None:
        """The server is done with it, to its end or not."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException:
            self._hold.__exit__(*sys.exc_info())
            raise
        if self._is_free():
            self._hold.release()
        self._hold.__exit__(None, None, None)


def _visit(environ: Environ) -> Visit:
    headers = {
        name[5:].replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    return Visit(method=environ["REQUEST_METHOD"], path=path, headers=headers)
