"""The link: how this process talks to Redis where every microsecond counts.

One connection, kept up for ever: it greets (AUTH, SELECT), sees to it that the server has the library of all
scripts, and is then offered to callers. When it breaks, callers are refused at once until the next one stands;
there is no queue for better times and no retry, because a decision that waits is worth less than one that says
`unavailable`. Attempts to connect are spread by full jitter below `retry_ms`, which is small, so that service is
back within a second of the server.

Redis is asked by `redis` (the library) everywhere else; this link exists for the request path only.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Sequence

import msgspec

from billing_core.contract.cluster import process_name
from billing_core.contract.keys import vouched_digest
from billing_core.errors import Unavailable
from billing_core.values.invariant import invariant
from gateway.state.endpoint import Endpoint
from gateway.state.fair.line import Line
from gateway.state.fair.queue import Bounds
from gateway.state.pipe import Pipe, PipeLimits, PipeTally, Ring, Seat, Slot, Tell, settler
from gateway.state.resp import ErrorReply, Reply, Word, encode
from lua.library import LISTING, Library, is_there_already, listed_names

_CHANCE = random.SystemRandom()
_RUN_ID = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
_REPLICATION_ID = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a link behaves. `name` is what the server calls this client.

    `only_vouched`: a server that nobody of the billing side has looked at since it started is as good as away.
    """

    endpoint: Endpoint
    name: str = "tallygate"
    only_vouched: bool = False
    limits: PipeLimits = PipeLimits()
    bounds: Bounds = Bounds()
    connect_ms: int = 1_000
    retry_ms: int = 250


class Link:
    """A connection that comes back by itself; `start` once, `stop` once."""

    def __init__(
        self, settings: LinkSettings, library: Library, *, ring: Ring | None = None, tally: PipeTally | None = None
    ) -> None:
        """`tally` where several links count as one."""
        self._settings = settings
        self._library = library
        self._ring = ring
        self._pipe: Pipe | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self.tally = tally or PipeTally()
        self._line = Line(settings.bounds, self.tally, send=self._send)
        self.known: set[str] = set()
        self.met = asyncio.Event()
        self.fault = "not connected yet"

    def start(self) -> None:
        """Begin to connect; returns at once, whether Redis is there or not."""
        invariant(self._keeper is None, "a link is started once")
        self._keeper = asyncio.create_task(self._keep())

    async def up(self) -> None:
        """Wait until a connection stands; one that was lost this very turn does not, though its keeper sleeps."""
        while not self.is_up:
            self._up.clear()
            await self._up.wait()

    async def stop(self) -> None:
        """Close the connection; whoever still waits gets Unavailable."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._pipe is not None:
            self._pipe.close()
            await self._pipe.lost

    async def broken(self) -> None:
        """Wait for what never happens: the end of the task that keeps the connection, with its exception."""
        if self._keeper is not None:
            await asyncio.shield(self._keeper)

    def check(self) -> None:
        """Raise what ended the task that keeps the connection, if anything did."""
        if self._keeper is not None and self._keeper.done():
            self._keeper.result()

    @property
    def is_up(self) -> bool:
        """Whether a connection stands now."""
        return self._pipe is not None and not self._pipe.lost.done()

    @property
    def in_flight_count(self) -> int:
        """Commands whose reply has not come."""
        return self._pipe.in_flight_count if self._pipe is not None else 0

    @property
    def seated_count(self) -> int:
        """Commands under way that took a place for it."""
        return self._line.seated_count

    @property
    def waiting_count(self) -> int:
        """Commands that wait for a place among those under way."""
        return self._line.waiting_count

    def send(self, words: tuple[Word, ...], *, deadline_ms: int) -> asyncio.Future[Reply]:
        """Send one command, such as `("GET", "tg:key:...")`.

        Raises: Unavailable at once where Redis cannot be asked; the future fails with ErrorReply or Unavailable.
        """
        if self._pipe is None:
            raise Unavailable("Redis is not connected")
        return self._pipe.send(words, deadline_ms=deadline_ms)

    def run(
        self, name: str, keys: Sequence[Word], *, args: Sequence[Word], deadline_ms: int, place: str = ""
    ) -> asyncio.Future[Reply]:
        """Run one act of `lua/`, by its name; where a `place` is told as for `post`.

        Raises: as `send`.
        """
        if self._pipe is None:
            raise Unavailable("Redis is not connected")
        words = self._library.scripts[name].call(keys, args)
        if place:
            return self.run_packed(encode(words), place=place, deadline_ms=deadline_ms)
        return self._pipe.send(words, deadline_ms=deadline_ms, source=self._library.text)

    def pack(self, name: str, keys: Sequence[Word], *, args: Sequence[Word]) -> bytes:
        """The command that `run` would send."""
        return encode(self._library.scripts[name].call(keys, args))

    def run_packed(self, packed: bytes, *, place: str, deadline_ms: int) -> asyncio.Future[Reply]:
        """Run what `pack` has made; `place` is one of its keys, and whose all commands take turns with others.

        Raises: as `send`.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.post(packed, place=place, tell=settler(future), deadline_ms=deadline_ms)
        return future

    def post(self, packed: bytes, *, place: str, tell: Tell, deadline_ms: int) -> None:
        """The same for whoever needs no future.

        Raises: as `send`, and then nobody is told.
        """
        pipe = self._pipe
        if pipe is None:
            raise Unavailable("Redis is not connected")
        share = self._line.take(place)
        if share is None:
            pipe.check()
            self._line.wait(packed, place=place, tell=tell, deadline_ms=deadline_ms)
            return
        try:
            pipe.post(packed, tell=tell, deadline_ms=deadline_ms, source=self._library.text, seat=share)
        except Unavailable:
            share.leave()
            raise
        if self.tally.waiting and share.taken == 1:
            pipe.push()  # somebody asks so much that turns are long; who asks little need not wait for their end

    def adopt(self, slot: Slot, *, is_asking: bool) -> bool:
        """Take over a command that another node of the cluster sent here; whether it may wait here."""
        return self._pipe is not None and self._pipe.adopt(slot, is_asking=is_asking)

    async def count(self, keys: Sequence[str], *, deadline_ms: int) -> int:
        """How many of these keys exist.

        Raises: Unavailable, ErrorReply.
        """
        found = await self.send(("EXISTS", *keys), deadline_ms=deadline_ms)
        return found if isinstance(found, int) else 0

    def places(self) -> list[Endpoint]:
        """Where the server is; in a cluster each of its nodes."""
        return [self._settings.endpoint]

    def _send(self, packed: bytes, *, tell: Tell, deadline_ms: int, seat: Seat) -> None:
        """Send what has waited. Raises: Unavailable."""
        if self._pipe is None:
            raise Unavailable("Redis is not connected")
        self._pipe.post(packed, tell=tell, deadline_ms=deadline_ms, source=self._library.text, seat=seat)

    async def _keep(self) -> None:
        """Keep one connection standing until the task is cancelled."""
        while True:
            try:
                pipe = await self._connect()
            except (OSError, TimeoutError, Unavailable, ErrorReply) as error:
                self.fault = f"{self._settings.endpoint}: {error or 'no answer'}"
                await asyncio.sleep(_CHANCE.uniform(0, self._settings.retry_ms / 1_000))
                continue
            self._pipe, self.fault = pipe, ""
            self._up.set()
            self.tally.connects += 1
            self._tell_ring()
            self.fault = await asyncio.shield(pipe.lost)
            self._up.clear()
            self._tell_ring()

    def _tell_ring(self) -> None:
        if self._ring is not None:
            self._ring.node_changed()

    async def _connect(self) -> Pipe:
        """A connection that has greeted and knows the library."""
        async with asyncio.timeout(self._settings.connect_ms / 1_000):
            pipe = await dial(self._settings.endpoint, self._make_pipe)
            try:
                await self._greet(pipe)
            except BaseException:
                pipe.close()
                raise
        return pipe

    def _make_pipe(self) -> Pipe:
        return Pipe(self._settings.limits, self.tally, ring=self._ring)

    async def _greet(self, pipe: Pipe) -> None:
        """Say who we are, then see to it that the library is there."""
        deadline_ms = self._settings.connect_ms
        commands = [*self._settings.endpoint.greeting(), ("CLIENT", "SETNAME", self._settings.name), LISTING]
        replies = await asyncio.gather(
            *(pipe.send(words, deadline_ms=deadline_ms) for words in commands), return_exceptions=True
        )
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        await self._furnish(pipe, listed_names(replies[-1]))
        if self._settings.only_vouched:
            process = await _vouched_process(pipe, deadline_ms=deadline_ms)
            if process not in self.known:
                self.known.add(process)
                self.met.set()

    async def _furnish(self, pipe: Pipe, known: list[str]) -> None:
        """Bring the library where it is not known yet, and then take older ones away; see `lua/library.py`."""
        if self._library.name in known:
            return
        deadline_ms = self._settings.connect_ms
        try:
            await pipe.send(self._library.loading(), deadline_ms=deadline_ms)
        except ErrorReply as error:
            if not is_there_already(error):
                raise
            return
        taken = [pipe.send(("FUNCTION", "DELETE", name), deadline_ms=deadline_ms) for name in known]
        await asyncio.gather(*taken, return_exceptions=True)  # another may have taken it away in between


async def dial(endpoint: Endpoint, make_pipe: Callable[[], Pipe]) -> Pipe:
    """A fresh connection, nothing said yet. Raises: OSError."""
    loop = asyncio.get_running_loop()
    if endpoint.path:
        _, pipe = await loop.create_unix_connection(make_pipe, endpoint.path)
    else:
        _, pipe = await loop.create_connection(make_pipe, endpoint.host, endpoint.port)
    return pipe


async def _vouched_process(pipe: Pipe, *, deadline_ms: int) -> str:
    """Which process this is.

    Raises: Unavailable where it may have things again that are long spent; see `vouched_script`.
    """
    names: list[str] = []
    for section, pattern in (("server", _RUN_ID), ("replication", _REPLICATION_ID)):
        about = await pipe.send(("INFO", section), deadline_ms=deadline_ms)
        found = pattern.search(about) if isinstance(about, bytes) else None
        names.append(found[1].decode() if found else "")
    process = process_name(*names)
    known = await pipe.send(("SCRIPT", "EXISTS", vouched_digest(process)), deadline_ms=deadline_ms)
    if known != [1]:
        raise Unavailable("Redis has started anew, and nobody has compared it with Postgres yet")
    return process
