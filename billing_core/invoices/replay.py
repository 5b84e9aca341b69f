"""Replay: a line made again from the stored plan version and the raw events, held against what was billed.

A replay that is the same has the same bytes. One that is not says what differs, field by field: an event that was
removed or changed shows as another count and digest, another plan version as another amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from billing_core.invoices.correction import Billed, differences_of, place_of
from billing_core.invoices.line import Line, LineKind

_CANONICAL = msgspec.json.Encoder(order="deterministic")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a line that came out differently, both as JSON text."""

    line_no: int
    field: str
    billed: str
    replayed: str


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What replaying an invoice found. `is_same` means the same bytes, line for line."""

    invoice_id: str
    is_same: bool
    lines: int
    differences: tuple[Difference, ...]


def line_bytes(line: Line) -> bytes:
    """The one spelling of a line."""
    return _CANONICAL.encode(line)


def corrected_again(kept: Line, again: Sequence[Line]) -> Line | None:
    """The correction that the period rated anew makes of what had been billed before `kept`."""
    earlier = kept.earlier
    if earlier is None:
        return None
    billed = Billed(
        price_code=kept.price_code,
        meter_code=kept.meter_code,
        group_key=kept.group_key,
        quantity=Decimal(earlier.quantity),
        amount_minor=earlier.amount_minor,
        prepaid_minor=earlier.prepaid_minor,
        event_count=earlier.event_count,
    )
    found = differences_of(again, [billed], cut=earlier.recorded_until)
    return next((line for line in found if place_of(line) == place_of(kept)), None)


def compared(line_no: int, kept: Line, *, again: Line | None) -> list[Difference]:
    """What differs; nothing where the bytes are the same. A credit that had no room is compared whole."""
    if kept.earlier is not None:
        kept = msgspec.structs.replace(kept, amount_minor=kept.earlier.whole_minor)
    if again is None:
        return [Difference(line_no=line_no, field="line", billed=_CANONICAL.encode(kept).decode(), replayed="null")]
    if line_bytes(kept) == line_bytes(again):
        return []
    return [
        Difference(line_no=line_no, field=name, billed=before.decode(), replayed=after.decode())
        for name in kept.__struct_fields__
        if (before := _CANONICAL.encode(getattr(kept, name))) != (after := _CANONICAL.encode(getattr(again, name)))
    ]


def is_rated(line: Line) -> bool:
    """Whether events made the line."""
    return line.kind is not LineKind.FEE
