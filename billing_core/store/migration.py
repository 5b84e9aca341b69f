"""The schema, step by step: numbered SQL files, applied once and in order.

A file's digest is kept, so that a released step that was edited afterwards is found out instead of half applied.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from billing_core.errors import ConfigurationError

MIGRATION_FOLDER = Path(__file__).resolve().parent.parent / "sql" / "migrations"
_LOCK = 7_265_108_121

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_step (
    name text PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""


async def migrate(connection: Any) -> list[str]:
    """Apply what is missing, each step in a transaction of its own; the names of the steps applied.

    Raises: ConfigurationError where an applied step's file has changed or is gone.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(_TABLE)
        rows = await connection.fetch("SELECT name, digest FROM schema_step")
        return await _apply(connection, {row["name"]: row["digest"] for row in rows})
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _apply(connection: Any, known: dict[str, str]) -> list[str]:
    files = {file.name: file.read_text("utf-8") for file in sorted(MIGRATION_FOLDER.glob("*.sql"))}
    for name, digest in known.items():
        if name not in files or _digest(files[name]) != digest:
            raise ConfigurationError(
                f"{name}: this step was applied with another text; the schema cannot be trusted"
            )
    applied: list[str] = []
    for name, text in files.items():
        if name in known:
            continue
        async with connection.transaction():
            await connection.execute(text)
            await connection.execute("INSERT INTO schema_step (name, digest) VALUES ($1, $2)", name, _digest(text))
        applied.append(name)
    return applied


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
