"""The link to a cluster: one connection to each primary, and a map of who serves which slot.

Every command names a key, and its slot says which node it goes to; beyond that one look-up all is as with a single
server. Nobody waits for a node that is away: its slots are refused at once, the others are served.

The map is asked of all known nodes at once, and the answer that knows the latest epoch is believed: `MOVED`
replies and lost connections ask for a new one at once, and now and then it is renewed by itself. A command that
reached the wrong node (`MOVED`, `ASK`) was not run there, and is handed on within what is left of its deadline,
a few times at most.

A replica that was promoted is a node like any other: it is greeted, has the library, and serves only once the
billing side has looked at it (`only_vouched`), because it may have less than what is already in Postgres.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Final

import msgspec

from billing_core.contract.cluster import SLOT_COUNT, Survey, best_of, slot_of, survey_of
from billing_core.contract.keys import SHARD_COUNT, tag
from billing_core.errors import Unavailable
from gateway.state.endpoint import Endpoint
from gateway.state.link import Link, LinkSettings, dial
from gateway.state.pipe import Pipe, PipeTally, Slot, Tell
from gateway.state.resp import ErrorReply, Reply, Word
from lua.library import Library

_CHANCE: Final = random.SystemRandom()
_RENEWAL_S: Final = 10.0
_SLOT_OF_TAG: Final = {tag(shard): slot_of(tag(shard)) for shard in range(SHARD_COUNT)}
_TAG_LENGTH: Final = len(tag(0))


class ClusterLink(Link):
    """Links to all primaries, and the map; `start` once, `stop` once."""

    def __init__(self, settings: LinkSettings, library: Library, *, seeds: Sequence[Endpoint]) -> None:
        super().__init__(settings, library)
        self._seeds = tuple(seeds)
        self._nodes: dict[Endpoint, Link] = {}
        self._owners: list[Link | None] = [None] * SLOT_COUNT
        self._retiring: set[asyncio.Task[None]] = set()
        self._stale = asyncio.Event()
        self._is_ok = False

    async def stop(self) -> None:
        """Close all connections; whoever still waits gets Unavailable."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(
            *self._retiring, *(node.stop() for node in self._nodes.values()), return_exceptions=True
        )

    @property
    def is_up(self) -> bool:
        """Whether every slot is served now."""
        return self._is_ok and all(node.is_up for node in self._nodes.values())

    @property
    def in_flight_count(self) -> int:
        """Commands whose reply has not come, on all nodes."""
        return sum(node.in_flight_count for node in self._nodes.values())

    @property
    def seated_count(self) -> int:
        """Commands under way that took a place for it, at all nodes."""
        return sum(node.seated_count for node in self._nodes.values())

    @property
    def waiting_count(self) -> int:
        """Commands that wait for their turn, at all nodes."""
        return sum(node.waiting_count for node in self._nodes.values())

    def send(self, words: tuple[Word, ...], *, deadline_ms: int) -> asyncio.Future[Reply]:
        """Send one command to the node of its key; one without a key to the first node that is up.

        Raises: as for a single server.
        """
        node = self._node_of(words[1]) if len(words) > 1 else self._first()
        return node.send(words, deadline_ms=deadline_ms)

    def run(
        self, name: str, keys: Sequence[Word], *, args: Sequence[Word], deadline_ms: int, place: str = ""
    ) -> asyncio.Future[Reply]:
        """Run one act of `lua/` where its first key is; all its keys are there.

        Raises: as `send`.
        """
        return self._node_of(keys[0]).run(name, keys, args=args, deadline_ms=deadline_ms, place=place)

    def post(self, packed: bytes, *, place: str, tell: Tell, deadline_ms: int) -> None:
        """Run what `pack` has made where that key is.

        Raises: as `send`, and then nobody is told.
        """
        self._node_of(place).post(packed, place=place, tell=tell, deadline_ms=deadline_ms)

    async def count(self, keys: Sequence[str], *, deadline_ms: int) -> int:
        """How many of these keys exist; each is asked for where it is. Raises: Unavailable, ErrorReply."""
        found = await asyncio.gather(*(self.send(("EXISTS", key), deadline_ms=deadline_ms) for key in keys))
        return sum(one for one in found if isinstance(one, int))

    def places(self) -> list[Endpoint]:
        """Each node that is known."""
        return sorted({*self._seeds, *self._nodes}, key=str)

    def elsewhere(self, slot: Slot, reply: ErrorReply) -> bool:
        """Hand a command on to the node that `MOVED` or `ASK` names; whether that is possible now.

        A script is not handed on for `ASK`: half of a shard may be there and half here, and a script that misses
        what it has not declared would take it for empty. It is refused until the slot has moved.
        """
        number, _, place = reply.detail.partition(" ")
        host, _, port = place.rpartition(":")
        if not host or (reply.code == "ASK" and slot.source is not None):
            self._stale.set()
            return False
        node = self._node_at(host, int(port))
        if reply.code == "MOVED":
            self._owners[int(number)] = node
            self._stale.set()
        return node.adopt(slot, is_asking=reply.code == "ASK")

    def node_changed(self) -> None:
        """A connection stands, or is gone: then its node may have been replaced."""
        self._stale.set()

    def _node_of(self, key: Word) -> Link:
        slot = _SLOT_OF_TAG.get(key[:_TAG_LENGTH]) if isinstance(key, str) else None
        if slot is None:
            slot = slot_of(key if isinstance(key, bytes) else str(key))
        node = self._owners[slot]
        if node is None:
            raise Unavailable("no node of the cluster serves this now")
        return node

    def _first(self) -> Link:
        """The same node for as long as it is up: who compares two of its answers wants them from one clock."""
        for _, node in sorted(self._nodes.items(), key=lambda item: str(item[0])):
            if node.is_up:
                return node
        raise Unavailable("Redis is not connected")

    def _node_at(self, host: str, port: int) -> Link:
        endpoint = msgspec.structs.replace(self._settings.endpoint, host=host, port=port)
        node = self._nodes.get(endpoint)
        if node is None:
            settings = msgspec.structs.replace(self._settings, endpoint=endpoint)
            node = self._nodes[endpoint] = Link(settings, self._library, ring=self, tally=self.tally)
            node.known, node.met = self.known, self.met
            node.start()
        return node

    async def _keep(self) -> None:
        """Keep the map true until the task is cancelled."""
        retry_s = self._settings.retry_ms / 1_000
        while True:
            self._stale.clear()
            await self._renew()
            for node in self._nodes.values():
                node.check()
            if self.is_up:
                self._up.set()
            pause_s = _RENEWAL_S * _CHANCE.uniform(0.5, 1.5) if self.is_up else 0.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stale.wait()
            await asyncio.sleep(_CHANCE.uniform(0, retry_s))  # so that a storm of MOVED is one question

    async def _renew(self) -> None:
        """Ask everybody; take the map of whom to believe."""
        best = await best_of(self._ask(place) for place in self.places())
        if best is None:
            self._is_ok, self.fault = False, "no node of the cluster answers"
        else:
            self._take(best)

    async def _ask(self, place: Endpoint) -> Survey | None:
        """What the node at this place says; None where it is away. A connection of its own, gone afterwards."""
        limits, deadline_ms = self._settings.limits, self._settings.connect_ms
        try:
            async with asyncio.timeout(deadline_ms / 1_000):
                pipe = await dial(place, lambda: Pipe(limits, PipeTally()))
                try:
                    words = [*place.greeting(), ("CLUSTER", "INFO"), ("CLUSTER", "SLOTS")]
                    *_, about, slots = await asyncio.gather(
                        *(pipe.send(one, deadline_ms=deadline_ms) for one in words)
                    )
                finally:
                    pipe.close()
        except (OSError, TimeoutError, Unavailable, ErrorReply):
            return None
        if not isinstance(about, bytes) or not isinstance(slots, list):
            return None
        return survey_of(about, slots, asked_host=place.host)

    def _take(self, survey: Survey) -> None:
        """Believe a survey: links to its primaries, and to nobody else."""
        owners: list[Link | None] = [None] * SLOT_COUNT
        for one in survey.ranges:
            node = self._node_at(one.host, one.port)
            owners[one.first : one.last + 1] = [node] * (one.last + 1 - one.first)
        self._owners = owners
        for endpoint, node in list(self._nodes.items()):
            if node not in owners:
                del self._nodes[endpoint]
                task = asyncio.create_task(self._retire(node))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
        self._is_ok = survey.is_ok and None not in owners
        faults = sorted(node.fault for node in self._nodes.values() if not node.is_up)
        self.fault = next(iter(faults), "" if self._is_ok else "the cluster is down, or slots are without a node")

    async def _retire(self, node: Link) -> None:
        """Let a node that serves nothing any more answer what it was asked, then leave it."""
        try:
            await asyncio.sleep(self._settings.limits.hang_ms / 1_000)
        finally:
            await node.stop()
