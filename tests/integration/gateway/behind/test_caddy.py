"""The real Caddy in front, with the configuration as it is shipped, but for addresses, patience and features."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.behind.conftest import Begin, Front, Program, Upstream
from tests.integration.gateway.behind.early import EarlyLossLaws
from tests.integration.gateway.behind.laws import DistrustLaws, Laws, SettlingLaws

FILE = "proxies/Caddyfile"
CADDY = Path(sys.executable).with_name("caddy")


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
    listen, aside = free_port(), free_port()
    swaps = {
        "http://:8888": f"http://:{listen}",
        "http://:8889": f"http://:{aside}",
        "127.0.0.1:8889": f"127.0.0.1:{aside}",
        "127.0.0.1:8080": f"127.0.0.1:{settings.port}",
        "127.0.0.1:8000": f"127.0.0.1:{upstream.port}",
        "feature=api.calls": "feature=calls",
        "feature=api.units": "feature=tokens",
        "ttl_ms=600000": f"ttl_ms={ttl_ms}",
        "_timeout 200ms": f"_timeout {patience_ms}ms",
        "_timeout 1s": f"_timeout {patience_ms}ms",
    }
    return await begin(
        Program(
            listen=listen,
            files={FILE: swaps},
            words=lambda at: [CADDY, "run", "--adapter", "caddyfile", "--config", at[FILE]],
            environment={"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
        )
    )


class TestCaddy(Laws):
    """As any."""


class TestCaddyDistrusts(DistrustLaws):
    """What is no decision is an error, and each of them is 503."""


class TestCaddySettles(SettlingLaws):
    """When the upstream has answered, before its body goes on."""


class TestCaddyLoses(EarlyLossLaws):
    """Caddy answers itself in the gateway's place."""
