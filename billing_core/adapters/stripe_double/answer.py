"""Answers: a status and a body, and the errors that Stripe tells in its own words.

Source: docs.stripe.com/api/errors, /declines/codes, /error-codes.
"""

from __future__ import annotations

from typing import Any

import msgspec

Json = dict[str, Any]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes back over HTTP."""

    status: int
    body: Json


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One object as it is from now on; `kind` is the collection that it is in."""

    kind: str
    id: str
    value: Json


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a request comes to: its answer and what it changes."""

    answer: Answer
    changes: tuple[Change, ...] = ()


class StripeError(Exception):
    """A refusal that changes nothing."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body["error"]["message"])
        self.answer = answer


def refusal(status: int, kind: str, *, message: str, code: str = "", param: str = "") -> StripeError:
    """An error in Stripe's shape."""
    error: Json = {"type": kind, "message": message, "doc_url": "https://docs.stripe.com/error-codes"}
    error |= {"code": code} if code else {}
    error |= {"param": param} if param else {}
    return StripeError(Answer(status=status, body={"error": error}))


def invalid(message: str, *, code: str, param: str, status: int = 400) -> StripeError:
    """An `invalid_request_error`."""
    return refusal(status, "invalid_request_error", message=message, code=code, param=param)


def missing(kind: str, name: str, *, param: str, status: int = 400) -> StripeError:
    """Something that is named and does not exist."""
    return invalid(f"No such {kind}: '{name}'", code="resource_missing", param=param, status=status)


def page(objects: list[Json], *, url: str, has_more: bool) -> Answer:
    """A list in Stripe's shape."""
    return Answer(status=200, body={"object": "list", "url": url, "has_more": has_more, "data": objects})
