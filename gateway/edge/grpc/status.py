"""How a call ends: gRPC's status codes, and which of them tells which failure.

A refusal is no failure: it is the answer of a call that went well. A call fails where nothing was decided; what
the proxy does then is its operator's choice (`failure_mode_allow`, `failure_mode_deny`).
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import Final

from billing_core.errors import Failure


class Status(IntEnum):
    """The codes that this server says."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_OF_FAILURE: Final = MappingProxyType(
    {
        400: Status.INVALID_ARGUMENT,
        401: Status.UNAUTHENTICATED,
        402: Status.RESOURCE_EXHAUSTED,
        403: Status.PERMISSION_DENIED,
        404: Status.NOT_FOUND,
        409: Status.ABORTED,
        413: Status.RESOURCE_EXHAUSTED,
        422: Status.FAILED_PRECONDITION,
        429: Status.RESOURCE_EXHAUSTED,
        502: Status.UNAVAILABLE,
        503: Status.UNAVAILABLE,
    }
)


def status_of(http: int) -> Status:
    """The code that says in gRPC what a status says in HTTP."""
    return _OF_FAILURE.get(http, Status.INTERNAL)


def told(failure: Failure) -> tuple[Status, str]:
    """Code and text of a failure."""
    text = f"{failure.field}: {failure.detail}" if failure.field else failure.detail
    return status_of(failure.status), text
