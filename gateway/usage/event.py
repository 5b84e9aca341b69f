"""Client-sent events: usage that did not pass the gate, told afterwards.

An event is an id, a name, an instant, a customer and fields. Numbers are read as exact decimals and travel as
decimal text; a float never touches them. What an event may be is checked here, before anything is written: by
itself (shape, numbers), against the clock of its tenant, and against the meters that read it.

Worked example: `{"id": "e1", "event": "llm.tokens", "time": "2026-05-01T12:00:00Z", "customer": "acme", "fields":
{"input": 374, "model": "small"}}` with meters `{"llm.tokens": {"input": 0}}` is good; with `"input": 37.4` it is
refused, because the meter counts whole numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from billing_core.contract.document import decode_strictly
from billing_core.contract.usage_event import EventBody, encode_body
from billing_core.errors import InvalidInput
from billing_core.values.clock import to_ms
from billing_core.values.ids import Code, IdempotencyKey, is_code
from billing_core.values.money import MAX_EXACT
from gateway.state.directory import Meters

FRACTION_DIGITS: Final = 12
ANY_SCALE: Final = -1
_FIELD_COUNT: Final = 64
_TEXT_LENGTH: Final = 1_024
_FIELD_NAMES_KNOWN: Final = 4_096
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999
_DIGITS: Final = 64
_DIGEST_BYTES: Final = 16

Instant = Annotated[int, msgspec.Meta(ge=0, le=_LAST_MS)] | Annotated[datetime, msgspec.Meta(tz=True)]
"""Milliseconds since the epoch, or RFC 3339 text with its offset."""


class ClientEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event as it is sent. `id` is the sender's name for it: the same id again is the same event."""

    id: IdempotencyKey
    event: Code
    time: Instant
    customer: Code
    fields: dict[str, object] = {}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event that is sound by itself. Numbers among the properties are canonical decimal text."""

    event_id: str
    name: str
    event_at_ms: int
    customer_id: str
    properties: dict[str, str]
    numbers: frozenset[str]


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How far an event's time may lie from now."""

    max_age_ms: int
    max_skew_ms: int


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError("number out of range") from None


_DECODER = msgspec.json.Decoder(ClientEvent, float_hook=_decimal)
_NAMED = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def read_event(raw: bytes) -> Event:
    """One event, sound by itself.

    Raises: InvalidInput naming field and rule.
    """
    sent = decode_strictly(raw, _DECODER)
    if len(sent.fields) > _FIELD_COUNT:
        raise InvalidInput(f"must have at most {_FIELD_COUNT} entries", field="fields")
    properties: dict[str, str] = {}
    numbers: list[str] = []
    for name, value in sent.fields.items():
        properties[name] = _property(value, name)
        if not isinstance(value, str):
            numbers.append(name)
    if not all(map(_is_field_name, properties)):
        raise InvalidInput("a field's name is 1 to 64 of letters, digits, `_`, `.`, `-`", field="fields")
    return Event(
        event_id=sent.id,
        name=sent.event,
        event_at_ms=sent.time if isinstance(sent.time, int) else to_ms(sent.time),
        customer_id=sent.customer,
        properties=properties,
        numbers=frozenset(numbers),
    )


def id_in(raw: bytes) -> str | None:
    """The id of an event that is not sound, where it has a readable one: so that its answer can name it."""
    try:
        return msgspec.json.decode(_NAMED.decode(raw)["id"], type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return None


def check_time(event: Event, *, now_ms: int, bounds: Bounds) -> None:
    """Refuse an event that lies too far from `now_ms` of its tenant.

    Raises: InvalidInput.
    """
    if event.event_at_ms > now_ms + bounds.max_skew_ms:
        raise InvalidInput(f"lies more than {bounds.max_skew_ms} ms in the future", field="time")
    if event.event_at_ms < now_ms - bounds.max_age_ms:
        raise InvalidInput(f"lies more than {bounds.max_age_ms} ms in the past", field="time")


def check_meters(event: Event, meters: Meters) -> None:
    """Refuse an event that no meter reads, or whose metered fields a meter could not read.

    Raises: InvalidInput.
    """
    wanted = meters.get(event.name)
    if wanted is None:
        raise InvalidInput("no meter reads events of this name", field="event")
    for name, scale in wanted.items():
        field = f"fields.{name}"
        if name not in event.properties:
            raise InvalidInput("is required: a meter reads it", field=field)
        if scale == ANY_SCALE:
            continue
        if name not in event.numbers:
            raise InvalidInput("must be a number: a meter adds it up", field=field)
        if len(event.properties[name].partition(".")[2]) > scale:
            rule = "must be a whole number" if scale == 0 else f"must have at most {scale} digits after the point"
            raise InvalidInput(rule, field=field)


def body_of(event: Event, tenant_id: str) -> bytes:
    """The event as it travels in the stream."""
    return encode_body(
        EventBody(
            event_id=event.event_id,
            tenant_id=tenant_id,
            customer_id=event.customer_id,
            name=event.name,
            event_at_ms=event.event_at_ms,
            properties=event.properties,
        )
    )


def digest_of_event(event: Event) -> str:
    """A digest of what the event says; two events of one id are the same if these are."""
    said: tuple[str, int, str, Mapping[str, str], list[str]] = (
        event.name,
        event.event_at_ms,
        event.customer_id,
        event.properties,
        sorted(event.numbers),
    )
    return hashlib.blake2b(_ENCODER.encode(said), digest_size=_DIGEST_BYTES).hexdigest()


@lru_cache(maxsize=_FIELD_NAMES_KNOWN)
def _is_field_name(name: str) -> bool:
    return is_code(name)


def _property(value: object, name: str) -> str:
    if type(value) is int and 0 <= value <= MAX_EXACT:
        return str(value)
    field = f"fields.{name}"
    if isinstance(value, str):
        return _text(value, field)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return _number(Decimal(value), field)
    raise InvalidInput("must be a number or a text", field=field)


def _text(value: str, field: str) -> str:
    if len(value) > _TEXT_LENGTH:
        raise InvalidInput(f"must have at most {_TEXT_LENGTH} characters", field=field)
    if "\x00" in value:
        raise InvalidInput("must not contain the character U+0000", field=field)
    return value


def _number(value: Decimal, field: str) -> str:
    """Canonical decimal text: no exponent, no needless zero, no minus before zero."""
    if value < 0:
        raise InvalidInput("must not be negative", field=field)
    if value > MAX_EXACT:
        raise InvalidInput("must be below 2^53", field=field)
    if value == 0:
        return "0"
    rule = f"must have at most {FRACTION_DIGITS} digits after the point"
    if value.adjusted() < -FRACTION_DIGITS or len(value.as_tuple().digits) > _DIGITS:
        raise InvalidInput(rule, field=field)
    whole, _, part = format(value, "f").partition(".")
    part = part.rstrip("0")
    if len(part) > FRACTION_DIGITS:
        raise InvalidInput(rule, field=field)
    return f"{whole}.{part}" if part else whole
