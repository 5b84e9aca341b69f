"""The usage entry: what a script appends to the shard's stream in the same step as the debit.

The gateway prepares the body before the decision (who, what, which request); the script adds what only it knows
(when, how much it cost, which grants paid). The worker reads both. Bodies allow unknown fields, because tomorrow's
gateway may write for today's worker.

Stream fields: `k` kind, `b` body, `at` decision instant in ms on the tenant's clock, `e` shard epoch; then columns
in the order of the body's charges, joined by spaces: `q` quantities (of a gauge its new level, the customer's), `c`
charged and `u` uncollected nanos, `s` nanos rated in real time (c + u where prepaid; of a postpaid price what it
comes to, c and u being 0), `w` currencies (`-` where nothing is priced); and `m` movements `grant=nanos
grant=nanos`, each in its grant's currency. A lapse and a repayment have no charges: their `w` is the one currency.
What shadow mode would have refused has `r` reason and `l` level instead of what was charged. Client-sent events
travel many in one entry: `b` is all of them, and `d` the places of those that are left out, because their ids came
before, counted from 0 and joined by spaces. Where one body travels in several entries (parts of a hold), all but
one have `n`, a number that makes the event id of each its own: `<event_id>.<n>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from billing_core.errors import InvariantBroken


class EntryKind(StrEnum):
    """What happened."""

    DEBIT = "debit"
    SETTLE = "settle"
    LAPSE = "lapse"
    EVENT = "event"
    SHADOW = "shadow"
    REPAY = "repay"


class EventBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the gateway knows before the decision. Shape in the stream: msgpack map.

    Gate decisions: `event_id` is the decision id, `features` names the charges in order, `path` the budget levels
    (`team:ml/project:chat`). Client-sent events, each of them taken out of its entry: `event_id` is the client's,
    `name` its type, `event_at_ms` its time, `properties` its fields (numbers as text). Lapses and repayments:
    `grant_id` and `reason`.
    """

    event_id: str
    tenant_id: str
    customer_id: str
    features: tuple[str, ...] = ()
    name: str = ""
    event_at_ms: int = 0
    properties: dict[str, str] = {}
    key_hint: str = ""
    path: str = ""
    grant_id: str = ""
    reason: str = ""


class ClientRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A client-sent event as it travels. A whole number is an integer, any other the bytes of its decimal text."""

    event_id: str
    name: str
    event_at_ms: int
    customer_id: str
    fields: dict[str, object]


class _ClientBody(msgspec.Struct, frozen=True, array_like=True):
    tenant_id: str
    records: list[ClientRecord]


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """Nanos taken from one grant by one entry; below zero where a repayment put them back."""

    grant_id: str
    nanos: int


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of a gate decision, as it was charged; no currency where nothing is priced."""

    feature: str
    quantity: int
    charged_nanos: int
    uncollected_nanos: int
    rated_nanos: int
    currency: str


class StreamPosition(msgspec.Struct, frozen=True, order=True):
    """A stream id, ordered as Redis orders it."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> StreamPosition:
        """From `1700000000000-3`."""
        ms, _, seq = text.partition("-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


class UsageEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One stream entry, decoded. `currency` is that of the first priced charge, or of the lapse or repayment.

    `refusal` and `level` are those that shadow mode did not make. `part` is the place of a client-sent event.
    """

    position: StreamPosition
    kind: EntryKind
    body: EventBody
    decided_at_ms: int
    currency: str
    epoch: int
    charges: tuple[Charge, ...]
    movements: tuple[Movement, ...]
    refusal: str = ""
    level: str = ""
    part: int = 0


NO_CURRENCY = "-"
"""What a column says for a charge that nothing is priced for."""

_DECODER = msgspec.msgpack.Decoder(EventBody)
_CLIENT_BODY = msgspec.msgpack.Decoder(_ClientBody)
_DECISION_ID, _NO_ID = b"\xa8event_id\xd9\x24", b"\xa8event_id\xa0"
"""How msgpack begins the id of a decision, which has 36 characters; and an id that is empty."""
_ID_START = 1 + len(_DECISION_ID)
_ID_END = _ID_START + 36
_ENCODER = msgspec.msgpack.Encoder()
_RECORD_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_PAIR, _LIST = b"\x92", b"\xdc"
"""How msgpack begins an array of two, and one whose count has 16 bits."""


def encode_body(body: EventBody) -> bytes:
    """The body as the scripts carry it."""
    return _ENCODER.encode(body)


def encode_record(record: tuple[str, str, int, str, Mapping[str, object]]) -> bytes:
    """A ClientRecord, told as a tuple, in bytes: two events are the same if these are."""
    return _RECORD_ENCODER.encode(record)


def encode_client_body(tenant_id: str, records: Sequence[bytes]) -> bytes:
    """The body of an entry of client-sent events, from their encoded records."""
    return b"".join((_PAIR, _ENCODER.encode(tenant_id), _LIST, len(records).to_bytes(2, "big"), *records))


def client_records(fields: Mapping[bytes, bytes]) -> tuple[str, list[ClientRecord], frozenset[int]]:
    """Tenant and events of an entry, and the places of those that are left out.

    Raises: KeyError, ValueError or msgspec.MsgspecError where it is no such entry.
    """
    body = _CLIENT_BODY.decode(fields[b"b"])
    left_out = frozenset(map(int, fields.get(b"d", b"").split()))
    if left_out and not (min(left_out) >= 0 and max(left_out) < len(body.records)):
        raise ValueError("an event is left out that is not there")
    return body.tenant_id, body.records, left_out


def text_of_field(value: object) -> str:
    """What a client-sent field says.

    Raises: ValueError where it is neither text nor number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bytes):
        return value.decode()
    raise ValueError("a field is a text or a number")


def parted_body(raw: bytes) -> tuple[bytes, bytes]:
    """The event id of a body, and all the rest, which all requests of one key for the same features share.

    Ids of decisions, and where they stand in a body, are known; what has another is decoded and written anew.

    Raises: msgspec.MsgspecError where it is no body.
    """
    event_id = raw[_ID_START:_ID_END]
    if raw[1:_ID_START] == _DECISION_ID and event_id.isascii():
        return event_id, raw[:1] + raw[_ID_END:]
    body = _DECODER.decode(raw)
    written = encode_body(msgspec.structs.replace(body, event_id=""))
    return body.event_id.encode(), written[:1] + written[1 + len(_NO_ID) :]


def rest_of_body(rest: bytes) -> EventBody:
    """What the rest of a parted body says.

    Raises: msgspec.MsgspecError where it is no body; ValueError where it has an id of its own.
    """
    body = _DECODER.decode(rest[:1] + _NO_ID + rest[1:])
    if body.event_id:
        raise ValueError("a body has one event id")
    return body


def decode_entries(stream_id: bytes, fields: Mapping[bytes, bytes]) -> list[UsageEntry]:
    """An entry as the worker sees it; client-sent events one by one, which may be none.

    Raises: InvariantBroken where the entry is not one that a script of this house writes.
    """
    if fields.get(b"k") != EntryKind.EVENT.encode():
        return [decode_entry(stream_id, fields)]
    try:
        tenant_id, records, left_out = client_records(fields)
        return [
            UsageEntry(
                position=StreamPosition.parse(stream_id.decode()),
                kind=EntryKind.EVENT,
                body=_client_body(tenant_id, record),
                decided_at_ms=int(fields[b"at"]),
                currency="",
                epoch=int(fields.get(b"e", b"0")),
                charges=(),
                movements=(),
                part=part,
            )
            for part, record in enumerate(records)
            if part not in left_out
        ]
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        raise InvariantBroken(f"stream entry {stream_id!r} cannot be read: {error}") from error


def _client_body(tenant_id: str, record: ClientRecord) -> EventBody:
    return EventBody(
        event_id=record.event_id,
        tenant_id=tenant_id,
        customer_id=record.customer_id,
        name=record.name,
        event_at_ms=record.event_at_ms,
        properties={field: text_of_field(value) for field, value in record.fields.items()},
    )


def decode_entry(stream_id: bytes, fields: Mapping[bytes, bytes]) -> UsageEntry:
    """One entry as the worker sees it, but for client-sent events, which are many.

    Raises: InvariantBroken where the entry is not one that a script of this house writes.
    """
    try:
        body = _body(fields)
        currencies = _currencies(fields)
        return UsageEntry(
            position=StreamPosition.parse(stream_id.decode()),
            kind=EntryKind(fields[b"k"].decode()),
            body=body,
            decided_at_ms=int(fields[b"at"]),
            currency=next((currency for currency in currencies if currency), ""),
            epoch=int(fields.get(b"e", b"0")),
            charges=_charges(body, fields, currencies=currencies),
            movements=_movements(fields.get(b"m", b"")),
            refusal=fields.get(b"r", b"").decode(),
            level=fields.get(b"l", b"").decode(),
        )
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        raise InvariantBroken(f"stream entry {stream_id!r} cannot be read: {error}") from error


def _body(fields: Mapping[bytes, bytes]) -> EventBody:
    body, number = _DECODER.decode(fields[b"b"]), fields.get(b"n")
    if number is None:
        return body
    return msgspec.structs.replace(body, event_id=f"{body.event_id}.{int(number)}")


def _currencies(fields: Mapping[bytes, bytes]) -> list[str]:
    return ["" if word == NO_CURRENCY else word for word in fields.get(b"w", b"").decode().split()]


def _charges(body: EventBody, fields: Mapping[bytes, bytes], *, currencies: list[str]) -> tuple[Charge, ...]:
    if b"q" not in fields:
        return ()
    quantities = [int(n) for n in fields[b"q"].split()]
    if b"c" not in fields:  # shadow mode charges nothing
        currencies = [""] * len(quantities)
    nothing = b" ".join([b"0"] * len(quantities))
    amounts = [[int(n) for n in fields.get(name, nothing).split()] for name in (b"c", b"u", b"s")]
    columns = [quantities, *amounts]
    return tuple(
        Charge(
            feature=feature,
            quantity=quantity,
            charged_nanos=cost,
            uncollected_nanos=lost,
            rated_nanos=rated,
            currency=currency,
        )
        for feature, quantity, cost, lost, rated, currency in zip(body.features, *columns, currencies, strict=True)
    )


def _movements(text: bytes) -> tuple[Movement, ...]:
    pairs = [part.split("=") for part in text.decode().split()]
    return tuple(Movement(grant_id=grant, nanos=int(nanos)) for grant, nanos in pairs)
