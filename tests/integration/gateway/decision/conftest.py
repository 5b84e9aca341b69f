"""What is asked of decisions here is asked on the straight way, on the lane and of aiohttp: all answer alike."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["straight", "lane", "aiohttp"])
def way(request: pytest.FixtureRequest) -> str:
    """All ways lead to the same answers."""
    return str(request.param)
