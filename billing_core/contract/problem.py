"""RFC 9457 problems: how a failure is told over HTTP, on both planes.

One place maps the tree of failures to status and body. A body that does not decode becomes InvalidInput with the
field and the rule, in the house's words.

Source: RFC 9457, section 3.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from billing_core.errors import Failure, InvalidInput, UnknownField
from billing_core.values.text import RULES

MEDIA_TYPE = "application/problem+json"

Body = TypeVar("Body")

_PATH = re.compile(r" - at `(?P<path>[^`]+)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")

_WORDS = (
    (re.compile(r"^Expected `int( \| null)?`, got "), "must be a whole number"),
    (re.compile(r"^Expected `int` >= (-?\d+)"), "must be at least {0}"),
    (re.compile(r"^Expected `int` <= (-?\d+)"), "must be at most {0}"),
    *((re.compile(re.escape(f"matching regex {pattern!r}")), rule) for pattern, rule in RULES.items()),
)


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an error answer. `field` names what broke `detail`'s rule."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str = ""
    retry_is_safe: bool = False


def problem_of(failure: Failure) -> Problem:
    """The problem that tells a failure."""
    return Problem(
        type=f"urn:tallygate:problem:{failure.code}",
        title=failure.code.replace("_", " "),
        status=failure.status,
        detail=failure.detail,
        code=failure.code,
        field=failure.field,
        retry_is_safe=failure.retry_is_safe,
    )


def kind_of(code: str) -> type[Failure] | None:
    """The kind of failure that a problem's code names; None where this version knows none."""
    return _KINDS.get(code)


def decode_json(raw: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """A typed body.

    Raises: InvalidInput naming field and rule; UnknownField for a field that nothing reads.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _named(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a JSON document: {error}", field="body") from None


def _named(message: str) -> InvalidInput:
    """Turn `Expected `int`, got `str` - at `$.quantity`` into a field and a rule."""
    found = _PATH.search(message)
    path = found["path"].removeprefix("$").removeprefix(".") if found else ""
    rule = message[: found.start()] if found else message
    for pattern, kind, text in ((_UNKNOWN, UnknownField, "unknown field"), (_MISSING, InvalidInput, "is required")):
        named = pattern.match(rule)
        if named:
            field = ".".join(part for part in (path, named["name"]) if part)
            return kind(text, field=field)
    return InvalidInput(_in_words(rule), field=path or "body")


def _in_words(rule: str) -> str:
    """The rule as one would say it; what has no words of its own stays as it is."""
    for pattern, words in _WORDS:
        found = pattern.search(rule)
        if found:
            return words.format(*found.groups())
    return rule[:1].lower() + rule[1:]


def _kinds_below(kind: type[Failure]) -> dict[str, type[Failure]]:
    kinds = {kind.code: kind}
    for lower in kind.__subclasses__():
        kinds |= _kinds_below(lower)
    return kinds


_KINDS = _kinds_below(Failure)
