"""A real cluster on loopback: three primaries and a replica of each, or any other shape, from the packaged server.

Nodes are started with a `nodes.conf` that already names them all, so that nobody has to be introduced. Node `n` is
a primary for `n < primaries`; the replicas follow in the same order. Methods wait until the cluster itself says
that what they did has happened. A node that was killed or stopped may be begun again on its folder.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from billing_core.contract.cluster import SLOT_COUNT, slot_of
from gateway.command.embedded.process import Child, Program, start
from gateway.command.embedded.valkey import packaged_binary
from tests.free_port import free_ports

NODE_TIMEOUT_MS = 1_000
_STOP_MS = 20_000


class Node:
    """One server process: its port, its id in the cluster, and a client that speaks bytes."""

    def __init__(self, folder: Path, *, number: int, port: int, bus: int) -> None:
        self.folder = folder
        self.port = port
        self.bus = bus
        self.node_id = f"{number + 1:040x}"
        self.client = self.new_client()
        self.child: Child | None = None

    def new_client(self) -> redis.asyncio.Redis:
        """A client that belongs to the loop that uses it first."""
        self.client = redis.asyncio.Redis(port=self.port, protocol=3, retry=Retry(NoBackoff(), 0), socket_timeout=2)
        return self.client

    def begin(self) -> None:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "cluster-enabled": "yes",
            "cluster-port": self.bus,
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-replica-validity-factor": 0,
            "cluster-allow-replica-migration": "no",
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": 0,
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "no",
            "save": "",
            "enable-debug-command": "local",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        program = Program(
            name=f"node-{self.port}",
            argv=(str(packaged_binary()), *words),
            log_file=self.folder / "log",
            lock_file=self.folder / "lock",
        )
        self.child = start(program)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.child is not None
        self.child.stop(signal.SIGKILL, timeout_ms=_STOP_MS)

    def freeze(self, *, frozen: bool) -> None:
        """Let it hang, or go on."""
        assert self.child is not None
        os.kill(self.child.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    async def says(self, *words: object) -> Any:
        """A reply, or None while it is away."""
        try:
            return await self.client.execute_command(*words)
        except (redis.exceptions.RedisError, OSError):
            return None

    async def replication(self) -> dict[str, Any]:
        return await self.says("INFO", "replication") or {}

    async def is_ok(self) -> bool:
        return b"cluster_state:ok" in (await self.says("CLUSTER", "INFO") or b"")


class EmbeddedCluster:
    """See the module."""

    def __init__(self, folder: Path, *, primaries: int = 3, replicas: int = 3) -> None:
        self.folder = folder
        self._primaries = primaries
        ports = free_ports(2 * (primaries + replicas))
        self.nodes = [
            Node(folder / f"n{number}", number=number, port=ports[2 * number], bus=ports[2 * number + 1])
            for number in range(primaries + replicas)
        ]
        for node in self.nodes:
            node.folder.mkdir(parents=True)
            (node.folder / "nodes.conf").write_text(self._nodes_conf(node))
            node.begin()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def _nodes_conf(self, me: Node) -> str:
        lines: list[str] = []
        for number, node in enumerate(self.nodes):
            turn = number % self._primaries
            flags, master, slots = "master", "-", f" {self._first(turn)}-{self._first(turn + 1) - 1}"
            if number >= self._primaries:
                flags, master, slots = "slave", self.nodes[turn].node_id, ""
            mine = "myself," if node is me else ""
            place = f"127.0.0.1:{node.port}@{node.bus}"
            lines.append(f"{node.node_id} {place} {mine}{flags} {master} 0 0 {turn + 1} connected{slots}")
        return "\n".join([*lines, f"vars currentEpoch {self._primaries} lastVoteEpoch 0", ""])

    def _first(self, turn: int) -> int:
        return turn * SLOT_COUNT // self._primaries

    async def whole(self) -> None:
        """Wait until every node says that all is well, and every replica follows."""

        async def is_whole() -> bool:
            for node in self.nodes:
                about = await node.replication()
                if not await node.is_ok() or about.get("master_link_status", "up") != "up":
                    return False
                if (
                    about["role"] == "master"
                    and not about["connected_slaves"]
                    and len(self.nodes) > self._primaries
                ):
                    return False
            return True

        await until(is_whole)

    async def owner(self, key: str) -> Node:
        """Who serves the key now, as the nodes that are alive see it."""
        slot = slot_of(key)
        for node in self.nodes:
            for first, last, primary, *_ in await node.says("CLUSTER", "SLOTS") or []:
                if first <= slot <= last:
                    found = next(one for one in self.nodes if one.port == primary[1])
                    if (await found.replication()).get("role") == "master":
                        return found
        raise AssertionError(f"nobody serves {key}")

    async def primaries(self) -> list[Node]:
        """Those that are one now."""
        return [node for node in self.nodes if (await node.replication()).get("role") == "master"]

    async def replica_of(self, node: Node) -> Node:
        """A replica that follows this node."""
        for one in self.nodes:
            about = await one.replication()
            if about.get("role") == "slave" and about["master_port"] == node.port:
                return one
        raise AssertionError("it has no replica")

    async def stall(self, replica: Node, *, primary: Node) -> None:
        """Cut a replica off: it gets nothing from now on, until it is let go on."""
        replica.freeze(frozen=True)  # what is sent to it now it would still read from its socket, so that is closed
        await primary.client.execute_command("CLIENT", "KILL", "TYPE", "REPLICA")

    async def promoted(self, node: Node) -> None:
        """Wait until this replica is a primary, and the cluster is well with it."""

        async def is_primary() -> bool:
            return (await node.replication()).get("role") == "master" and await node.is_ok()

        await until(is_primary)

    async def move(self, slot: int, *, source: Node, target: Node) -> None:
        """Move a slot as a whole (Valkey 9 and newer)."""
        ask = ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.node_id)
        await source.client.execute_command(*ask)
        await self._served_by(slot, target)

    async def begin_move(self, slot: int, *, source: Node, target: Node) -> None:
        """Begin to move a slot key by key: whoever asks for what is not there any more gets ASK."""
        await target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
        await source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)

    async def move_keys(self, slot: int, *, source: Node, target: Node, most: int) -> int:
        """Move so many keys of a slot that is being moved; how many there were."""
        names = await source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, most)
        if names:
            words = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *names)
            await source.client.execute_command(*words)
        return len(names)

    async def end_move(self, slot: int, *, source: Node, target: Node) -> None:
        """Give the slot to the target."""
        for node in (target, source):
            await node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
        await self._served_by(slot, target)

    async def _served_by(self, slot: int, target: Node) -> None:
        async def is_served() -> bool:
            listed = await target.says("CLUSTER", "SLOTS") or []
            return any(first <= slot <= last and one[1] == target.port for first, last, one, *_ in listed)

        await until(is_served)

    def stop(self) -> None:
        for node in self.nodes:
            if node.child is not None and node.child.exit_status() is None:
                node.freeze(frozen=False)
                node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


async def until(holds: Callable[[], Any], *, within_s: float = 90) -> None:
    """Ask until it holds."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - the other side is a process, not an event
            await asyncio.sleep(0.01)
