"""What Postgres refuses, told in the caller's words: the one place where its errors become failures.

A constraint whose name is a sentence says it itself. Unique keys and references say what is there already, or
is not. What is left are numbers, texts and times that no column can hold, and a server that is busy or away.
"""

from __future__ import annotations

import re

import asyncpg

from billing_core.errors import Conflict, Failure, InvalidInput, StillRunning, Unavailable, Unprocessable
from billing_core.store.database import CONNECTION_FAILURES

_COLUMNS = re.compile(r"^Key \((?P<columns>[^=]*)\)=")
_REFERRED = re.compile(r'is not present in table "(?P<table>\w+)"')

UNHOLDABLE = (asyncpg.DataError, asyncpg.exceptions.DataError, UnicodeEncodeError)
BUSY = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InsufficientResourcesError,
)
POSTGRES_FAULTS = (asyncpg.PostgresError, *UNHOLDABLE, *CONNECTION_FAILURES)


def failure_of(fault: BaseException) -> Failure | None:
    """The failure that tells a fault of Postgres; None for one that is the house's own mistake."""
    if isinstance(fault, UNHOLDABLE):
        return InvalidInput(f"cannot be stored: {_first_line(fault)}")
    if isinstance(fault, asyncpg.LockNotAvailableError):
        return StillRunning("another request holds what this one needs")
    if isinstance(fault, (*BUSY, *CONNECTION_FAILURES)):
        return Unavailable("a server behind this one does not answer now")
    if isinstance(fault, asyncpg.IntegrityConstraintViolationError):
        return _of_constraint(fault)
    return None


def _of_constraint(fault: asyncpg.IntegrityConstraintViolationError) -> Failure:
    sentence, field = _sentence(fault), _field(fault)
    if isinstance(fault, asyncpg.UniqueViolationError):
        return Conflict(sentence or f"this {_noun(_told(fault, 'table_name'))} exists already", field=field)
    if isinstance(fault, asyncpg.ExclusionViolationError | asyncpg.RestrictViolationError):
        return Conflict(sentence or _first_line(fault))
    if isinstance(fault, asyncpg.ForeignKeyViolationError):
        referred = _REFERRED.search(_told(fault, "detail"))
        noun = _noun(referred["table"]) if referred else "such thing"
        return Unprocessable(sentence or f"there is no such {noun}", field=field)
    return Unprocessable(sentence or _first_line(fault), field=field)


def _told(fault: asyncpg.PostgresError, name: str) -> str:
    """A field of the server's message; "" where it sent none. The driver sets them as they come."""
    return str(getattr(fault, name, None) or "")


def _sentence(fault: asyncpg.PostgresError) -> str:
    """A constraint's name where it is a sentence."""
    name = _told(fault, "constraint_name")
    return name if " " in name else ""


def _field(fault: asyncpg.PostgresError) -> str:
    """The column at fault: the last of a key, because the first is the tenant."""
    found = _COLUMNS.match(_told(fault, "detail"))
    return found["columns"].rsplit(", ", 1)[-1] if found else _told(fault, "column_name")


def _noun(table: str) -> str:
    return (table or "thing").replace("_", " ")


def _first_line(fault: BaseException) -> str:
    return str(fault).splitlines()[0] if str(fault) else type(fault).__name__
