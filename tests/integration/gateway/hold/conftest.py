"""What is asked of holds here is asked of the fast lane and of aiohttp: the answers are the same."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["lane", "aiohttp"])
def way(request: pytest.FixtureRequest) -> str:
    """Both servers answer alike."""
    return str(request.param)
