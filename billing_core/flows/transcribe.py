"""Transcribe: stream entries become rows, without touching anything.

One entry of the gate becomes one row of usage per charge and one movement per grant that paid; events that clients
sent become one row of usage each; a lapse becomes a movement, a repayment one for each grant that it touched; what
shadow mode did not refuse becomes rows of its own table. An entry is written whole or parked whole: one that cannot
be read, that moves a grant which does not exist, or whose charges are not its movements, currency by currency, is
kept with all its fields and its reason, and the entries behind it go on. Parked nanos are missing from the books:
reconcile names them until somebody has looked.

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
from datetime import datetime
from functools import lru_cache
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from billing_core.adapters.usage_stream import RawEntry, Reading
from billing_core.contract.usage_event import NO_CURRENCY, EventBody, parted_body, rest_of_body
from billing_core.flows.client_row import client_rows, first_of
from billing_core.store import binary_copy
from billing_core.store.binary_copy import NULL, sized
from billing_core.store.money.grant import GrantMove
from billing_core.values.clock import from_ms

GrantKey: TypeAlias = tuple[str, str]
"""Tenant and grant."""

Currencies: TypeAlias = Mapping[GrantKey, str]
"""In which currency each grant is."""

Place: TypeAlias = tuple[int, int, int]
"""Shard, and the two halves of the stream id."""

_SHAPE = [b"k", b"b", b"at", b"q", b"c", b"u", b"s", b"m", b"w", b"e"]
_NUMBERED_SHAPE = [*_SHAPE, b"n"]
"""The fields of a gate's entry in the order of the scripts."""

_CLIENT_EVENTS = [b"k", b"event"]
_GATE_KINDS = frozenset({b"debit", b"settle"})
_MOVES_ONLY = frozenset({b"lapse", b"repay"})
_NO_CURRENCY = NO_CURRENCY.encode()
_FAULTS = (KeyError, ValueError, ArithmeticError, struct.error, msgspec.MsgspecError)
_BODY = msgspec.msgpack.Decoder(EventBody)
_PLACE = struct.Struct(">iiiqiq")
_PART = struct.Struct(">ii")
_NANOS = struct.Struct(">iq")
_AMOUNTS = struct.Struct(">iqiqiq")
_USAGE_FIELDS, _MOVEMENT_FIELDS = (count.to_bytes(2, "big") for count in (20, 13))
_GATE, _NO_TEXT = map(binary_copy.text, ("gate", ""))
_SPENT, _LAPSED, _LAST_MS = range(3)
_ENTRIES_AT_ONCE, _ROWS_AT_ONCE = 250, 500
_REASON_LENGTH = 500
_SUBJECTS_KEPT = 16_384

K = TypeVar("K")
V = TypeVar("V")


class Memory(dict[K, V], Generic[K, V]):
    """What was made of a key before; made where it is missing."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make

    def __missing__(self, key: K) -> V:
        made = self[key] = self._make(key)
        return made


def _nothing_taken(_: object) -> list[int]:
    return [0, 0, 0]


class _Subject(NamedTuple):
    """What a body says besides its event id, encoded: all requests of one key for the same features share it."""

    tenant_id: str
    owner: bytes
    features: tuple[bytes, ...]
    tail: bytes
    properties: bytes = NULL


_Entry: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""What an entry's rows share, encoded: where it stood, owner, event id, instant, properties, what they end with."""

_Charge: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""Feature, quantity, charged, uncollected and rated nanos, currency."""

_Parts: TypeAlias = list[tuple[bytes, int, bytes]]
"""Grant, nanos and currency of each movement."""

_NUMBERS: Memory[int, bytes] = Memory(lambda number: _PART.pack(4, number))
"""Which row of its entry, encoded."""
_FIRST = _NUMBERS[0]


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
        self._taken: Memory[tuple[str, bytes], list[int]] = Memory(_nothing_taken)
        self._texts: Memory[bytes, bytes] = Memory(_text)
        self._currency_texts: Memory[bytes, bytes] = Memory(_currency)
        self._quantities: Memory[bytes, bytes] = Memory(_quantity)
        self._instants: Memory[bytes, bytes] = Memory(self._instant)
        self._days: set[int] = set()

    def grants(self) -> set[GrantKey]:
        """The grants that something is taken out of."""
        return {(tenant_id, grant.decode()) for tenant_id, grant in self._taken}

    def moves(self) -> list[GrantMove]:
        """What is taken out of each grant."""
        return [
            GrantMove(
                tenant_id=tenant_id,
                grant_id=grant.decode(),
                spent_nanos=taken[_SPENT],
                lapsed_nanos=taken[_LAPSED],
                last_at=from_ms(taken[_LAST_MS]),
            )
            for (tenant_id, grant), taken in self._taken.items()
        ]

    def add(self, shard: int, entries: Iterable[RawEntry]) -> None:
        """Transcribe entries of one shard, in their order."""
        for stream_id, fields in entries:
            ms, _, seq = stream_id.partition(b"-")
            try:
                where = _PLACE.pack(4, shard, 8, int(ms), 8, int(seq))
                names = fields[::2]
                if names == _SHAPE:
                    self._add_charges(where, fields[1::2])
                elif fields[:2] == _CLIENT_EVENTS:
                    self._add_events(where, dict(zip(names, fields[1::2], strict=True)))
                elif names == _NUMBERED_SHAPE:
                    self._add_charges(where, fields[1:-2:2], number=fields[-1])
                else:
                    place = shard, int(ms), int(seq)
                    self._add_other(place, dict(zip(names, fields[1::2], strict=True)), where=where)
            except _FAULTS as fault:
                place = shard, int(ms), int(seq)
                self.park(place, fields, reason=f"{type(fault).__name__}: {fault}")

    def park(self, place: Place, fields: Sequence[bytes], *, reason: str) -> None:
        """Keep an entry out of the way, whole."""
        self.parked.append((*place, _tenant_in(fields), reason[:_REASON_LENGTH], fields))

    def _add_charges(self, where: bytes, values: Sequence[bytes], *, number: bytes = b"") -> None:
        """Add what the gate decided. All that may fail stands before the first append: no entry is half written."""
        kind, raw, stamp, quantities, costs, losses, rates, moved, currencies, _ = values
        if kind not in _GATE_KINDS:
            raise ValueError(f"entries of kind {kind!r} have no charges")
        event_id, rest = parted_body(raw)
        if number:
            event_id += b".%d" % int(number)
        subject = _subject(rest)
        entry = where, subject.owner, sized(event_id), self._instants[stamp], subject.properties, subject.tail
        if len(subject.features) == 1 and moved.count(b"=") == 1 and not self._strangers:
            self._add_one(entry, subject, values=values)
            return
        columns = (column.split() for column in (quantities, costs, losses, rates, currencies))
        rows, charged = self._charge_rows(entry, zip(subject.features, *columns, strict=True))
        parts = self._parts_of(subject.tenant_id, moved, charged=charged)
        if parts is not None:
            self._keep(entry, parts, kind=kind, taken=(subject.tenant_id, int(stamp)))
            self.usage += rows

    def _add_one(self, entry: _Entry, subject: _Subject, *, values: Sequence[bytes]) -> None:
        """Add one charge that one grant paid: what is asked most, in less time than the general way takes."""
        where, owner, event, at, properties, tail = entry
        kind, _, stamp, quantity, cost, loss, rate, moved, charged, _ = values
        grant, _, digits = moved.partition(b"=")
        nanos, rated, at_ms = int(cost), int(rate), int(stamp)
        if nanos != int(digits) or not nanos:
            raise ValueError(f"it charges {nanos} nanos and moves {int(digits)}")
        currency = self._currency_texts[charged]
        amounts = _AMOUNTS.pack(8, nanos, 8, int(loss), 8, rated)
        priced = self._quantities[quantity], properties, currency, amounts, tail
        moves = self._texts[grant], currency, self._texts[kind], _NANOS.pack(8, nanos), event, at
        place = where, _FIRST, owner
        self.usage.append(b"".join((_USAGE_FIELDS, *place, event, subject.features[0], at, at, *priced)))
        self.movements.append(b"".join((_MOVEMENT_FIELDS, *place, *moves)))
        taken = self._taken[subject.tenant_id, grant]
        taken[_SPENT] += nanos
        taken[_LAST_MS] = at_ms

    def _add_other(self, place: Place, values: Mapping[bytes, bytes], *, where: bytes) -> None:
        """Add an entry that has no charges."""
        kind, at_ms = values.get(b"k", b""), int(values[b"at"])
        body = _BODY.decode(values[b"b"])
        _, owner, _, tail, _ = _subject_of(body.tenant_id, body.customer_id, key_hint=body.key_hint, path=body.path)
        number = f".{int(values[b'n'])}" if b"n" in values else ""
        entry = where, owner, binary_copy.text(body.event_id + number), self._instants[b"%d" % at_ms], NULL, tail
        if kind == b"shadow":
            self.shadows += self._shadow_rows(place, body, values=values)
        elif kind in _MOVES_ONLY:
            currency = values[b"w"]
            parts = [(grant, nanos, currency) for grant, nanos in _parts(values[b"m"])]
            if kind == b"repay" and sum(nanos for _, nanos, _ in parts):
                raise ValueError("a repayment takes as much as it gives")
            self._keep(entry, parts, kind=kind, taken=(body.tenant_id, at_ms))
        else:
            raise ValueError(f"entries of kind {kind!r} are not known here")

    def _parts_of(self, tenant_id: str, moved: bytes, *, charged: Mapping[bytes, int]) -> _Parts | None:
        """The movements of charges in their currencies; None where those of its grants must be known first."""
        if len(charged) > 1:
            return self._mixed_parts_of(tenant_id, moved, charged=charged)
        currency, total = next(iter(charged.items()), (b"", 0))
        parts: _Parts = []
        found = 0
        for grant, nanos in _parts(moved):
            parts.append((grant, nanos, currency))
            found += nanos
        if found != total:
            raise ValueError(f"it charges {total} nanos and moves {found}")
        return parts

    def _mixed_parts_of(self, tenant_id: str, moved: bytes, *, charged: Mapping[bytes, int]) -> _Parts | None:
        pairs = _parts(moved)
        if self._currencies is None:
            self.is_mixed = True
            for grant, _ in pairs:
                self._taken[tenant_id, grant]
            return None
        known = self._currencies
        told = [(grant, nanos, known.get((tenant_id, grant.decode()), "").encode()) for grant, nanos in pairs]
        self._refuse_strangers(tenant_id, told)
        for currency, total in charged.items():
            found = sum(nanos for _, nanos, its in told if its == currency)
            if found != total:
                raise ValueError(f"it charges {total} nanos of {currency.decode()} and moves {found}")
        return told

    def _keep(self, entry: _Entry, parts: _Parts, *, kind: bytes, taken: tuple[str, int]) -> None:
        """Write the movements, and what they take out of each grant of the tenant, at the instant."""
        tenant_id, at_ms = taken
        self._refuse_strangers(tenant_id, parts)
        self.movements += self._movement_rows(entry, parts, kind=kind)
        column = _LAPSED if kind == b"lapse" else _SPENT
        for grant, nanos, _ in parts:
            sums = self._taken[tenant_id, grant]
            sums[column] += nanos
            sums[_LAST_MS] = at_ms

    def _refuse_strangers(self, tenant_id: str, parts: _Parts) -> None:
        if self._strangers and any((tenant_id, grant.decode()) in self._strangers for grant, _, _ in parts):
            raise ValueError("it moves a grant that does not exist")

    def _charge_rows(self, entry: _Entry, charges: Iterable[_Charge]) -> tuple[list[bytes], dict[bytes, int]]:
        """Rows of `store.usage.USAGE_COLUMNS`, and what is charged in each currency that is charged at all."""
        where, owner, event, at, properties, tail = entry
        rows: list[bytes] = []
        charged: dict[bytes, int] = {}
        for feature, quantity, cost, loss, rate, currency in charges:
            nanos = int(cost)
            if nanos:
                charged[currency] = charged.get(currency, 0) + nanos
            amounts = _AMOUNTS.pack(8, nanos, 8, int(loss), 8, nanos if rate == cost else int(rate))
            place = _USAGE_FIELDS, where, _NUMBERS[len(rows)], owner, event, feature, at, at
            priced = self._quantities[quantity], properties, self._currency_texts[currency], amounts, tail
            rows.append(b"".join(place + priced))
        return rows, charged

    def _movement_rows(self, entry: _Entry, parts: _Parts, *, kind: bytes) -> list[bytes]:
        """Rows of `store.usage.MOVEMENT_COLUMNS`."""
        where, owner, event, at, *_ = entry
        rows: list[bytes] = []
        for grant, nanos, currency in parts:
            place = _MOVEMENT_FIELDS, where, _NUMBERS[len(rows)], owner, self._texts[grant]
            moved = self._currency_texts[currency], self._texts[kind], _NANOS.pack(8, nanos), event, at
            rows.append(b"".join(place + moved))
        return rows

    def _add_events(self, where: bytes, values: Mapping[bytes, bytes]) -> None:
        """Add what clients have sent."""
        rows, days = client_rows(where, values, decided_at=self._instants[values[b"at"]])
        for at in map(first_of, days - self._days):
            self.months[at.year, at.month] = at
        self._days |= days
        self.usage += rows

    def _shadow_rows(
        self, place: Place, body: EventBody, *, values: Mapping[bytes, bytes]
    ) -> list[tuple[object, ...]]:
        """Rows of `store.usage.SHADOW_COLUMNS`."""
        decided_at, reason, level = from_ms(int(values[b"at"])), values[b"r"].decode(), values[b"l"].decode()
        charges = zip(body.features, values[b"q"].split(), strict=True)
        return [
            (
                *(*place, part, body.tenant_id, body.customer_id, body.event_id),
                *(feature, int(quantity), decided_at, reason, level, body.path, body.key_hint),
            )
            for part, (feature, quantity) in enumerate(charges)
        ]

    def _instant(self, stamp: bytes) -> bytes:
        """Encode an instant, and note its month."""
        at = from_ms(int(stamp))
        self.months[at.year, at.month] = at
        return binary_copy.instant(at)


@lru_cache(maxsize=_SUBJECTS_KEPT)
def _subject(rest: bytes) -> _Subject:
    """Of a body without its event id."""
    body = rest_of_body(rest)
    shared = {"key_hint": body.key_hint, "path": body.path}
    subject = _subject_of(body.tenant_id, body.customer_id, features=body.features, **shared)
    return subject._replace(properties=binary_copy.jsonb(body.properties)) if body.properties else subject


@lru_cache(maxsize=_SUBJECTS_KEPT)
def _subject_of(
    tenant_id: str, customer_id: str, *, features: tuple[str, ...] = (), key_hint: str, path: str
) -> _Subject:
    return _Subject(
        tenant_id=tenant_id,
        owner=binary_copy.text(tenant_id) + binary_copy.text(customer_id),
        features=tuple(binary_copy.text(feature) + _GATE for feature in features),
        tail=binary_copy.text(key_hint) + binary_copy.text(path),
    )


def _text(raw: bytes) -> bytes:
    return binary_copy.text(raw.decode())


def _currency(raw: bytes) -> bytes:
    if raw.split() != [raw]:
        raise ValueError("a charge is in one currency")
    return _NO_TEXT if raw == _NO_CURRENCY else _text(raw)


def _quantity(raw: bytes) -> bytes:
    return binary_copy.numeric(raw.decode())


def _parts(text: bytes) -> list[tuple[bytes, int]]:
    """`gra_1=5 gra_2=7` as pairs."""
    parts: list[tuple[bytes, int]] = []
    for pair in text.split():
        grant, _, digits = pair.partition(b"=")
        parts.append((grant, int(digits)))
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


async def transcribe(
    readings: Sequence[Reading], *, strangers: Collection[GrantKey] = (), currencies: Currencies | None = None
) -> Transcript:
    """The rows of what was read; others on the event loop get their turn about every millisecond."""
    transcript = Transcript(strangers, currencies=currencies)
    for reading in readings:
        first, at_once = 0, _ENTRIES_AT_ONCE
        while first < len(reading.entries):
            before = len(transcript.usage)
            transcript.add(reading.shard, reading.entries[first : first + at_once])
            first, rows = first + at_once, len(transcript.usage) - before
            at_once = max(1, min(_ENTRIES_AT_ONCE, at_once * _ROWS_AT_ONCE // max(1, rows)))
            await asyncio.sleep(0)
    return transcript
