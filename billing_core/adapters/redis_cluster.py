"""A cluster for the worker: one client per primary, found by the slot of each command's key.

To those who use it it is a client like any other, which gathers commands in pipelines. A pipeline is split by
node, the parts run side by side, and the replies come back in the order of the commands. A command that reached
the wrong node was not run there and is sent again, behind all others of its slot that were; so the order within
a slot is kept. What cannot be told to a node that is away has the failure as its reply, and the others theirs:
one node that is being replaced stops nobody else's work.

Commands without a key are asked of every primary: `TIME` is the earliest of all clocks, so that what was decided
before it is visible to whatever is read behind it in the same pipeline. Transactions belong to one node: `at` gives
its client.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncCoreCommands
from redis.event import EventDispatcher
from redis.exceptions import AskError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from billing_core.contract.cluster import SLOT_COUNT, Seeds, Survey, best_of, slot_of, survey_of

Place = tuple[str, int]
Command = tuple[tuple[Any, ...], Any, dict[str, Any]]
"""Words, key, and what the library wants to know for its reply."""

_NODE_S: Final = 5.0
_SURVEY_S: Final = 1.0
_RENEWAL_S: Final = 2.0
_ROUNDS: Final = 5
_CHANCE: Final = random.SystemRandom()
_SCRIPT_CALLS: Final = frozenset({"EVAL", "FCALL"})


def _earliest(answers: list[Any]) -> Any:
    present = [answer for answer in answers if not isinstance(answer, Exception)]
    return min(present) if present else _unanimous(answers)


def _unanimous(answers: list[Any]) -> Any:
    """The first reply; a failure where one failed."""
    faults = [answer for answer in answers if isinstance(answer, Exception)]
    return (faults or answers)[0]


_EVERYWHERE: Final[Mapping[str, Callable[[list[Any]], Any]]] = {
    "TIME": _earliest,
    "FLUSHALL": _unanimous,
}


class ClusterClient(AsyncCoreCommands):
    """See the module. It connects when it is first used."""

    _event_dispatcher = EventDispatcher()

    def __init__(self, seeds: Seeds) -> None:
        self._seeds = seeds
        self._nodes: dict[Place, Redis] = {}
        self._primaries: list[Place] = []
        self._owners: list[Place | None] = []
        self._callbacks: dict[str, Callable[..., Any]] = {}
        self._stale_at_s = 0.0
        self._renewing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for node in self._nodes.values():
            await node.aclose()

    def set_response_callback(self, command: str, callback: Callable[..., Any]) -> None:
        """As a single server's client has it."""
        self._callbacks[command] = callback
        for node in self._nodes.values():
            node.set_response_callback(command, callback)

    def pipeline(self, *, transaction: bool = False) -> ClusterPipeline:
        """A pipeline over all nodes. Raises: ValueError for a transaction, which `at` a key is possible."""
        if transaction:
            raise ValueError("a transaction belongs to one node of a cluster")
        return ClusterPipeline(self)

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """One command; its reply. Raises: as the client of a single server."""
        return (await self.pipeline().execute_command(*words, **options).execute())[0]

    async def at(self, key: str) -> Redis:
        """The client of the primary that serves the key. Raises: ConnectionError where none does."""
        await self.know()
        return self._nodes[self.owner(key)]

    async def by_node(self, shards: Sequence[int], *, key_of: Callable[[int], str]) -> list[list[int]]:
        """The shards whose keys one node has, for each node; those that nobody serves now stand alone."""
        await self.know()
        parts: dict[Any, list[int]] = {}
        for shard in shards:
            place = self._owners[slot_of(key_of(shard))]
            parts.setdefault(place or shard, []).append(shard)
        return list(parts.values())

    async def all_primaries(self) -> list[Redis]:
        """A client of each primary."""
        await self.know()
        return [self.node(place) for place in self._primaries]

    async def know(self) -> None:
        """Learn who serves what, unless it was learnt a moment ago. Raises: ConnectionError where nobody
        answers."""
        if asyncio.get_running_loop().time() >= self._stale_at_s:
            async with self._renewing:
                if asyncio.get_running_loop().time() >= self._stale_at_s:
                    await self._renew()

    def doubt(self) -> None:
        """What was learnt is no longer true."""
        self._stale_at_s = 0.0

    def owner(self, key: Any) -> Place:
        """Who serves the key. Raises: ConnectionError where nobody does."""
        place = self._owners[slot_of(key if isinstance(key, (str, bytes)) else str(key))]
        if place is None:
            raise RedisConnectionError("no node of the cluster serves this now")
        return place

    def primaries(self) -> list[Place]:
        """All primaries."""
        return self._primaries

    def node(self, place: Place) -> Redis:
        """The client of the node there."""
        node = self._nodes.get(place)
        if node is None:
            host, port = place
            node = self._nodes[place] = Redis(
                host=host,
                port=port,
                username=self._seeds.user or None,
                password=self._seeds.password or None,
                protocol=3,
                socket_timeout=None,
                retry=Retry(NoBackoff(), 0),
            )
            for command, callback in self._callbacks.items():
                node.set_response_callback(command, callback)
        return node

    async def _renew(self) -> None:
        best = await best_of(self._ask(place) for place in sorted({*self._seeds.places, *self._nodes}))
        if best is None:
            raise RedisConnectionError("no node of the cluster answers")
        owners: list[Place | None] = [None] * SLOT_COUNT
        for one in best.ranges:
            self.node((one.host, one.port))
            owners[one.first : one.last + 1] = [(one.host, one.port)] * (one.last + 1 - one.first)
        self._owners = owners
        self._primaries = sorted({(one.host, one.port) for one in best.ranges})
        pause_s = _RENEWAL_S * _CHANCE.uniform(0.5, 1.0) if best.is_ok else 0.0
        self._stale_at_s = asyncio.get_running_loop().time() + pause_s

    async def _ask(self, place: Place) -> Survey | None:
        """What the node there says of the cluster; None where it is away."""
        pipe = self.node(place).pipeline(transaction=False)
        pipe.execute_command("CLUSTER", "INFO")
        pipe.execute_command("CLUSTER", "SLOTS")
        try:
            async with asyncio.timeout(_SURVEY_S):
                about, slots = await pipe.execute()
        except (OSError, RedisError):
            return None
        return survey_of(about, slots, asked_host=place[0])


class ClusterPipeline(AsyncCoreCommands):
    """Commands on their way to the nodes of their keys."""

    _event_dispatcher = EventDispatcher()

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._commands: list[Command] = []

    def execute_command(self, *words: Any, key: Any = None, **options: Any) -> Self:
        """Add a command; `key` says where it belongs if its words do not."""
        self._commands.append((words, key or _key(words), options))
        return self

    async def execute(self, *, raise_on_error: bool = True) -> list[Any]:
        """The replies, in the order of the commands.

        Raises: ConnectionError where nobody answers at all; the first error reply, unless told not to.
        """
        commands, self._commands = self._commands, []
        replies: list[Any] = [None] * len(commands)
        waiting, asking = list(range(len(commands))), dict[int, Place]()
        for _ in range(_ROUNDS):
            await self._client.know()
            await self._run(commands, waiting, asking=asking, replies=replies)
            waiting = [at for at in waiting if isinstance(replies[at], (MovedError, AskError))]
            if not waiting:
                break
            asking = {at: replies[at].node_addr for at in waiting if not isinstance(replies[at], MovedError)}
            self._client.doubt()
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    async def _run(
        self,
        commands: Sequence[Command],
        waiting: Sequence[int],
        *,
        asking: Mapping[int, Place],
        replies: list[Any],
    ) -> None:
        """Send what waits to where it belongs, and put the replies in place."""
        parts: dict[Place, list[int]] = {}
        for at in waiting:
            words, key, _ = commands[at]
            if _name(words) in _EVERYWHERE:
                replies[at] = []
                for place in self._client.primaries():
                    parts.setdefault(place, []).append(at)
                continue
            try:
                place = asking.get(at) or self._client.owner(key)
            except RedisConnectionError as away:
                replies[at] = away
            else:
                parts.setdefault(place, []).append(at)
        found = await asyncio.gather(
            *(
                self._ask(place, [commands[at] for at in part], asking=[at in asking for at in part])
                for place, part in parts.items()
            )
        )
        for part, answers in zip(parts.values(), found, strict=True):
            for at, answer in zip(part, answers, strict=True):
                if _name(commands[at][0]) in _EVERYWHERE:
                    replies[at].append(answer)
                else:
                    replies[at] = answer
        for at in waiting:
            merge = _EVERYWHERE.get(_name(commands[at][0]))
            if merge is not None:
                replies[at] = merge(replies[at])

    async def _ask(self, place: Place, commands: Sequence[Command], *, asking: Sequence[bool]) -> list[Any]:
        """One node's replies; where it is away, the failure for each."""
        pipe = self._client.node(place).pipeline(transaction=False)
        for (words, _, options), is_asking in zip(commands, asking, strict=True):
            if is_asking:
                pipe.execute_command("ASKING")
            pipe.execute_command(*words, **options)
        try:
            async with asyncio.timeout(_NODE_S):
                answers = iter(await pipe.execute(raise_on_error=False))
        except (OSError, RedisError) as away:
            self._client.doubt()
            return [away] * len(commands)
        found: list[Any] = []
        for is_asking in asking:
            if is_asking:
                next(answers)
            found.append(next(answers))
        return found


def _name(words: Sequence[Any]) -> str:
    return str(words[0])


def _key(words: Sequence[Any]) -> Any:
    """The key that says where a command belongs; None for one that has none."""
    if len(words) < 2:
        return None
    return words[3] if words[0] in _SCRIPT_CALLS else words[1]
