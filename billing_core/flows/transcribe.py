"""Transcribe: stream entries become rows, without touching anything.

One entry of the gate becomes one row of usage per charge and one movement per grant that paid; an event that a
client sent becomes one row of usage; a lapse becomes a movement, and a repayment becomes one out of the grant that
repays and one below zero for each overdraft that gets back. An entry is written whole or parked whole: one that
cannot be read, or that moves a grant which does not exist, is kept with all its fields and its reason, and the
entries behind it go on. Parked nanos are missing from the books: reconcile names them until somebody has looked.

This is the loop that decides how many events a second a flusher can write, so it goes straight from bytes to the
bytes of COPY; the readable decoder of the same entry is `contract.usage_event.decode_entry`, and a test holds the
two equal. Rows lack their last column, `recorded_at`, which is known only when the batch's transaction is open.

Worked example: `k debit, q "374 44", c "935000 440000", m "gra_1=1000000 gra_2=375000"` with features `input` and
`output` becomes two usage rows (374 units for 935,000 nanos, 44 for 440,000) and two movements.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeAlias, TypeVar

import msgspec

from billing_core.adapters.usage_stream import RawEntry, Reading
from billing_core.contract.usage_event import NO_CURRENCY, EventBody
from billing_core.store import binary_copy
from billing_core.store.binary_copy import NULL
from billing_core.store.money.grant import GrantMove
from billing_core.values.clock import EPOCH

GrantKey: TypeAlias = tuple[str, str]
"""Tenant and grant."""

Place: TypeAlias = tuple[int, int, int]
"""Shard, and the two halves of the stream id."""

_SHAPE = [b"k", b"b", b"at", b"q", b"c", b"u", b"s", b"m", b"w", b"e"]
"""The fields of a gate's entry in the order of the scripts."""

_GATE_KINDS = frozenset({b"debit", b"settle"})
_BARE_KINDS = frozenset({b"lapse", b"repay"})
_FAULTS = (ValueError, ArithmeticError, struct.error, msgspec.MsgspecError)
_BODY = msgspec.msgpack.Decoder(EventBody)
_PLACE = struct.Struct(">hiiiqiqii")
_TWO_AMOUNTS = struct.Struct(">iqiq")
_USAGE_FIELDS, _MOVEMENT_FIELDS = 18, 13
_GATE, _CLIENT, _NO_TEXT = map(binary_copy.text, ("gate", "client", ""))
_SPENT, _LAPSED, _LAST_MS = range(3)
_ENTRIES_AT_ONCE = 250
_REASON_LENGTH = 500

K = TypeVar("K")
V = TypeVar("V")


class Memory(dict[K, V], Generic[K, V]):
    """What was made of a key before; made where it is missing."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make

    def __missing__(self, key: K) -> V:
        made = self[key] = self._make(key)
        return made


_Entry: TypeAlias = tuple[Place, EventBody, bytes, bytes, bytes, bytes]
"""What the rows of one entry have in common: place and body; and, encoded, owner, event id, instant, currency."""


def _nothing_taken(_: GrantKey) -> list[int]:
    return [0, 0, 0]


class Transcript:
    """Rows without their last column, and what they take out of each grant."""

    def __init__(self, strangers: Collection[GrantKey] = ()) -> None:
        self.usage: list[bytes] = []
        self.movements: list[bytes] = []
        self.parked: list[tuple[object, ...]] = []
        self.months: dict[tuple[int, int], datetime] = {}
        self._strangers = strangers
        self._taken: Memory[GrantKey, list[int]] = Memory(_nothing_taken)
        self._texts: Memory[str, bytes] = Memory(binary_copy.text)
        self._words: Memory[bytes, bytes] = Memory(_word)
        self._instants: Memory[int, bytes] = Memory(self._instant)

    def grants(self) -> set[GrantKey]:
        """The grants that something is taken out of."""
        return set(self._taken)

    def moves(self) -> list[GrantMove]:
        """What is taken out of each grant."""
        return [
            GrantMove(
                tenant_id=tenant_id,
                grant_id=grant_id,
                spent_nanos=taken[_SPENT],
                lapsed_nanos=taken[_LAPSED],
                last_at=_datetime(taken[_LAST_MS]),
            )
            for (tenant_id, grant_id), taken in self._taken.items()
        ]

    def add(self, shard: int, entries: Iterable[RawEntry]) -> None:
        """Transcribe entries of one shard, in their order."""
        for stream_id, fields in entries:
            ms, _, seq = stream_id.partition(b"-")
            place = (shard, int(ms), int(seq))
            try:
                self._add_one(place, fields[1::2] if fields[::2] == _SHAPE else _in_shape(fields))
            except _FAULTS as fault:
                self.park(place, fields, reason=f"{type(fault).__name__}: {fault}")

    def park(self, place: Place, fields: Sequence[bytes], *, reason: str) -> None:
        """Keep an entry out of the way, whole."""
        self.parked.append((*place, _tenant_in(fields), reason[:_REASON_LENGTH], fields))

    def _add_one(self, place: Place, values: Sequence[bytes]) -> None:
        """Add one entry. All that may fail stands before the first append, so that no entry is half written."""
        kind, raw, stamp, quantities, costs, losses, _, moved, currencies, _ = values
        currency = _currency(currencies)
        body, at_ms = _BODY.decode(raw), int(stamp)
        entry = (
            place,
            body,
            self._texts[body.tenant_id] + self._texts[body.customer_id],
            binary_copy.text(body.event_id),
            self._instants[at_ms],
            self._words[currency],
        )
        if kind == b"event":
            self.usage.append(self._client_row(entry))
            return
        parts, total = _parts(moved)
        if self._strangers and any((body.tenant_id, grant_id) in self._strangers for grant_id, _ in parts):
            raise ValueError("it moves a grant that does not exist")
        rows: list[bytes] = []
        if kind in _GATE_KINDS:
            charges = zip(body.features, quantities.split(), costs.split(), losses.split(), strict=True)
            rows, charged = self._charge_rows(entry, charges)
            if charged != total:
                raise ValueError(f"it charges {charged} nanos and moves {total}")
        elif kind not in _BARE_KINDS:
            raise ValueError(f"entries of kind {kind!r} are not known here")
        movements = self._movement_rows(entry, parts, kind=kind)
        self.usage += rows
        self.movements += movements
        column = _LAPSED if kind == b"lapse" else _SPENT
        for grant_id, nanos in parts:
            taken = self._taken[body.tenant_id, grant_id]
            taken[column] += nanos
            taken[_LAST_MS] = at_ms

    def _charge_rows(
        self, entry: _Entry, charges: Iterable[tuple[str, bytes, bytes, bytes]]
    ) -> tuple[list[bytes], int]:
        """Rows of `store.usage.USAGE_COLUMNS`, and what is charged in all."""
        (shard, ms, seq), body, owner, event, at, currency = entry
        rows: list[bytes] = []
        total = 0
        for part, (feature, quantity, cost, loss) in enumerate(charges):
            charged = int(cost)
            total += charged
            rows.append(
                b"".join(
                    (
                        _PLACE.pack(_USAGE_FIELDS, 4, shard, 8, ms, 8, seq, 4, part),
                        owner,
                        event,
                        self._texts[feature],
                        _GATE,
                        at,
                        at,
                        binary_copy.numeric(quantity.decode()),
                        NULL,
                        currency,
                        _TWO_AMOUNTS.pack(8, charged, 8, int(loss)),
                        self._texts[body.key_hint],
                    )
                )
            )
        return rows, total

    def _movement_rows(self, entry: _Entry, parts: list[tuple[str, int]], *, kind: bytes) -> list[bytes]:
        """Rows of `store.usage.MOVEMENT_COLUMNS`."""
        (shard, ms, seq), _, owner, event, at, currency = entry
        return [
            b"".join(
                (
                    _PLACE.pack(_MOVEMENT_FIELDS, 4, shard, 8, ms, 8, seq, 4, part),
                    owner,
                    self._texts[grant_id],
                    currency,
                    self._words[kind],
                    binary_copy.int8(nanos),
                    event,
                    at,
                )
            )
            for part, (grant_id, nanos) in enumerate(parts)
        ]

    def _client_row(self, entry: _Entry) -> bytes:
        """A row of `store.usage.USAGE_COLUMNS`; an event that says no quantity is one of something."""
        (shard, ms, seq), body, owner, event, at, _ = entry
        said = body.properties.get("quantity", "")
        is_plain = said.isascii() and said.replace(".", "", 1).isdigit()
        return b"".join(
            (
                _PLACE.pack(_USAGE_FIELDS, 4, shard, 8, ms, 8, seq, 4, 0),
                owner,
                event,
                self._texts[body.name],
                _CLIENT,
                self._instants[body.event_at_ms],
                at,
                binary_copy.numeric(said if is_plain else "1"),
                binary_copy.jsonb(body.properties),
                _NO_TEXT,
                _TWO_AMOUNTS.pack(8, 0, 8, 0),
                self._texts[body.key_hint],
            )
        )

    def _instant(self, at_ms: int) -> bytes:
        """Encode an instant, and note its month."""
        at = _datetime(at_ms)
        self.months[at.year, at.month] = at
        return binary_copy.instant(at)


def _currency(column: bytes) -> bytes:
    """The one currency that a row's charges are priced in; empty where nothing is."""
    named = set(column.split()) - {NO_CURRENCY.encode()}
    if len(named) > 1:
        raise ValueError("its charges are priced in several currencies")
    return named.pop() if named else b""


def _word(raw: bytes) -> bytes:
    return binary_copy.text(raw.decode())


def _in_shape(fields: Sequence[bytes]) -> list[bytes]:
    """The values of an entry whose fields are not those of a gate's entry: empty where one is missing."""
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return [named.get(name, b"") for name in _SHAPE]


def _parts(text: bytes) -> tuple[list[tuple[str, int]], int]:
    """`gra_1=5 gra_2=7` as pairs, and their sum."""
    parts: list[tuple[str, int]] = []
    total = 0
    for pair in text.split():
        grant_id, _, digits = pair.partition(b"=")
        nanos = int(digits)
        total += nanos
        parts.append((grant_id.decode(), nanos))
    return parts, total


def _tenant_in(fields: Sequence[bytes]) -> str:
    """Whose a broken entry is, where that much can be read."""
    for name, value in zip(fields[::2], fields[1::2], strict=False):
        if name == b"b":
            try:
                return _BODY.decode(value).tenant_id.replace("\x00", "")
            except msgspec.MsgspecError:
                return ""
    return ""


def _datetime(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


async def transcribe(readings: Sequence[Reading], *, strangers: Collection[GrantKey] = ()) -> Transcript:
    """The rows of what was read; others on the event loop get their turn about every millisecond."""
    transcript = Transcript(strangers)
    for reading in readings:
        for first in range(0, len(reading.entries), _ENTRIES_AT_ONCE):
            transcript.add(reading.shard, reading.entries[first : first + _ENTRIES_AT_ONCE])
            await asyncio.sleep(0)
    return transcript
