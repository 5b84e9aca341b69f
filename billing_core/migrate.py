"""`python -m billing_core.migrate`: bring the schema of `[billing] postgres_url` up to date, then end."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, cast

import asyncpg

from billing_core.contract.configuration import load
from billing_core.errors import ConfigurationError
from billing_core.settings import BillingSettings
from billing_core.store.migration import migrate


async def run() -> None:
    """Apply missing steps, telling each."""
    settings = load("billing", BillingSettings, file=None, environ=os.environ)
    connection = cast("Any", await asyncpg.connect(settings.postgres_url))
    try:
        for name in await migrate(connection):
            sys.stderr.write(f"migrated: {name}\n")
    finally:
        await connection.close()


def main() -> None:
    """Entry point; a fault is one line."""
    try:
        asyncio.run(run())
    except (ConfigurationError, OSError, asyncpg.PostgresError) as error:
        sys.exit(f"migrate: {error}")


if __name__ == "__main__":
    main()
