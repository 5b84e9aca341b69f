"""Transcribe: stream entries become rows, without touching anything.

One entry of the gate becomes one row of usage per charge and one movement per grant that paid; an event that a
client sent becomes one row of usage; a lapse becomes a movement. An entry is written whole or parked whole: one
that cannot be read, or that moves a grant which does not exist, is kept with all its fields and its reason, and the
entries behind it go on. Parked nanos are missing from the books: reconcile names them until somebody has looked.

This is the loop that decides how many events a second a flusher can write, so it makes tuples straight from bytes;
the readable decoder of the same entry is `contract.usage_event.decode_entry`, and a test holds the two equal.

Worked example: `k debit, q "374 44", c "935000 440000", m "gra_1=1000000 gra_2=375000"` with features `input` and
`output` becomes two usage rows (374 units for 935,000 nanos, 44 for 440,000) and two movements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from billing_core.adapters.usage_stream import RawEntry, Reading
from billing_core.contract.usage_event import EventBody
from billing_core.store.grant import GrantMove
from billing_core.values.clock import EPOCH

GrantKey: TypeAlias = tuple[str, str]
"""Tenant and grant."""

Place: TypeAlias = tuple[int, int, int]
"""Shard, and the two halves of the stream id."""

Row: TypeAlias = tuple[object, ...]

_GATE_KINDS = frozenset({b"debit", b"settle"})
_BODY = msgspec.msgpack.Decoder(EventBody)
_ENTRIES_AT_ONCE = 250
_REASON_LENGTH = 500


class Transcript:
    """Rows without their last column (`recorded_at`), and what they take out of each grant."""

    def __init__(self, strangers: Collection[GrantKey] = ()) -> None:
        self.usage: list[Row] = []
        self.movements: list[Row] = []
        self.parked: list[Row] = []
        self.months: dict[tuple[int, int], datetime] = {}
        self._strangers = strangers
        self._taken: dict[GrantKey, list[Any]] = {}
        self._instants: dict[bytes, datetime] = {}

    def grants(self) -> set[GrantKey]:
        """The grants that something is taken out of."""
        return set(self._taken)

    def moves(self) -> list[GrantMove]:
        """What is taken out of each grant."""
        return [
            GrantMove(
                tenant_id=tenant_id, grant_id=grant_id, spent_nanos=spent, lapsed_nanos=lapsed, last_at=last_at
            )
            for (tenant_id, grant_id), (spent, lapsed, last_at) in self._taken.items()
        ]

    def add(self, shard: int, entries: Iterable[RawEntry]) -> None:
        """Transcribe entries of one shard, in their order."""
        for stream_id, fields in entries:
            ms, _, seq = stream_id.partition(b"-")
            place = (shard, int(ms), int(seq))
            try:
                self._add_one(place, dict(zip(fields[::2], fields[1::2], strict=True)))
            except (KeyError, ValueError, OverflowError, msgspec.MsgspecError) as fault:
                self.park(place, fields, reason=f"{type(fault).__name__}: {fault}")

    def park(self, place: Place, fields: Sequence[bytes], *, reason: str) -> None:
        """Keep an entry out of the way, whole."""
        self.parked.append((*place, _tenant_in(fields), reason[:_REASON_LENGTH], fields))

    def _add_one(self, place: Place, fields: dict[bytes, bytes]) -> None:
        """Add one entry. All that may fail stands before the first append, so that no entry is half written."""
        body, kind, stamp = _BODY.decode(fields[b"b"]), fields[b"k"], fields[b"at"]
        at = self._instants.get(stamp)
        if at is None:
            at = self._instants[stamp] = _instant(int(stamp))
        if kind == b"event":
            self._add_client_event(place, body, at)
        elif kind in _GATE_KINDS:
            parts, currency = _parts(fields[b"m"]), fields[b"w"].decode()
            self._check_grants(body.tenant_id, parts)
            rows = _charge_rows(place, body, fields, (at, currency))
            if sum(nanos for _, nanos in parts) != sum(row[_CHARGED] for row in rows):
                raise ValueError("it charges another sum than it moves")
            self.usage += rows
            self.months[at.year, at.month] = at
            self._add_movements(place, body, parts, (at, kind.decode(), currency))
        elif kind == b"lapse":
            parts, currency = _parts(fields[b"m"]), fields[b"w"].decode()
            self._check_grants(body.tenant_id, parts)
            self._add_movements(place, body, parts, (at, "lapse", currency))
        else:
            raise ValueError(f"entries of kind {kind!r} are not known here")

    def _check_grants(self, tenant_id: str, parts: list[tuple[str, int]]) -> None:
        if self._strangers and any((tenant_id, grant_id) in self._strangers for grant_id, _ in parts):
            raise ValueError("it moves a grant that does not exist")

    def _add_client_event(self, place: Place, body: EventBody, at: datetime) -> None:
        event_at = _instant(body.event_at_ms)
        self.months[event_at.year, event_at.month] = event_at
        self.usage.append(
            (
                *(*place, 0, body.tenant_id, body.customer_id, body.event_id, body.name, "client", event_at, at),
                *(_quantity(body.properties), body.properties, "", 0, 0, body.key_hint),
            )
        )

    def _add_movements(
        self, place: Place, body: EventBody, parts: list[tuple[str, int]], said: tuple[datetime, str, str]
    ) -> None:
        at, kind, currency = said
        column = 1 if kind == "lapse" else 0
        for part, (grant_id, nanos) in enumerate(parts):
            self.movements.append(
                (
                    *(*place, part, body.tenant_id, body.customer_id, grant_id, currency, kind, nanos),
                    *(body.event_id, at),
                )
            )
            taken = self._taken.setdefault((body.tenant_id, grant_id), [0, 0, at])
            taken[column] += nanos
            taken[2] = at


_CHARGED = 14
"""Where `charged_nanos` stands in a row of usage."""


def _charge_rows(
    place: Place, body: EventBody, fields: dict[bytes, bytes], said: tuple[datetime, str]
) -> list[tuple[Any, ...]]:
    at, currency = said
    columns = fields[b"q"].split(), fields[b"c"].split(), fields[b"u"].split()
    return [
        (
            *(*place, part, body.tenant_id, body.customer_id, body.event_id, feature, "gate", at, at),
            *(int(quantity), None, currency, int(charged), int(lost), body.key_hint),
        )
        for part, (feature, quantity, charged, lost) in enumerate(zip(body.features, *columns, strict=True))
    ]


def _tenant_in(fields: Sequence[bytes]) -> str:
    """Whose a broken entry is, where that much can be read."""
    for name, value in zip(fields[::2], fields[1::2], strict=False):
        if name == b"b":
            try:
                return _BODY.decode(value).tenant_id
            except msgspec.MsgspecError:
                return ""
    return ""


def _parts(text: bytes) -> list[tuple[str, int]]:
    """`gra_1=5 gra_2=7` as pairs. Raises: ValueError where a part is no pair or takes nothing."""
    parts: list[tuple[str, int]] = []
    for pair in text.split():
        grant_id, _, nanos = pair.partition(b"=")
        parts.append((grant_id.decode(), int(nanos)))
    return parts


def _quantity(properties: dict[str, str]) -> Decimal:
    """The quantity that a client says, 1 where it says none: an event is one of something."""
    text = properties.get("quantity", "")
    is_plain = text.isascii() and text.replace(".", "", 1).isdigit()
    return Decimal(text) if is_plain else Decimal(1)


def _instant(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


async def transcribe(readings: Sequence[Reading], *, strangers: Collection[GrantKey] = ()) -> Transcript:
    """The rows of what was read; others on the event loop get their turn about every millisecond."""
    transcript = Transcript(strangers)
    for reading in readings:
        for first in range(0, len(reading.entries), _ENTRIES_AT_ONCE):
            transcript.add(reading.shard, reading.entries[first : first + _ENTRIES_AT_ONCE])
            await asyncio.sleep(0)
    return transcript
