"""What a plane answered: the typed value, and the very bytes it came from.

A command shows the value as a table, or the bytes with `--json`: so nothing that a plane says is lost because a
table has no column for it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from billing_core.contract.problem import Problem, kind_of
from billing_core.errors import Failure, Unavailable

Value = TypeVar("Value")


class Answer(msgspec.Struct, Generic[Value], frozen=True, kw_only=True):
    """A value and its JSON."""

    value: Value
    raw: bytes


def read_answer(raw: bytes, kind: type[Value], *, plane: str) -> Answer[Value]:
    """The typed answer; an empty body reads as `{}`.

    Raises: Failure where the body is not what this command expects of the plane.
    """
    content = raw or b"{}"
    try:
        return Answer(value=msgspec.json.decode(content, type=kind), raw=content)
    except msgspec.DecodeError as error:
        raise Failure(f"the {plane} answered what this command cannot read: {error}") from None


def failure_of(status: int, raw: bytes, *, plane: str) -> Failure:
    """The failure that a problem document tells; its code chooses the kind, else its status does."""
    try:
        problem = msgspec.json.decode(raw, type=Problem)
    except msgspec.DecodeError:
        words = " ".join(raw.decode(errors="replace").split())[:200]
        kind = Unavailable if status in _PASSING else Failure
        return kind(f"the {plane} answered {status} {words}".rstrip())
    kind = kind_of(problem.code) or (Unavailable if status in _PASSING else Failure)
    return kind(problem.detail or problem.title, field=problem.field)


def told(failure: Failure) -> str:
    """A failure in one line: the field first, where one is at fault."""
    words = " ".join(failure.detail.split())
    return f"{failure.field}: {words}" if failure.field and not words.startswith(failure.field) else words


_PASSING = frozenset({502, 503, 504})
