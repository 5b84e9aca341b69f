"""Failures: everything that can go wrong and is not an answer.

Refusals ("not entitled", "insufficient balance") are values and never raised. What is raised stands in
this one tree; each leaf has a stable code, the HTTP status that tells it, and whether the same call may be
tried again without harm:

    Failure
    ├── InvalidInput            400  the caller's words break a rule; names field and rule
    │   └── UnknownField        400
    ├── Unauthenticated         401  no credential, or one that nobody knows
    ├── Forbidden               403  a credential that may not do this
    ├── NotFound                404  the named thing does not exist for this tenant
    ├── Conflict                409  the thing is in a state that does not allow it
    │   ├── IdempotencyConflict 409  a known key or id came back with other content
    │   └── StillRunning        409  the same request is being worked on at this moment; ask again
    ├── Unprocessable           422  the words are well formed but contradict what is stored
    ├── TooLarge                413  more than a stated bound
    ├── ProcessorFailure        502  the payment processor refused or cannot be understood
    ├── Unavailable             503  a part that must answer does not; nothing was written
    ├── ConfigurationError      500  the process cannot start as told
    └── InvariantBroken         500  a law of the house does not hold: stop and look
"""

from __future__ import annotations

from typing import ClassVar


class Failure(Exception):  # noqa: N818 - the word of this house for the root
    """The root: anything that is raised on purpose.

    `field` names what in the request broke the rule ("" where no field is at fault).
    """

    code: ClassVar[str] = "failure"
    status: ClassVar[int] = 500
    retry_is_safe: ClassVar[bool] = False

    def __init__(self, detail: str, *, field: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class InvalidInput(Failure):
    """The request breaks a rule that can be checked by looking at it alone."""

    code = "invalid_input"
    status = 400


class UnknownField(InvalidInput):
    """The request has a field that nothing here reads."""

    code = "unknown_field"


class Unauthenticated(Failure):
    """No credential, or one that nobody knows."""

    code = "unauthenticated"
    status = 401


class Forbidden(Failure):
    """The credential is known and may not do this."""

    code = "forbidden"
    status = 403


class NotFound(Failure):
    """The named thing does not exist for this tenant."""

    code = "not_found"
    status = 404


class Conflict(Failure):
    """The thing exists, in a state that does not allow the act."""

    code = "conflict"
    status = 409


class IdempotencyConflict(Conflict):
    """A key or id that is known came back with other content."""

    code = "idempotency_conflict"


class StillRunning(Conflict):
    """The first request under this key has not ended; the same request may be sent again later."""

    code = "still_running"
    retry_is_safe = True


class TooLarge(Failure):
    """More than a stated bound: body bytes, batch count, stream length."""

    code = "too_large"
    status = 413


class Unprocessable(Failure):
    """Well formed, but in contradiction to what is stored."""

    code = "unprocessable"
    status = 422


class ProcessorFailure(Failure):
    """The payment processor refused, or answered what cannot be understood."""

    code = "processor_failure"
    status = 502
    retry_is_safe = True


class Unavailable(Failure):
    """A part that must answer does not; nothing was written."""

    code = "unavailable"
    status = 503
    retry_is_safe = True


class ConfigurationError(Failure):
    """The process cannot start as told. Its text is one line: file, key, rule."""

    code = "configuration"


class InvariantBroken(Failure):
    """A law of the house does not hold. Never caught to go on; stop and look."""

    code = "invariant_broken"
