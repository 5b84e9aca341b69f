"""The usage entry: what a script appends to the shard's stream in the same step as the debit.

The gateway prepares the body before the decision (who, what, which request); the script adds what only it knows
(when, how much it cost, which grants paid). The worker reads both. Bodies allow unknown fields, because tomorrow's
gateway may write for today's worker.

Stream fields: `k` kind, `b` body, `at` decision instant in ms on the tenant's clock, `e` shard epoch; then columns
in the order of the body's charges, joined by spaces: `q` quantities (of a gauge its new level, the customer's), `c`
charged and `u` uncollected nanos, `s` nanos rated in real time (c + u where prepaid; of a postpaid price what it
comes to, c and u being 0), `w` currencies (`-` where nothing is priced); and `m` movements `grant=nanos
grant=nanos`, each in its grant's currency. A lapse and a repayment have no charges: their `w` is the one currency.
What shadow mode would have refused has `r` reason and `l` level instead of what was charged. Where one body travels
in several entries (parts of a hold), all but one have `n`, a number that makes the event id of each its own:
`<event_id>.<n>`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    (`team:ml/project:chat`). Client-sent events:
    `event_id` is the client's, `name` its type, `event_at_ms` its time, `properties` its fields (numbers as text).
    Lapses and repayments: `grant_id` and `reason`.
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

    `refusal` and `level` are those that shadow mode did not make.
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


NO_CURRENCY = "-"
"""What a column says for a charge that nothing is priced for."""

_DECODER = msgspec.msgpack.Decoder(EventBody)
_DECISION_ID, _NO_ID = b"\xa8event_id\xd9\x24", b"\xa8event_id\xa0"
"""How msgpack begins the id of a decision, which has 36 characters; and an id that is empty."""
_ID_START = 1 + len(_DECISION_ID)
_ID_END = _ID_START + 36
_ENCODER = msgspec.msgpack.Encoder()


def encode_body(body: EventBody) -> bytes:
    """The body as the scripts carry it."""
    return _ENCODER.encode(body)


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


def decode_entry(stream_id: bytes, fields: Mapping[bytes, bytes]) -> UsageEntry:
    """One entry as the worker sees it.

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
