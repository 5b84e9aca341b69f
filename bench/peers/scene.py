"""The scene: one Valkey, the customers in it, and one server process of each kind.

Valkey listens on a loopback port, because some peers know no other way. Every server has one worker; Go's programs
and Node take what threads they like. All of them, and the load programs, share the same two processors.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import redis

from bench.apparatus.customer import furnish
from bench.apparatus.ground import cpu_seconds
from bench.check import a_free_port
from bench.peers import call
from bench.peers.roster import PORTS, Peer
from bench.peers.tools import SERVERS, Tools
from gateway.command.embedded.process import Child, Program, start
from gateway.command.embedded.valkey import Valkey, start_valkey

_READY_MS: Final = 20_000
_PATIENCE_MS: Final = 1_000  # of a decision under a load that no peer bounds
_TOKEN: Final = re.compile(r"@([a-z_]+)@")
_CONFIGURED: Final = {
    "tallygate": ("routes.toml",),
    "nginx_lua": ("nginx_lua.conf",),
    "front": ("nginx_front.conf",),
    "envoy": ("envoy.yaml",),
    "caddy": ("Caddyfile",),
    "traefik": ("traefik.yml", "traefik_routes.yml"),
}


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Processor seconds so far, usage events so far, and how often Valkey has read from a socket."""

    servers_s: float
    valkey_s: float
    entries: int
    reads: int


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What stands while a run lasts."""

    tools: Tools
    folder: Path
    valkey: Valkey
    client: Any
    ports: Mapping[str, int]
    children: dict[str, Child]

    def spent(self, peer: Peer) -> Spent:
        """What that peer's servers, and Valkey, have used so far."""
        pids = [pid for name in peer.servers for pid in family(self.children[name].pid)]
        return Spent(
            servers_s=sum(cpu_seconds(pid) for pid in pids),
            valkey_s=cpu_seconds(self.valkey.child.pid),
            reads=int(self.client.info("stats")["total_reads_processed"]),
            entries=sum(int(self.client.xlen(name)) for name in call.streams()),
        )

    def tidy(self) -> None:
        """Forget the entries, as a flusher does."""
        for name in call.streams():
            self.client.xtrim(name, maxlen=0, approximate=False)


def family(pid: int) -> Iterator[int]:
    """A process and those that it started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text("ascii").split():
            yield from family(int(child))


@contextmanager
def scene(tools: Tools, peers: tuple[Peer, ...], *, folder: Path, appendfsync: str) -> Generator[Scene]:
    """Everything that these peers need, started and answering; stopped at the end."""
    ports = {name: a_free_port() for names in (*PORTS.values(), ("redis",)) for name in names}
    log = ("--appendonly", "no") if appendfsync == "off" else ("--auto-aof-rewrite-percentage", "0")
    options = ("--bind", "127.0.0.1", "--port", str(ports["redis"]), *log)
    valkey = start_valkey(folder, appendfsync="no" if appendfsync == "off" else appendfsync, options=options)
    asyncio.run(furnish(valkey.url))
    client = cast("Any", redis.Redis.from_url(valkey.url, decode_responses=True))
    stage = Scene(tools=tools, folder=folder, valkey=valkey, client=client, ports=ports, children={})
    try:
        call.write_calls(folder, client, port=ports["redis"])
        for name in {name: 0 for peer in peers for name in reversed(peer.servers)}:
            stage.children[name] = _start(stage, name)
        yield stage
    finally:
        for child in reversed(stage.children.values()):
            child.stop(signal.SIGTERM, timeout_ms=5_000)
        client.close()
        valkey.stop()


def _start(stage: Scene, name: str) -> Child:
    home = stage.folder / name
    home.mkdir()
    for file in _CONFIGURED.get(name, ()):
        (home if name in ("nginx_lua", "front") else stage.folder).joinpath(file).write_text(_filled(stage, file))
    argv, environment = _command(stage, name, home=home)
    program = Program(
        name=name, argv=argv, log_file=stage.folder / f"{name}.log", environment={**os.environ, **environment}
    )
    child = start(program)
    ports = [stage.ports[port] for port in PORTS[name]]
    child.wait_ready(lambda: all(listens(port) for port in ports), timeout_ms=_READY_MS)
    return child


def _filled(stage: Scene, file: str) -> str:
    known = {f"port_{name}": str(port) for name, port in stage.ports.items()}
    known |= {"folder": str(stage.folder), "servers": str(SERVERS), "modules": str(stage.tools.modules)}
    known |= {"lua": str(stage.tools.lua), "lua_c": str(stage.tools.lua_c)}
    return _TOKEN.sub(lambda found: known[found[1]], (SERVERS / file).read_text("utf-8"))


def _command(stage: Scene, name: str, *, home: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Words and environment by which a server is started."""
    programs = {program: str(place) for program, place in stage.tools.programs.items()}
    full, folder, url = str(stage.folder / "full.json"), stage.folder, f"redis://127.0.0.1:{stage.ports['redis']}"
    told = {
        "TALLYGATE_GATEWAY_PORT": str(stage.ports["tallygate"]),
        "TALLYGATE_GATEWAY_GRPC_PORT": str(stage.ports["tallygate_grpc"]),
        "TALLYGATE_GATEWAY_PROXY_PORT": str(stage.ports["tallygate_proxy"]),
        "TALLYGATE_GATEWAY_PROXY_ROUTES_FILE": str(folder / "routes.toml"),
        "TALLYGATE_GATEWAY_REDIS_URL": url,
        "TALLYGATE_GATEWAY_DECISION_DEADLINE_MS": str(_PATIENCE_MS),
        "TALLYGATE_GATEWAY_NGINX_REQUEST_ID_HEADER": "",  # nginx+lua keeps no answers either
        "TALLYGATE_GATEWAY_ENVOY_REQUEST_ID_HEADER": "",
    }
    node = {"NODE_PATH": str(stage.tools.node_modules), "NODE_ENV": "production"}
    script = str(SERVERS / "fastify.js")
    port = str(stage.ports.get(name, 0))
    nginx = (programs["nginx"], "-p", str(home), "-e", "error.log", "-c")
    commands: dict[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
        "tallygate": ((sys.executable, "-m", "gateway.edge"), told),
        "nginx_lua": ((*nginx, str(home / "nginx_lua.conf")), stage.tools.environment),
        "front": ((*nginx, str(home / "nginx_front.conf")), stage.tools.environment),
        "fastify": ((programs["node"], script, "script", full, port), node),
        "fastify_limiter": ((programs["node"], script, "limiter", full, port), node),
        "aiohttp": ((sys.executable, "-m", "bench.peers.servers.aiohttp_app", full, port), {}),
        "aiohttp_proxy": ((sys.executable, "-m", "bench.peers.servers.aiohttp_proxy", full, port,
                           str(stage.ports["static"])), {}),
        "grpc": ((programs["python-grpc"], str(SERVERS / "grpc_app.py"), full, port), {}),
        "starlette": ((programs["python"], str(SERVERS / "starlette_app.py"), url, port), {}),
        "envoy": ((programs["envoy"], "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "-l", "error",
                   "--disable-hot-restart"), {}),
        "caddy": ((programs["caddy"], "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")),
                  {"XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)}),
        "traefik": ((programs["traefik"], f"--configFile={folder / 'traefik.yml'}"), {}),
    }  # fmt: skip
    argv, environment = commands[name]
    return argv, dict(environment)


def listens(port: int) -> bool:
    """Whether somebody listens on that loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
