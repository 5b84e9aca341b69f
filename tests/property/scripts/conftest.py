"""A desk at a real Valkey for the laws of the scripts; `desk` and `model` lie beside this file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

sys.path.insert(0, str(Path(__file__).parent))

from desk import Desk
from shop import Shop


@pytest.fixture(scope="module")
def desk(valkey_server: str) -> Iterator[Desk]:
    """Runs scripts and reads keys; each test begins with `desk.clear()`."""
    with redis.Redis.from_url(valkey_server, socket_timeout=60) as client:
        yield Desk(client)


@pytest.fixture
def shop(desk: Desk) -> Shop:
    """One customer, nothing granted, nothing allowed."""
    return Shop(desk)
