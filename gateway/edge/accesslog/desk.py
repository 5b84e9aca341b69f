"""`envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs`: what responses were, and the end of their holds.

Envoy sends its access log as it goes and waits for no answer. Messages wait here in the order in which they came,
and their entries are looked at a few a turn, so that a flood of them takes no turn from decisions; so many holds
are ended at a time, and no more. A message is taken when its last entry was dealt with, and only then Envoy has
room for more: a log that comes too fast waits in Envoy, which drops what it has no room for, and counts that.

While Redis is away, settlements wait their turn (see `proxy/settlement`). Where too many do, nothing more is taken
until some have been sent.

Envoy tells each response at most once. What it drops, or what is lost with a process that is killed, leaves the
hold to its end, so the route should say `on_expiry: charge`. A process that leaves says so first, and reads and
settles all that Envoy had sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Final

from billing_core.errors import Conflict, Failure, InvalidInput, NotFound, Unavailable
from gateway.admission.deadline import deadline_in
from gateway.admission.hold import Holds
from gateway.edge.accesslog.cost import charge_of, evidence_of
from gateway.edge.accesslog.entry import LogEntry, entries_in, entry_of, may_settle
from gateway.edge.accesslog.terms import Terms, terms_in
from gateway.edge.grpc.stream import Stream
from gateway.edge.proxy.settlement import MOST_WAITING, Ending, Settlements, settlement_of

_AT_ONCE: Final = 32
_A_TURN: Final = 8
_WORTH: Final = 32
"""So many entries that settle nothing are as much work as one that does."""
_MOST_BYTES: Final = 2**26
"""In messages that wait, of all streams together: those of peers that come and go are no longer bounded by room."""
_PAUSE_S: Final = 0.05


class AccessLogDesk:
    """Takes messages; `keep` looks at them until it is cancelled, `stop` waits until all is dealt with."""

    def __init__(self, holds: Holds, settlements: Settlements, *, deadline_ms: int) -> None:
        self._holds = holds
        self._settlements = settlements
        self._deadline_ms = deadline_ms
        self._messages: deque[tuple[Stream, bytes]] = deque()
        self._waiting_bytes = self._looked = 0
        self._come = asyncio.Event()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._ending: set[asyncio.Task[None]] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._tally: Counter[str] = Counter()

    def read(self) -> dict[str, int]:
        """What became of entries, for telemetry."""
        return dict(self._tally)

    def take(self, stream: Stream, message: bytes) -> None:
        """A StreamAccessLogsMessage."""
        if self._waiting_bytes + len(message) > _MOST_BYTES:
            self._tally["dropped"] += 1
            stream.taken(message)
            return
        self._waiting_bytes += len(message)
        self._messages.append((stream, message))
        self._is_idle.clear()
        self._come.set()

    async def keep(self) -> None:
        """Deal with messages as they come."""
        while True:
            await self._come.wait()
            while self._messages:
                stream, message = self._messages.popleft()
                await self._deal(message)
                self._waiting_bytes -= len(message)
                stream.taken(message)
            self._come.clear()
            self._tell_idle()

    async def stop(self, grace_s: float) -> None:
        """Wait until all that was taken is dealt with."""
        try:
            async with asyncio.timeout(grace_s):
                await self._is_idle.wait()
        except TimeoutError:
            return

    async def _deal(self, message: bytes) -> None:
        """With all entries of a message."""
        try:
            entries = entries_in(message)
        except InvalidInput:
            self._tally["unread"] += 1
            return
        for entry in entries:
            is_ours = may_settle(entry)
            self._looked += _WORTH if is_ours else 1
            if self._looked > _A_TURN * _WORTH:
                self._looked = 0
                await asyncio.sleep(0)
            if is_ours:
                await self._settle(entry)
            else:
                self._tally["skipped"] += 1

    async def _settle(self, data: bytes) -> None:
        """Read an entry and begin to end its hold."""
        try:
            entry = entry_of(data)
            terms = terms_in(entry.settle) if entry is not None else None
        except InvalidInput:
            self._tally["unread"] += 1
            return
        if entry is None or terms is None:
            self._tally["skipped"] += 1
            return
        while self._settlements.waiting_count > MOST_WAITING - _AT_ONCE:  # noqa: ASYNC110 - Redis is away
            await asyncio.sleep(_PAUSE_S)
        await self._places.acquire()
        task = asyncio.create_task(self._end(entry, terms))
        self._ending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        self._places.release()
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self._ending and not self._messages and not self._come.is_set():
            self._is_idle.set()

    async def _end(self, entry: LogEntry, terms: Terms) -> None:
        """End a hold, and count how that went."""
        charge = charge_of(terms, entry)
        charges = None if charge is None else (charge,)
        body = b"" if charges is None else await self._evidence(entry, terms)
        try:
            await self._settlements.end(settlement_of(entry.hold_id, charges, body=body))
        except Unavailable:
            self._tally["waiting"] += 1
        except (NotFound, Conflict):
            self._tally["gone"] += 1
        except Failure:
            self._tally["failed"] += 1
        else:
            self._tally["released" if charges is None else "settled"] += 1

    async def _evidence(self, entry: LogEntry, terms: Terms) -> bytes:
        """What was seen of a response that did not come to its end; of a hold that cannot be read, nothing."""
        if entry.ending is Ending.WHOLE:
            return b""
        try:
            placed = await self._holds.placed(entry.hold_id, deadline=deadline_in(self._deadline_ms))
        except Failure:
            return b""
        return b"" if placed is None else evidence_of(terms, entry, placed=placed)
