"""Transcribe: stream entries become rows, without touching anything.

One entry of the gate becomes one row of usage per charge and one movement per grant that paid; an event that a
client sent becomes one row of usage; a lapse becomes a movement, a repayment one for each grant that it touched;
what shadow mode did not refuse becomes rows of its own table. An entry is written whole or parked whole: one that
cannot be read, that moves a grant which does not exist, or whose charges are not its movements, currency by
currency, is kept with all its fields and its reason, and the entries behind it go on. Parked nanos are missing from
the books: reconcile names them until somebody has looked.

A movement is in the currency of its grant, which an entry does not say. Where all its charges are in one, it is
that one; the few entries with several wait for a second pass, in which the grants are known.

This is the loop that decides how many events a second a flusher can write, so it goes straight from bytes to the
bytes of COPY; the readable decoder of the same entry is `contract.usage_event.decode_entry`, and a test holds the
two equal. Rows lack their last column, `recorded_at`, which is known only when the batch's transaction is open.

Worked example: `k debit, q "374 44", c "935000 440000", m "gra_1=1000000 gra_2=375000"` with features `input` and
`output` becomes two usage rows (374 units for 935,000 nanos, 44 for 440,000) and two movements.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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

Currencies: TypeAlias = Mapping[GrantKey, str]
"""In which currency each grant is."""

Place: TypeAlias = tuple[int, int, int]
"""Shard, and the two halves of the stream id."""

_SHAPE = [b"k", b"b", b"at", b"q", b"c", b"u", b"s", b"m", b"w", b"e"]
_NUMBERED_SHAPE = [*_SHAPE, b"n"]
"""The fields of a gate's entry in the order of the scripts."""

_GATE_KINDS = frozenset({b"debit", b"settle"})
_MOVES_ONLY = frozenset({b"lapse", b"repay"})
_NO_CURRENCY = NO_CURRENCY.encode()
_FAULTS = (KeyError, ValueError, ArithmeticError, struct.error, msgspec.MsgspecError)
_BODY = msgspec.msgpack.Decoder(EventBody)
_PLACE = struct.Struct(">hiiiqiqii")
_AMOUNTS = struct.Struct(">iqiqiq")
_USAGE_FIELDS, _MOVEMENT_FIELDS = 20, 13
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


_Entry: TypeAlias = tuple[Place, EventBody, int, bytes, bytes, bytes]
"""What the rows of one entry have in common: place, body, instant in ms; and, encoded, owner, event id, instant."""

_Parts: TypeAlias = list[tuple[str, int, bytes]]
"""Grant, nanos and currency of each movement."""


def _nothing_taken(_: GrantKey) -> list[int]:
    return [0, 0, 0]


class Transcript:
    """Rows without their last column, and what they take out of each grant.

    `is_mixed`: an entry in several currencies was left out, because the currencies of its grants were not told.
    """

    def __init__(self, strangers: Collection[GrantKey] = (), *, currencies: Currencies | None = None) -> None:
        self.is_mixed = False
        self.shadows: list[tuple[object, ...]] = []
        self._currencies = currencies
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
                names = fields[::2]
                if names == _SHAPE:
                    self._add_charges(place, fields[1::2])
                elif names == _NUMBERED_SHAPE:
                    self._add_charges(place, fields[1:-2:2], number=fields[-1])
                else:
                    self._add_other(place, dict(zip(fields[::2], fields[1::2], strict=True)))
            except _FAULTS as fault:
                self.park(place, fields, reason=f"{type(fault).__name__}: {fault}")

    def park(self, place: Place, fields: Sequence[bytes], *, reason: str) -> None:
        """Keep an entry out of the way, whole."""
        self.parked.append((*place, _tenant_in(fields), reason[:_REASON_LENGTH], fields))

    def _add_charges(self, place: Place, values: Sequence[bytes], *, number: bytes = b"") -> None:
        """Add what the gate decided. All that may fail stands before the first append: no entry is half written."""
        kind, raw, stamp, quantities, costs, losses, rates, moved, currencies, _ = values
        if kind not in _GATE_KINDS:
            raise ValueError(f"entries of kind {kind!r} have no charges")
        entry = self._entry(place, raw, stamp=stamp, number=number)
        columns = zip(
            entry[1].features,
            quantities.split(),
            costs.split(),
            losses.split(),
            rates.split(),
            currencies.split(),
            strict=True,
        )
        rows, charged = self._charge_rows(entry, columns)
        parts = self._parts_of(entry[1], moved, charged=charged)
        if parts is not None:
            self._keep(entry, parts, kind=kind)
            self.usage += rows

    def _add_other(self, place: Place, values: Mapping[bytes, bytes]) -> None:
        """Add an entry that has no charges."""
        kind = values.get(b"k", b"")
        entry = self._entry(place, values[b"b"], stamp=values[b"at"], number=values.get(b"n", b""))
        if kind == b"event":
            self.usage.append(self._client_row(entry))
        elif kind == b"shadow":
            self.shadows += self._shadow_rows(entry, values)
        elif kind in _MOVES_ONLY:
            currency = values[b"w"]
            parts = [(grant_id, nanos, currency) for grant_id, nanos in _parts(values[b"m"])]
            if kind == b"repay" and sum(nanos for _, nanos, _ in parts):
                raise ValueError("a repayment takes as much as it gives")
            self._keep(entry, parts, kind=kind)
        else:
            raise ValueError(f"entries of kind {kind!r} are not known here")

    def _entry(self, place: Place, raw: bytes, *, stamp: bytes, number: bytes = b"") -> _Entry:
        body = _BODY.decode(raw)
        if number:
            body = msgspec.structs.replace(body, event_id=f"{body.event_id}.{int(number)}")
        owner = self._texts[body.tenant_id] + self._texts[body.customer_id]
        return place, body, int(stamp), owner, binary_copy.text(body.event_id), self._instants[int(stamp)]

    def _parts_of(self, body: EventBody, moved: bytes, *, charged: Mapping[bytes, int]) -> _Parts | None:
        """The movements of charges in their currencies; None where those of its grants must be known first."""
        pairs = _parts(moved)
        if len(charged) < 2:
            currency, total = next(iter(charged.items()), (b"", 0))
            found = sum(nanos for _, nanos in pairs)
            if found != total:
                raise ValueError(f"it charges {total} nanos and moves {found}")
            return [(grant_id, nanos, currency) for grant_id, nanos in pairs]
        if self._currencies is None:
            self.is_mixed = True
            for grant_id, _ in pairs:
                self._taken[body.tenant_id, grant_id]
            return None
        told = [
            (grant_id, nanos, self._currencies.get((body.tenant_id, grant_id), "").encode())
            for grant_id, nanos in pairs
        ]
        self._refuse_strangers(body, told)
        for currency, total in charged.items():
            found = sum(nanos for _, nanos, known in told if known == currency)
            if found != total:
                raise ValueError(f"it charges {total} nanos of {currency.decode()} and moves {found}")
        return told

    def _keep(self, entry: _Entry, parts: _Parts, *, kind: bytes) -> None:
        """Write the movements, and what they take out of each grant."""
        _, body, at_ms, *_ = entry
        self._refuse_strangers(body, parts)
        self.movements += self._movement_rows(entry, parts, kind=kind)
        column = _LAPSED if kind == b"lapse" else _SPENT
        for grant_id, nanos, _ in parts:
            taken = self._taken[body.tenant_id, grant_id]
            taken[column] += nanos
            taken[_LAST_MS] = at_ms

    def _refuse_strangers(self, body: EventBody, parts: _Parts) -> None:
        if self._strangers and any((body.tenant_id, grant_id) in self._strangers for grant_id, _, _ in parts):
            raise ValueError("it moves a grant that does not exist")

    def _charge_rows(
        self, entry: _Entry, charges: Iterable[tuple[str, bytes, bytes, bytes, bytes, bytes]]
    ) -> tuple[list[bytes], dict[bytes, int]]:
        """Rows of `store.usage.USAGE_COLUMNS`, and what is charged in each currency that is charged at all."""
        (shard, ms, seq), body, _, owner, event, at = entry
        hint, path = self._texts[body.key_hint], self._texts[body.path]
        rows: list[bytes] = []
        charged: dict[bytes, int] = {}
        for part, (feature, quantity, cost, loss, rate, currency) in enumerate(charges):
            nanos = int(cost)
            if nanos:
                charged[currency] = charged.get(currency, 0) + nanos
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
                        self._words[currency],
                        _AMOUNTS.pack(8, nanos, 8, int(loss), 8, int(rate)),
                        hint,
                        path,
                    )
                )
            )
        return rows, charged

    def _movement_rows(self, entry: _Entry, parts: _Parts, *, kind: bytes) -> list[bytes]:
        """Rows of `store.usage.MOVEMENT_COLUMNS`."""
        (shard, ms, seq), _, _, owner, event, at = entry
        return [
            b"".join(
                (
                    _PLACE.pack(_MOVEMENT_FIELDS, 4, shard, 8, ms, 8, seq, 4, part),
                    owner,
                    self._texts[grant_id],
                    self._words[currency],
                    self._words[kind],
                    binary_copy.int8(nanos),
                    event,
                    at,
                )
            )
            for part, (grant_id, nanos, currency) in enumerate(parts)
        ]

    def _client_row(self, entry: _Entry) -> bytes:
        """A row of `store.usage.USAGE_COLUMNS`; an event that says no quantity is one of something."""
        (shard, ms, seq), body, _, owner, event, at = entry
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
                _AMOUNTS.pack(8, 0, 8, 0, 8, 0),
                self._texts[body.key_hint],
                self._texts[body.path],
            )
        )

    def _shadow_rows(self, entry: _Entry, values: Mapping[bytes, bytes]) -> list[tuple[object, ...]]:
        """Rows of `store.usage.SHADOW_COLUMNS`."""
        place, body, at_ms, *_ = entry
        decided_at, reason, level = _datetime(at_ms), values[b"r"].decode(), values[b"l"].decode()
        charges = zip(body.features, values[b"q"].split(), strict=True)
        return [
            (
                *(*place, part, body.tenant_id, body.customer_id, body.event_id),
                *(feature, int(quantity), decided_at, reason, level, body.path, body.key_hint),
            )
            for part, (feature, quantity) in enumerate(charges)
        ]

    def _instant(self, at_ms: int) -> bytes:
        """Encode an instant, and note its month."""
        at = _datetime(at_ms)
        self.months[at.year, at.month] = at
        return binary_copy.instant(at)


def _word(raw: bytes) -> bytes:
    return binary_copy.text("" if raw == _NO_CURRENCY else raw.decode())


def _parts(text: bytes) -> list[tuple[str, int]]:
    """`gra_1=5 gra_2=7` as pairs."""
    parts: list[tuple[str, int]] = []
    for pair in text.split():
        grant_id, _, digits = pair.partition(b"=")
        parts.append((grant_id.decode(), int(digits)))
    return parts


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


async def transcribe(
    readings: Sequence[Reading], *, strangers: Collection[GrantKey] = (), currencies: Currencies | None = None
) -> Transcript:
    """The rows of what was read; others on the event loop get their turn about every millisecond."""
    transcript = Transcript(strangers, currencies=currencies)
    for reading in readings:
        for first in range(0, len(reading.entries), _ENTRIES_AT_ONCE):
            transcript.add(reading.shard, reading.entries[first : first + _ENTRIES_AT_ONCE])
            await asyncio.sleep(0)
    return transcript
