"""What is asked of holds here is asked of the fast lane and of aiohttp: the answers are the same."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[True, False], ids=["lane", "aiohttp"])
def has_lane(request: pytest.FixtureRequest) -> bool:
    """Both servers answer alike."""
    return bool(request.param)
