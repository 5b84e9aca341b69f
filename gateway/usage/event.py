"""Client-sent events: usage that did not pass the gate, told afterwards.

An event is an id, a name, an instant, a customer and fields. Numbers are read as exact decimals and travel as
integers or decimal text; a float never touches them. What an event may be is checked here, before anything is
written: by itself (shape, numbers), against the clock of its tenant, and against the meters that read it.

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
from billing_core.contract.usage_event import encode_record
from billing_core.errors import InvalidInput
from billing_core.values.clock import to_ms
from billing_core.values.ids import CODE_PATTERN, Code, IdempotencyKey, is_code
from billing_core.values.money import MAX_EXACT
from gateway.state.directory import Meters

FRACTION_DIGITS: Final = 12
ANY_SCALE: Final = -1
FIELD_COUNT: Final = 64
TEXT_LENGTH: Final = 1_024
_NAME_LENGTH: Final = 64
_FIELD_NAMES_KNOWN: Final = 4_096
_NUMBERS_KNOWN: Final = 4_096
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999
_DIGITS: Final = 64
_DIGEST_BYTES: Final = 16

Instant = Annotated[int, msgspec.Meta(ge=0, le=_LAST_MS)] | Annotated[datetime, msgspec.Meta(tz=True)]
"""Milliseconds since the epoch, or RFC 3339 text with its offset."""


_FIELD: Final = {
    "anyOf": [
        {"type": "string", "maxLength": TEXT_LENGTH, "pattern": "^[^\\u0000]*$"},
        {"type": "number", "minimum": 0, "maximum": MAX_EXACT},
    ]
}
Fields = Annotated[
    dict[str, object],
    msgspec.Meta(
        extra_json_schema={
            "maxProperties": FIELD_COUNT,
            "propertyNames": {"pattern": CODE_PATTERN},
            "patternProperties": {"": _FIELD},
        }
    ),
]
"""Texts and numbers by name, in JSON Schema's words; a number has at most 12 digits after the point."""


Field = str | int | bytes
"""A text, a whole number, or another number in plain decimal text without a needless digit."""


class ClientEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event as it is sent. `id` is the sender's name for it: the same id again is the same event."""

    id: IdempotencyKey
    event: Code
    time: Instant
    customer: Code
    fields: Fields = {}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event that is sound by itself. A whole number is an integer, any other the bytes of its decimal text."""

    event_id: str
    name: str
    event_at_ms: int
    customer_id: str
    fields: Mapping[str, Field]


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


def read_event(raw: bytes) -> Event:
    """One event, sound by itself.

    Raises: InvalidInput naming field and rule.
    """
    sent = decode_strictly(raw, _DECODER)
    if len(sent.fields) > FIELD_COUNT:
        raise InvalidInput(f"must have at most {FIELD_COUNT} entries", field="fields")
    fields = {name: _field(value, name) for name, value in sent.fields.items()}
    if not all(map(is_field_name, fields)):
        raise InvalidInput("a field's name is 1 to 64 of letters, digits, `_`, `.`, `-`", field="fields")
    return Event(
        event_id=sent.id,
        name=sent.event,
        event_at_ms=sent.time if isinstance(sent.time, int) else to_ms(sent.time),
        customer_id=sent.customer,
        fields=fields,
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
        field, value = f"fields.{name}", event.fields.get(name)
        if value is None:
            raise InvalidInput("is required: a meter reads it", field=field)
        if scale == ANY_SCALE:
            continue
        if isinstance(value, str):
            raise InvalidInput("must be a number: a meter adds it up", field=field)
        if digits_after_point(value) > scale:
            rule = "must be a whole number" if scale == 0 else f"must have at most {scale} digits after the point"
            raise InvalidInput(rule, field=field)


def digits_after_point(number: int | bytes) -> int:
    """How many digits a number has after its point."""
    return 0 if isinstance(number, int) else len(number.partition(b".")[2])


def record_of(event: Event) -> bytes:
    """The event as it travels in the stream; two events of one id are the same if these are."""
    return encode_record((event.event_id, event.name, event.event_at_ms, event.customer_id, event.fields))


def digest_of(record: bytes) -> bytes:
    """A digest of what the event says."""
    return hashlib.blake2b(record, digest_size=_DIGEST_BYTES).digest()


def is_field_name(name: str) -> bool:
    """Whether a field may be called so."""
    return len(name) <= _NAME_LENGTH and _is_field_name(name)


@lru_cache(maxsize=_FIELD_NAMES_KNOWN)
def _is_field_name(name: str) -> bool:
    return is_code(name)


@lru_cache(maxsize=_NUMBERS_KNOWN)
def number_of(text: str) -> int | bytes | None:
    """A number of JSON that is not written as a whole one, as it travels; None where it is none that may."""
    try:
        return _number(_decimal(text), "")
    except (ValueError, InvalidInput):
        return None


def _field(value: object, name: str) -> Field:
    if type(value) is int and 0 <= value <= MAX_EXACT:
        return value
    field = f"fields.{name}"
    if isinstance(value, str):
        return _text(value, field)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return _number(Decimal(value), field)
    raise InvalidInput("must be a number or a text", field=field)


def _text(value: str, field: str) -> str:
    if len(value) > TEXT_LENGTH:
        raise InvalidInput(f"must have at most {TEXT_LENGTH} characters", field=field)
    if "\x00" in value:
        raise InvalidInput("must not contain the character U+0000", field=field)
    return value


def _number(value: Decimal, field: str) -> int | bytes:
    """An integer, or canonical decimal text: no exponent, no needless zero, no minus before zero."""
    if value < 0:
        raise InvalidInput("must not be negative", field=field)
    if value > MAX_EXACT:
        raise InvalidInput("must be below 2^53", field=field)
    if value == 0:
        return 0
    rule = f"must have at most {FRACTION_DIGITS} digits after the point"
    if value.adjusted() < -FRACTION_DIGITS or len(value.as_tuple().digits) > _DIGITS:
        raise InvalidInput(rule, field=field)
    whole, _, part = format(value, "f").partition(".")
    part = part.rstrip("0")
    if len(part) > FRACTION_DIGITS:
        raise InvalidInput(rule, field=field)
    return f"{whole}.{part}".encode() if part else int(whole)
