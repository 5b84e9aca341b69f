"""Arrays and lines of events, read at one go: what nearly all senders send, in a tenth of the time.

One by one, each event is cut out of its array, decoded, searched for names that come twice, and checked rule by
rule, so that its answer can name the rule that it breaks. Here the whole array is decoded at once, and what is the
same for many events (what its name's meters want of such fields, how far its customer's clock is) is found once.

This way only ever accepts: an event that breaks a rule, or only might, is left to the other (`event.py`), which
then says which. What both take, they take as the same bytes; a test holds them equal.

That no object names a field twice is seen by counting. In a document without a backslash a quotation mark always
begins or ends a text, and each name ends in one with a colon behind it. So there are at least as many of those as
names were written, and at least as many names were written as were decoded. Where the first and the last count are
the same, no name was decoded over another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from billing_core.contract.usage_event import encode_record
from billing_core.values.clock import to_ms
from billing_core.values.ids import IDEMPOTENCY_KEY_LENGTH
from billing_core.values.money import MAX_EXACT
from gateway.state.directory import Meters
from gateway.usage.event import (
    ANY_SCALE,
    FIELD_COUNT,
    TEXT_LENGTH,
    Bounds,
    Instant,
    digits_after_point,
    is_field_name,
    number_of,
)

_NAMES_ALWAYS: Final = 4
_NUMBER_LENGTH: Final = 32
_SPACES: Final = (b"\n", b"\t", b"\r", b'" ')
_SPACED_NAME: Final = re.compile(rb'"[ \n\t\r]+:')


class PlainEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One event as it is sent, its words not looked at yet."""

    id: str
    event: str
    time: Instant
    customer: str
    fields: dict[str, object] | UnsetType = UNSET


def _number(text: str) -> object:
    """A number that is not written as a whole one; None where it has to be looked at closer."""
    return number_of(text) if len(text) <= _NUMBER_LENGTH else None


_DECODER = msgspec.json.Decoder(list[PlainEvent], float_hook=_number)
_LINES = msgspec.json.Decoder(PlainEvent, float_hook=_number)
_NOTHING: Mapping[str, object] = {}


def read_plainly(body: bytes) -> list[PlainEvent] | None:
    """All events of an array, or None where some of them may not be what they seem."""
    return _read(body, _DECODER.decode)


def read_lines_plainly(body: bytes) -> list[PlainEvent] | None:
    """The same of lines with an event each.

    Where each line begins an object and ends one, none goes on in the next: within an object `}` and `{` have
    something between them. So where there are as many events as lines, there is one in each.
    """
    body = body.strip()
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n")
    breaks = body.count(b"\n")
    if body.count(b"}\n{") != breaks:
        return None
    events = _read(body, _LINES.decode_lines)
    return events if events is not None and len(events) == (breaks + 1 if body else 0) else None


def _read(body: bytes, decode: Callable[[bytes], list[PlainEvent]]) -> list[PlainEvent] | None:
    if b"\\" in body:
        return None
    try:
        events = decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    decoded = _NAMES_ALWAYS * len(events)
    for one in events:
        if one.fields is not UNSET:
            decoded += 1 + len(one.fields)
    written = body.count(b'":')
    if any(map(body.__contains__, _SPACES)):
        written += len(_SPACED_NAME.findall(body))
    return events if decoded == written else None


class Press:
    """Makes records of the plain events of one tenant at one instant.

    `offsets_ms`: how far the clock of each customer that exists is ahead.
    """

    def __init__(self, meters: Meters, offsets_ms: Mapping[str, int], *, now_ms: int, bounds: Bounds) -> None:
        self._meters = meters
        self._offsets_ms = offsets_ms
        self._earliest_ms, self._latest_ms = now_ms - bounds.max_age_ms, now_ms + bounds.max_skew_ms
        self._scales: dict[tuple[str, ...], tuple[int, ...] | None] = {}

    def record(self, one: PlainEvent) -> bytes | None:
        """The event as it travels; None where it has to be looked at closer."""
        event_id, name, customer_id = one.id, one.event, one.customer
        if not (event_id.isascii() and event_id.isprintable() and 0 < len(event_id) <= IDEMPOTENCY_KEY_LENGTH):
            return None
        offset_ms = self._offsets_ms.get(customer_id)
        if offset_ms is None or " " in event_id:
            return None
        time_ms = one.time if isinstance(one.time, int) else to_ms(one.time)
        if not self._earliest_ms <= time_ms - offset_ms <= self._latest_ms:
            return None
        fields = _NOTHING if one.fields is UNSET else one.fields
        shape = (name, *fields)
        scales = self._scales.get(shape)
        if scales is None:
            scales = self._scales[shape] = self._scales_of(shape)
        if len(scales) != len(fields) or not all(map(_is_sound, fields.values(), scales)):
            return None
        return encode_record((event_id, name, time_ms, customer_id, fields))

    def _scales_of(self, shape: tuple[str, ...]) -> tuple[int, ...]:
        """How many digits may stand behind the point of each field; one too many where no such event is right."""
        name, *fields = shape
        wanted = self._meters.get(name)
        is_right = wanted is not None and wanted.keys() <= set(fields) and len(fields) <= FIELD_COUNT
        if wanted is None or not is_right or not all(map(is_field_name, fields)):
            return (ANY_SCALE,) * len(shape)
        return tuple(wanted.get(field, ANY_SCALE) for field in fields)


def _is_sound(value: object, scale: int) -> bool:
    """Whether a field is as a meter wants it."""
    if type(value) is int:
        return 0 <= value <= MAX_EXACT
    if type(value) is str:
        return scale == ANY_SCALE and len(value) <= TEXT_LENGTH
    return type(value) is bytes and (scale == ANY_SCALE or digits_after_point(value) <= scale)
