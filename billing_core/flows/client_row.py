"""Client rows: an entry of client-sent events becomes rows of usage, straight into COPY's bytes.

A row's part is the event's place in its entry, so an event that was left out leaves a gap. An event says its
quantity in the field of that name, in plain decimals; else it is one of something.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

import msgspec

from billing_core.contract.usage_event import client_records, text_of_field
from billing_core.store import binary_copy
from billing_core.values.clock import from_ms

_DAY_MS = 86_400_000
_NAMES_KEPT = 16_384
_FIELDS = (20).to_bytes(2, "big")
_PART, _LENGTH, _JSONB = map(struct.Struct, (">ii", ">i", ">ib"))
_NO_TEXT = binary_copy.text("")
_ONE = binary_copy.numeric("1")
_encode = msgspec.json.Encoder().encode
_TAIL = _NO_TEXT + binary_copy.int8(0) * 3 + _NO_TEXT * 2


def client_rows(where: bytes, values: Mapping[bytes, bytes], *, decided_at: bytes) -> tuple[list[bytes], set[int]]:
    """Rows of `store.usage.USAGE_COLUMNS`, and the days that they happened on, counted from 1970.

    Raises: KeyError, ValueError, ArithmeticError, struct.error or msgspec.MsgspecError where one cannot be written.
    """
    tenant_id, records, left_out = client_records(values)
    head, rows, days = _FIELDS + where, list[bytes](), set[int]()
    for part, one in enumerate(records):
        if part in left_out:
            continue
        days.add(one.event_at_ms // _DAY_MS)
        texts = {name: value if type(value) is str else text_of_field(value) for name, value in one.fields.items()}
        event_id, properties = one.event_id.encode(), _encode(texts)
        who = _PART.pack(4, part), _owner(tenant_id, one.customer_id), _LENGTH.pack(len(event_id)), event_id
        times = _name(one.name), binary_copy.instant_of_ms(one.event_at_ms), decided_at
        said = _quantity(texts["quantity"]) if "quantity" in texts else _ONE
        measured = said, _JSONB.pack(len(properties) + 1, 1), properties, _TAIL
        rows.append(b"".join((head, *who, *times, *measured)))
    return rows, days


def first_of(day: int) -> datetime:
    """The first instant of a day.

    Raises: OverflowError where no calendar has it.
    """
    return from_ms(day * _DAY_MS)


@lru_cache(maxsize=_NAMES_KEPT)
def _owner(tenant_id: str, customer_id: str) -> bytes:
    return binary_copy.text(tenant_id) + binary_copy.text(customer_id)


@lru_cache(maxsize=_NAMES_KEPT)
def _name(name: str) -> bytes:
    """What the event is called, and where it came from."""
    return binary_copy.text(name) + binary_copy.text("client")


@lru_cache(maxsize=_NAMES_KEPT)
def _quantity(said: str) -> bytes:
    is_plain = said.isascii() and said.replace(".", "", 1).isdigit()
    return binary_copy.numeric(said if is_plain else "1")
