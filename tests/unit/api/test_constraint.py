"""Postgres' refusals in the caller's words."""

from __future__ import annotations

import asyncpg
import pytest

from billing_core.api.constraint import failure_of
from billing_core.errors import Conflict, Failure, InvalidInput, StillRunning, Unavailable, Unprocessable

KEY = "Key (tenant_id, customer_id)=(t, acme) "


def _fault(kind: type[asyncpg.PostgresError], message: str = "no", **told: str) -> asyncpg.PostgresError:
    fault = kind(message)
    for name, value in told.items():
        setattr(fault, name, value)
    return fault


@pytest.mark.parametrize(
    ("fault", "kind", "detail", "field"),
    [
        (
            _fault(asyncpg.UniqueViolationError, table_name="api_key", detail=KEY + "already exists."),
            Conflict,
            "this api key exists already",
            "customer_id",
        ),
        (
            _fault(asyncpg.UniqueViolationError, constraint_name="a customer is on one plan at a time"),
            Conflict,
            "a customer is on one plan at a time",
            "",
        ),
        (
            _fault(asyncpg.ForeignKeyViolationError, detail=KEY + 'is not present in table "customer".'),
            Unprocessable,
            "there is no such customer",
            "customer_id",
        ),
        (
            _fault(asyncpg.CheckViolationError, constraint_name="a period ends after it starts"),
            Unprocessable,
            "a period ends after it starts",
            "",
        ),
        (
            _fault(asyncpg.ExclusionViolationError, constraint_name="periods of a subscription never overlap"),
            Conflict,
            "periods of a subscription never overlap",
            "",
        ),
        (_fault(asyncpg.NotNullViolationError, "null in x", column_name="x"), Unprocessable, "null in x", "x"),
        (_fault(asyncpg.RestrictViolationError, "entry is append-only"), Conflict, "entry is append-only", ""),
        (_fault(asyncpg.NumericValueOutOfRangeError), InvalidInput, "cannot be stored: no", ""),
        (_fault(asyncpg.CharacterNotInRepertoireError), InvalidInput, "cannot be stored: no", ""),
        (_fault(asyncpg.LockNotAvailableError), StillRunning, "another request holds what this one needs", ""),
        (
            _fault(asyncpg.DeadlockDetectedError),
            Unavailable,
            "a server behind this one does not answer now",
            "",
        ),
        (_fault(asyncpg.AdminShutdownError), Unavailable, "a server behind this one does not answer now", ""),
        (
            asyncpg.InternalClientError("cannot switch to state 12"),
            Unavailable,
            "a server behind this one does not answer now",
            "",
        ),
    ],
)
def test_a_refusal_of_postgres_is_told_in_the_callers_words(
    fault: Exception, kind: type[Failure], detail: str, field: str
) -> None:
    """A constraint's sentence where it has one; never a 500."""
    told = failure_of(fault)
    assert type(told) is kind
    assert (told.detail, told.field) == (detail, field)


def test_a_value_that_no_column_can_hold_is_invalid_input() -> None:
    """The driver finds it before the server does."""
    assert isinstance(failure_of(asyncpg.DataError("invalid input for query argument $1")), InvalidInput)


def test_an_ill_query_is_nobodys_fault_but_the_houses() -> None:
    """It stays unexpected, and is logged as such."""
    assert failure_of(_fault(asyncpg.UndefinedColumnError)) is None
