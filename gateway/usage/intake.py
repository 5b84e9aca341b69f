"""The intake: events in, one answer each, in their order.

All events of a request are checked first and then sent in one turn. Each is written at most once: its id is marked
in Redis, in the same step that appends it to the stream, for longer than an event of that age would be accepted,
so that the same id can never pass twice. An id that comes again with the same content is a duplicate, which is
success; with other content it is refused.

The mark lives for the greatest age plus twice the skew: an event may come from the future by one skew, and be sent
again to another gateway whose clock is behind by one more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from billing_core.contract.keys import epoch_key, event_id_key, shard_of_event, stream_key
from billing_core.errors import Failure, IdempotencyConflict, InvalidInput, InvariantBroken, NotFound
from billing_core.values.clock import Clock, to_ms
from gateway.settings import GatewaySettings
from gateway.state.directory import CustomerNote, Directory
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply, Reply
from gateway.usage.event import (
    Bounds,
    Event,
    body_of,
    check_meters,
    check_time,
    digest_of_event,
    id_in,
    read_event,
)
from gateway.usage.recall import Recall


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
    """What is known of the customers that one request names, and of whom it was asked anew."""

    def __init__(self, tenant_id: str, notes: dict[str, CustomerNote | None]) -> None:
        self.tenant_id = tenant_id
        self.notes = notes
        self.fresh: set[str] = set()


class _Sound(msgspec.Struct, frozen=True, kw_only=True):
    """An event that may be sent, and how far its tenant's clock is ahead."""

    event: Event
    clock_offset_ms: int


_RECEIPTS = {1: Receipt.ACCEPTED, 0: Receipt.DUPLICATE}
_CONFLICT = -1


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

    async def take(self, tenant_id: str, raws: Sequence[bytes]) -> list[Taken]:
        """Take all events that are sound; one answer each, in their order.

        Raises: Unavailable where Redis cannot be asked who the customers are or what the meters read.
        """
        events = [_read(raw) for raw in raws]
        checked = await self._check(tenant_id, events)
        shards = [
            shard_of_event(tenant_id, one.event.event_id) if isinstance(one, _Sound) else 0 for one in checked
        ]
        replies = await asyncio.gather(
            *(
                self._send(tenant_id, one, shard=shard)
                for one, shard in zip(checked, shards, strict=True)
                if isinstance(one, _Sound)
            ),
            return_exceptions=True,
        )
        coming = iter(replies)
        answers = [
            _taken(one.event, next(coming)) if isinstance(one, _Sound) else _rejected(id_in(raw), one)
            for one, raw in zip(checked, raws, strict=True)
        ]
        for answer, shard in zip(answers, shards, strict=True):
            self.receipts[answer.receipt.value] += 1
            if self._recall is not None and answer.receipt is Receipt.ACCEPTED:
                self._recall.note(shard, f"{tenant_id}:{answer.event_id}")
        return answers

    async def _check(self, tenant_id: str, events: list[Event | Failure]) -> list[_Sound | Failure]:
        """Each event, or the rule of meters, customers or time that it breaks."""
        meters = await self._directory.tenant_meters(tenant_id)
        names = sorted({event.customer_id for event in events if isinstance(event, Event)})
        notes = await asyncio.gather(*(self._directory.customer(tenant_id, name) for name in names))
        roll = _Roll(tenant_id, dict(zip(names, notes, strict=True)))
        checked: list[_Sound | Failure] = []
        for event in events:
            if not isinstance(event, Event):
                checked.append(event)
                continue
            try:
                check_meters(event, meters)
                note = await self._check_time(event, roll)
                checked.append(_Sound(event=event, clock_offset_ms=note.clock_offset_ms))
            except (InvalidInput, NotFound) as failure:
                checked.append(failure)
        return checked

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

    def _send(self, tenant_id: str, sound: _Sound, *, shard: int) -> asyncio.Future[Reply]:
        """Send one event with this turn's others; what cannot be sent has failed already."""
        event = sound.event
        keys = (epoch_key(shard), stream_key(shard), event_id_key(tenant_id, event.event_id, shard=shard))
        args = (digest_of_event(event), self._window_ms, body_of(event, tenant_id), sound.clock_offset_ms)
        try:
            return self._bulk.run("ingest", keys, args=args, deadline_ms=self._deadline_ms)
        except Failure as failure:
            future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            future.set_exception(failure)
            return future


def _read(raw: bytes) -> Event | Failure:
    try:
        return read_event(raw)
    except InvalidInput as failure:
        return failure


def _taken(event: Event, reply: Reply | BaseException) -> Taken:
    if isinstance(reply, ErrorReply):
        return _rejected(event.event_id, failure_of(reply))
    if isinstance(reply, Failure):
        return _rejected(event.event_id, reply)
    if isinstance(reply, BaseException):
        raise reply
    if reply == _CONFLICT:
        conflict = IdempotencyConflict("this id came before with other content", field="id")
        return _rejected(event.event_id, conflict)
    receipt = _RECEIPTS.get(reply) if isinstance(reply, int) else None
    if receipt is None:
        raise InvariantBroken(f"an ingestion's reply cannot be read: {reply!r}")
    return Taken(event_id=event.event_id, receipt=receipt)


def _rejected(event_id: str | None, failure: Failure) -> Taken:
    return Taken(event_id=event_id, receipt=Receipt.REJECTED, failure=failure)
