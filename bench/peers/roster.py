"""Who is measured: each peer, the role it plays, the server that answers for it, and what it is asked.

Roles are compared within themselves only:

    check      one POST with a body, one decision
    proxy      a proxy asks before it answers a GET
    ratelimit  Envoy's rate limit service, one descriptor, one decision
    script     bare script calls, no server in front: the limit of all others
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from bench.apparatus.customer import KEYS
from bench.peers.call import FEATURE
from bench.peers.load import PIPELINED, Request


class Role(StrEnum):
    """What is compared with what."""

    CHECK = "check"
    PROXY = "proxy"
    RATELIMIT = "ratelimit"
    SCRIPT = "script"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    `port` names the port that is asked; `servers` those who work for it, the one that is asked first.
    `script`: what runs in Redis for each request. `is_recorded`: each answer has appended a usage event.
    """

    name: str
    role: Role
    servers: tuple[str, ...]
    port: str
    script: str
    is_recorded: bool = True
    at_once: int = 1


TALLYGATE: Final = "tallygate"
NGINX_LUA: Final = "nginx+lua"
RATE_LIMITER: Final = "tallygate, rate limit service"
OWN_PROXY: Final = "tallygate's own proxy"
GRPC_AIO: Final = "grpc.aio+redis-py"
AIOHTTP: Final = "aiohttp+redis-py"
PIPELINED_CALLS: Final = f"redis-benchmark, {PIPELINED} at once"

_CHECK, _PROXY, _RPC, _SCRIPT = Role.CHECK, Role.PROXY, Role.RATELIMIT, Role.SCRIPT

PEERS: Final = (
    Peer(name=TALLYGATE, role=_CHECK, servers=("tallygate",), port="tallygate", script="decision"),
    Peer(name=NGINX_LUA, role=_CHECK, servers=("nginx_lua",), port="lua_full", script="decision"),
    Peer(name="fastify+ioredis", role=_CHECK, servers=("fastify",), port="fastify", script="decision"),
    Peer(name=AIOHTTP, role=_CHECK, servers=("aiohttp",), port="aiohttp", script="decision"),
    Peer(name="nginx+lua, least script", role=_CHECK, servers=("nginx_lua",), port="lua_least", script="least"),
    Peer(
        name="fastify+rate-limiter-flexible",
        role=_CHECK,
        servers=("fastify_limiter",),
        port="fastify_limiter",
        script="its own",
        is_recorded=False,
    ),
    Peer(
        name="starlette+limits",
        role=_CHECK,
        servers=("starlette",),
        port="starlette",
        script="its own",
        is_recorded=False,
    ),
    Peer(name=OWN_PROXY, role=_PROXY, servers=("tallygate", "front"), port="tallygate_proxy", script="decision"),
    Peer(
        name="aiohttp as a proxy",
        role=_PROXY,
        servers=("aiohttp_proxy", "front"),
        port="aiohttp_proxy",
        script="decision",
    ),
    Peer(
        name="nginx to tallygate",
        role=_PROXY,
        servers=("front", "tallygate"),
        port="front_tallygate",
        script="decision",
    ),
    Peer(
        name="nginx to nginx+lua",
        role=_PROXY,
        servers=("front", "nginx_lua"),
        port="front_lua",
        script="decision",
    ),
    Peer(
        name="envoy to tallygate",
        role=_PROXY,
        servers=("envoy", "tallygate"),
        port="envoy_tallygate",
        script="decision",
    ),
    Peer(
        name="envoy to tallygate, gRPC",
        role=_PROXY,
        servers=("envoy", "tallygate"),
        port="envoy_tallygate_grpc",
        script="decision",
    ),
    Peer(
        name="envoy to nginx+lua",
        role=_PROXY,
        servers=("envoy", "nginx_lua"),
        port="envoy_lua",
        script="decision",
    ),
    Peer(name="caddy to tallygate", role=_PROXY, servers=("caddy", "tallygate"), port="caddy", script="decision"),
    Peer(
        name="traefik's rate limit",
        role=_PROXY,
        servers=("traefik", "front"),
        port="traefik",
        script="its own",
        is_recorded=False,
    ),
    Peer(name=RATE_LIMITER, role=_RPC, servers=("tallygate",), port="tallygate_grpc", script="decision"),
    Peer(name=GRPC_AIO, role=_RPC, servers=("grpc",), port="grpc", script="decision"),
    Peer(name="redis-benchmark", role=_SCRIPT, servers=(), port="redis", script="decision"),
    Peer(name=PIPELINED_CALLS, role=_SCRIPT, servers=(), port="redis", script="decision", at_once=PIPELINED),
)

PORTS: Final[Mapping[str, tuple[str, ...]]] = {
    "tallygate": ("tallygate", "tallygate_grpc", "tallygate_proxy"),
    "grpc": ("grpc",),
    "nginx_lua": ("lua_full", "lua_least"),
    "fastify": ("fastify",),
    "fastify_limiter": ("fastify_limiter",),
    "aiohttp": ("aiohttp",),
    "aiohttp_proxy": ("aiohttp_proxy",),
    "starlette": ("starlette",),
    "front": ("front_tallygate", "front_lua", "static"),
    "envoy": ("envoy_tallygate", "envoy_tallygate_grpc", "envoy_lua"),
    "caddy": ("caddy",),
    "traefik": ("traefik",),
}
"""On which ports a server listens."""


def request_of(peer: Peer, *, customer: str = "customer") -> Request:
    """What that peer is asked."""
    key = KEYS[customer]
    if peer.role is Role.PROXY:
        return Request(method="GET", path="/v1/things", authorization=f"Bearer {key}")
    body = msgspec.json.encode({"key": key, "feature": FEATURE, "quantity": 1}).decode()
    return Request(method="POST", path="/v1/check", body=body)


def chosen(words: str) -> tuple[Peer, ...]:
    """The peers of which a name or a part of it was told; all where nothing was. Raises: SystemExit."""
    if not words:
        return PEERS
    told = [word.strip() for word in words.split(",")]
    unknown = [word for word in told if not any(word in peer.name for peer in PEERS)]
    if unknown:
        raise SystemExit(f"no peer is called {unknown[0]!r}: {', '.join(peer.name for peer in PEERS)}")
    exact = {peer.name for peer in PEERS}
    return tuple(
        peer for peer in PEERS if any(word == peer.name if word in exact else word in peer.name for word in told)
    )
