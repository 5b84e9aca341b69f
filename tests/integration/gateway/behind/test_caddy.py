"""The real Caddy in front, with the configuration as it is shipped, but for addresses, patience and features."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.settings import GatewaySettings
from tests.integration.gateway.behind.conftest import KEY, Begin, Front, Program, Upstream
from tests.integration.gateway.behind.early import EarlyLossLaws
from tests.integration.gateway.behind.laws import DistrustLaws, Laws, SettlingLaws, charged

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


class TestCaddyNames:
    """The id of a request is Caddy's own."""

    @pytest.fixture
    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        return msgspec.structs.replace(settings, forward_request_id_header="X-Request-Id")

    async def test_no_client_chooses_under_which_id_it_pays(self, front: Front, world: Any, stand_in: Any) -> None:
        """Else it would pay once, and pass for ever."""
        for _ in range(2):
            assert (await front("/v1/x", KEY | {"X-Request-Id": "mine"}))[0] == 200
        assert await charged(world) == [("calls", 1), ("calls", 1)]
        asked = await stand_in(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await front("/v1/x", KEY | {"X-Request-Id": "mine"})
        (head,) = asked
        assert re.findall(rb"(?i)\r\nx-request-id: (.*?)\r\n", head) != [b"mine"]
        assert len(re.findall(rb"(?i)\r\nx-request-id: [0-9a-f-]{36}\r\n", head)) == 1
