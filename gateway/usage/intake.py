"""The intake: events in, one answer each, in their order.

All events of a request are checked first and then sent in one turn, those of one shard in one call. Each is written
at most once: its id is marked in Redis, in the same step that appends it to the stream, for longer than an event
of that age would be accepted, so that the same id can never pass twice. An id that comes again with the same
content is a duplicate, which is success; with other content it is refused.

The mark lives for the greatest age plus twice the skew: an event may come from the future by one skew, and be sent
again to another gateway whose clock is behind by one more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from billing_core.contract.keys import epoch_key, event_ids_key, shards_of_events, stream_key
from billing_core.contract.usage_event import encode_client_body
from billing_core.errors import (
    Failure,
    IdempotencyConflict,
    InvalidInput,
    InvariantBroken,
    NotFound,
    TooLarge,
)
from billing_core.values.clock import Clock, to_ms
from billing_core.values.ids import is_code
from gateway.settings import GatewaySettings
from gateway.state.directory import CustomerNote, Directory, Meters
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply, Reply, Word
from gateway.usage.array import PlainEvent, Press
from gateway.usage.batch import OWN, Batch, Form
from gateway.usage.event import Bounds, Event, check_meters, check_time, digest_of, record_of
from gateway.usage.recall import Recall

MOST_EVENTS: Final = 1_000
_MOST_IN_CALL: Final = 100
"""So many events keep the server busy for no longer than a few decisions do."""
_CHECKED_AT_ONCE: Final = 250


class Receipt(StrEnum):
    """What became of an event."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one event; `failure` says why it was rejected."""

    event_id: str | None
    receipt: Receipt
    failure: Failure | None = None


class _Roll:
    """How one request is written, what is known of the customers that it names, and of whom it was asked anew."""

    def __init__(self, tenant_id: str, meters: Meters, *, form: Form) -> None:
        self.tenant_id = tenant_id
        self.meters = meters
        self.form = form
        self.notes: dict[str, CustomerNote | None] = {}
        self.fresh: set[str] = set()


class _Sound(msgspec.Struct, frozen=True, gc=False):
    """An event that may be sent, and how far its tenant's clock is ahead."""

    event_id: str
    record: bytes
    clock_offset_ms: int


class _Call(NamedTuple):
    """Events of one shard and one clock, each with its place in the request."""

    tenant_id: str
    shard: int
    offset_ms: int
    group: Sequence[tuple[int, _Sound]]


_RECEIPTS = {ord("a"): Receipt.ACCEPTED, ord("d"): Receipt.DUPLICATE}
_CONFLICT = ord("c")
_LETTERS = frozenset({*_RECEIPTS, _CONFLICT})


class Intake:
    """Takes client-sent events into the stream."""

    def __init__(
        self,
        bulk: Link,
        directory: Directory,
        *,
        settings: GatewaySettings,
        clock: Clock,
        recall: Recall | None = None,
    ) -> None:
        self._recall = recall
        self._bulk = bulk
        self._directory = directory
        self._deadline_ms = settings.bulk_deadline_ms
        self._bounds = Bounds(max_age_ms=settings.max_event_age_ms, max_skew_ms=settings.max_event_skew_ms)
        self._window_ms = settings.max_event_age_ms + 2 * settings.max_event_skew_ms
        self._clock = clock
        self.receipts = dict.fromkeys((receipt.value for receipt in Receipt), 0)

    async def take_one(self, tenant_id: str, raw: bytes, *, form: Form = OWN) -> Taken:
        """Take an event if it is sound.

        Raises: Unavailable where Redis cannot be asked who the customer is or what the meters read.
        """
        roll = _Roll(tenant_id, await self._directory.tenant_meters(tenant_id), form=form)
        (taken,) = await self._send_all(await self._check_each([raw], roll), [raw], roll=roll)
        return taken

    async def take_all(self, tenant_id: str, batch: Batch) -> list[Taken]:
        """Take all events of a batch that are sound; one answer each, in their order.

        Raises: InvalidInput or TooLarge where it is none of so many; Unavailable as `take_one`.
        """
        plain, raws = batch.plain, list[bytes]()
        if plain is None:
            raws = batch.cut()
        if len(plain or raws) > MOST_EVENTS:
            raise TooLarge(f"must have at most {MOST_EVENTS} entries", field="body")
        roll = _Roll(tenant_id, await self._directory.tenant_meters(tenant_id), form=batch.form)
        if plain is None:
            return await self._send_all(await self._check_each(raws, roll), raws, roll=roll)
        pressed = await self._press(plain, roll)
        odd = [place for place, one in enumerate(pressed) if one is None]
        raws = batch.cut() if odd else []
        closer = iter(await self._check_each([raws[place] for place in odd], roll) if odd else ())
        return await self._send_all([one or next(closer) for one in pressed], raws, roll=roll)

    async def _press(self, events: Sequence[PlainEvent], roll: _Roll) -> list[_Sound | None]:
        """Each plain event, but for those that have to be looked at closer."""
        await self._note(roll, {one.customer for one in events})
        offsets_ms = {name: note.clock_offset_ms for name, note in roll.notes.items() if note is not None}
        press = Press(roll.meters, offsets_ms, now_ms=to_ms(self._clock()), bounds=self._bounds)
        pressed: list[_Sound | None] = []
        for first in range(0, len(events), _CHECKED_AT_ONCE):
            if first:
                await asyncio.sleep(0)  # others on the event loop have their turn
            pressed += [
                _Sound(one.id, record, offsets_ms[one.customer]) if (record := press.record(one)) else None
                for one in events[first : first + _CHECKED_AT_ONCE]
            ]
        return pressed

    async def _check_each(self, raws: Sequence[bytes], roll: _Roll) -> Sequence[_Sound | Failure]:
        """Each event, or the rule of its own, of meters, customers or time that it breaks."""
        events = [_read(raw, roll.form) for raw in raws]
        await self._note(roll, {event.customer_id for event in events if isinstance(event, Event)})
        checked: list[_Sound | Failure] = []
        for event in events:
            if not isinstance(event, Event):
                checked.append(event)
                continue
            try:
                check_meters(event, roll.meters)
                note = await self._check_time(event, roll)
                checked.append(_Sound(event.event_id, record_of(event), note.clock_offset_ms))
            except (InvalidInput, NotFound) as failure:
                checked.append(failure)
        return checked

    async def _note(self, roll: _Roll, names: Iterable[str]) -> None:
        """Find out about these customers; what can be no customer's name is not asked for."""
        unknown: list[str] = []
        for name in names:
            if name not in roll.notes:
                roll.notes[name] = note = self._directory.customer_at_hand(roll.tenant_id, name)
                if note is None and is_code(name):
                    unknown.append(name)
        found = await asyncio.gather(*(self._directory.customer(roll.tenant_id, name) for name in unknown))
        roll.notes.update(zip(unknown, found, strict=True))

    async def _check_time(self, event: Event, roll: _Roll) -> CustomerNote:
        """What is known of the event's customer, once the event's time fits its clock."""
        customer_id, now_ms = event.customer_id, to_ms(self._clock())
        note = roll.notes[customer_id]
        if note is None:
            raise NotFound("no such customer", field="customer")
        try:
            check_time(event, now_ms=now_ms + note.clock_offset_ms, bounds=self._bounds)
        except InvalidInput:  # the tenant's clock may have been moved on since it was remembered: look, once
            if customer_id in roll.fresh:
                raise
            roll.fresh.add(customer_id)
            roll.notes[customer_id] = await self._directory.customer(roll.tenant_id, customer_id, fresh=True)
            return await self._check_time(event, roll)
        return note

    async def _send_all(
        self, checked: Sequence[_Sound | Failure], raws: Sequence[bytes], *, roll: _Roll
    ) -> list[Taken]:
        """Send all that are sound, in one turn; events of one id are taken in their order."""
        answers: dict[int, Taken] = {}
        groups: dict[tuple[int, int], list[tuple[int, _Sound]]] = {}
        shards = shards_of_events(roll.tenant_id)
        for place, one in enumerate(checked):
            if isinstance(one, _Sound):
                shard = shards[crc32(one.event_id.encode()) % len(shards)]
                groups.setdefault((shard, one.clock_offset_ms), []).append((place, one))
            else:
                answers[place] = _rejected(roll.form.id_in(raws[place]), roll.form.failure(one))
        calls = [
            _Call(roll.tenant_id, shard, offset_ms, group[first : first + _MOST_IN_CALL])
            for (shard, offset_ms), group in groups.items()
            for first in range(0, len(group), _MOST_IN_CALL)
        ]
        replies = await asyncio.gather(*map(self._send, calls), return_exceptions=True)
        for call, reply in zip(calls, replies, strict=True):
            answers.update(_answers(call, reply))
            if self._recall is not None:
                for place, sound in call.group:
                    if answers[place].receipt is Receipt.ACCEPTED:
                        self._recall.note(call.shard, f"{call.tenant_id}:{sound.event_id}")
        for answer in answers.values():
            self.receipts[answer.receipt] += 1
        return [answers[place] for place in range(len(checked))]

    def _send(self, call: _Call) -> asyncio.Future[Reply]:
        """Send events with this turn's others; what cannot be sent has failed already."""
        tenant_id, shard, offset_ms, group = call
        keys = epoch_key(shard), stream_key(shard), event_ids_key(tenant_id, shard)
        args: list[Word] = [
            self._window_ms,
            offset_ms,
            encode_client_body(tenant_id, [one.record for _, one in group]),
        ]
        for _, one in group:
            args += one.event_id, digest_of(one.record)
        try:
            return self._bulk.run("ingest", keys, args=args, deadline_ms=self._deadline_ms)
        except Failure as failure:
            future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            future.set_exception(failure)
            return future


def _read(raw: bytes, form: Form) -> Event | Failure:
    try:
        return form.read(raw)
    except InvalidInput as failure:
        return failure


def _answers(call: _Call, reply: Reply | BaseException) -> Iterator[tuple[int, Taken]]:
    """The answer to each event of a call, with its place in the request."""
    if isinstance(reply, ErrorReply):
        reply = failure_of(reply)
    if isinstance(reply, Failure):
        for place, sound in call.group:
            yield place, _rejected(sound.event_id, reply)
        return
    if isinstance(reply, BaseException):
        raise reply
    letters = reply[0] if isinstance(reply, list) and len(reply) == 1 else b""
    if not isinstance(letters, bytes) or len(letters) != len(call.group) or not _LETTERS.issuperset(letters):
        raise InvariantBroken(f"an ingestion's reply cannot be read: {reply!r}")
    for (place, sound), letter in zip(call.group, letters, strict=True):
        if letter == _CONFLICT:
            conflict = IdempotencyConflict("this id came before with other content", field="id")
            yield place, _rejected(sound.event_id, conflict)
        else:
            yield place, Taken(event_id=sound.event_id, receipt=_RECEIPTS[letter])


def _rejected(event_id: str | None, failure: Failure) -> Taken:
    return Taken(event_id=event_id, receipt=Receipt.REJECTED, failure=failure)
