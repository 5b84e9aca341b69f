"""A request and its answer, whatever carried them.

Handlers take a Request and return an Answer; they know no server. So the aiohttp shell and any other protocol
beside it serve the same handlers, and a test may call them with bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec

from billing_core.errors import Failure, InvalidInput

JSON = "application/json"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What came in. `headers` finds names in any case; `subject` is the path's variable part, decoded.

    `since_s` is when it came, on this process' monotonic clock: all deadlines begin there.
    """

    headers: Mapping[str, str]
    query: str = ""
    subject: str = ""
    body: bytes = b""
    since_s: float = msgspec.field(default_factory=time.perf_counter)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes out."""

    status: int
    body: bytes = b""
    media_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What goes out where nothing is left to be put together: `lines` are the header fields, ends and all."""

    status: int
    body: bytes
    media_type: str
    lines: bytes


Handler = Callable[[Request], Coroutine[Any, Any, Answer]]

Outcome = Answer | Prepared | Failure
Tell = Callable[[Outcome], None]
Straight = Callable[[Request, Tell], bool]


OPEN_END = "{path}"
"""The last part of a path that goes on as it likes."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where a handler is found. `path` has at most one variable part, `{subject}`; method `*` is any.

    A path that ends in `{path}` goes on as it likes: all from its first variable part on is the subject, as it
    came.

    `is_hot`: asked all the time, and therefore on the fast lane. `straight` begins to answer what needs no
    coroutine: where it says False, nothing was done and the handler has to be asked; else it tells once, at once or
    later.
    """

    method: str
    path: str
    handler: Handler
    is_hot: bool = False
    straight: Straight | None = None

    @property
    def is_open(self) -> bool:
        """Whether the path goes on as it likes."""
        return self.path.endswith(OPEN_END)

    @property
    def stem(self) -> str:
        """The path in front of its first variable part."""
        return self.path.partition("{")[0]


def media_type_of(request: Request) -> str:
    """What the body says that it is, without parameters."""
    declared = request.headers.get("Content-Type", JSON)
    return JSON if declared == JSON else declared.partition(";")[0].strip().lower()


def require_json(request: Request) -> None:
    """Refuse a body that says it is something else than JSON.

    Raises: InvalidInput.
    """
    media_type = media_type_of(request)
    if media_type != JSON and not (media_type.startswith("application/") and media_type.endswith("+json")):
        raise InvalidInput(f"must be {JSON}, not {media_type or 'empty'}", field="content-type")
