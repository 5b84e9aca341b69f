"""Every error reply that a script can give means something to the caller."""

from __future__ import annotations

import pytest

from billing_core.errors import (
    Failure,
    IdempotencyConflict,
    InvariantBroken,
    NotFound,
    Unavailable,
    Unprocessable,
)
from gateway.state.fault import failure_of
from gateway.state.resp import ErrorReply
from lua.loader import SCRIPTS

MEANT: dict[str, type[Failure]] = {
    "CONFLICT idempotency": IdempotencyConflict,
    "UNKNOWN customer": NotFound,
    "UNAVAILABLE epoch": Unavailable,
    "INVALID quantity": Unprocessable,
    "INVALID level": Unprocessable,
    "INVALID feature": Unprocessable,
    "OVERFLOW quantity": Unprocessable,
}
REQUEST_SCRIPTS = (
    *("consume", "peek", "record", "hold", "extend", "part", "settle", "release"),
    *("ingest", "usage_read", "wallet_read"),
)


@pytest.mark.parametrize(("text", "kind"), MEANT.items())
def test_what_a_caller_can_cause_is_told_as_such(text: str, kind: type[Failure]) -> None:
    """Not as a fault of ours."""
    assert type(failure_of(ErrorReply(text))) is kind


def test_what_a_caller_cannot_cause_is_a_broken_invariant() -> None:
    """A bad argument can only come from us."""
    errors = {text for name in REQUEST_SCRIPTS for text in SCRIPTS[name].error_replies} - set(MEANT)
    assert {type(failure_of(ErrorReply(text))) for text in errors} == {InvariantBroken}
    assert all(text.startswith("INVALID ") or text == "CONFLICT hold" for text in errors), errors


@pytest.mark.parametrize(
    "text",
    [
        *("LOADING x", "OOM command not allowed", "READONLY x", "MISCONF x", "BUSY x", "NOAUTH x", "MASTERDOWN x"),
        *("CLUSTERDOWN x", "TRYAGAIN x", "MOVED 1 h:1", "ASK 1 h:1", "ERR Function not found"),
    ],
)
def test_a_server_that_cannot_now_is_unavailable(text: str) -> None:
    """Nothing was written, and a retry is safe."""
    assert isinstance(failure_of(ErrorReply(text)), Unavailable)
