"""The published table of cases, where it is at hand.

The cases are restated in the tests, so they need no file. Where the table lies beside the repository, the tests
also prove that the restatement says what the table says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

_TABLE = Path(__file__).resolve().parents[4] / "shared" / "oracle" / "cases.json"


@pytest.fixture(scope="session")
def agrees() -> Callable[[str, str], bool]:
    """Whether the table, if it is here, expects this text of the case."""
    rows = json.loads(_TABLE.read_text("utf-8")) if _TABLE.is_file() else []
    published = {row["id"]: row["expected"] for row in rows}
    return lambda name, expected: published.get(name, expected) == expected


@pytest.fixture(scope="session")
def published_ids() -> Callable[[str], set[str]]:
    """The table's cases of a family; none where it is not here."""
    rows = json.loads(_TABLE.read_text("utf-8")) if _TABLE.is_file() else []
    return lambda family: {row["id"] for row in rows if row["family"] == family}
