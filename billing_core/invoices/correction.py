"""Corrections: what came late keeps its period of service and is billed on the next invoice.

A closed period never changes. Where events of it were recorded after its cut, the whole period is rated again as of
now, and the difference to all that was billed for it becomes a line of the open period's invoice. The quantity that
is priced is never the late one alone, because tiers and packages would begin anew.

A difference may be negative: more units can reach a cheaper volume tier. It is given back on the line, as far as
the invoice's total and due stay above zero. What has no room is not written down anywhere; the period keeps its
cut, so that the next invoice finds the same difference again and gives back the rest.

Worked example: 10 a unit, 5 units billed in March. A late event makes it 7. April has 3. April's invoice has +20
of March and +30 of April; not 50 of April.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import msgspec

from billing_core.invoices.invoice import Totals
from billing_core.invoices.line import Earlier, Line, LineKind
from billing_core.pricing.record import exact_of, exact_text

Place = tuple[str, tuple[tuple[str, str], ...]]
"""Price code and group key: what stays the same when a period is rated again."""


class Billed(msgspec.Struct, frozen=True, kw_only=True):
    """All that was billed for one price and group of a closed period, over every invoice that has a line of it."""

    price_code: str
    meter_code: str
    group_key: dict[str, str]
    quantity: Decimal
    amount_minor: int
    prepaid_minor: int
    event_count: int


class Corrections(msgspec.Struct, frozen=True, kw_only=True):
    """The lines that have room, and whether some of what is owed back had none."""

    lines: tuple[Line, ...]
    is_complete: bool


def place_of(line: Line | Billed) -> Place:
    """Where a line of a period stands."""
    return line.price_code, tuple(sorted(line.group_key.items()))


def differences_of(again: Sequence[Line], billed: Iterable[Billed], *, cut: datetime) -> list[Line]:
    """A correction line for each price and group of a closed period that now costs something else.

    `again` are the lines of the period rated anew, `billed` what was billed for it, `cut` the one it was billed at.
    """
    before = {place_of(one): one for one in billed}
    after = {place_of(line): line for line in again}
    lines = [_difference(line, before.get(place), cut=cut) for place, line in after.items()]
    if again:
        gone = [one for place, one in before.items() if place not in after]
        lines += [_difference(_nothing(again[0], one), one, cut=cut) for one in gone]
    return [line for line in lines if line.amount_minor or line.prepaid_minor]


def fitted(corrections: Iterable[Line], *, other: Totals) -> Corrections:
    """What fits on an invoice whose other lines add up to `other`: every charge, and credit as far as it goes."""
    wanted = sorted(corrections, key=_takes)
    lines: list[Line] = []
    total, due, is_complete = other.total_minor, other.due_minor, True
    for line in wanted:
        part = _within(line, total=total, due=due)
        is_complete = is_complete and part == line
        if part is not None:
            lines.append(part)
            total, due = total + part.amount_minor, due + part.due_minor
    return Corrections(lines=tuple(lines), is_complete=is_complete)


def _takes(line: Line) -> bool:
    return line.amount_minor < 0 or line.due_minor < 0


def _within(line: Line, *, total: int, due: int) -> Line | None:
    """The line, cut to the room there is; None where it has none. A line that moves prepaid money is not cut."""
    if total + line.amount_minor >= 0 and due + line.due_minor >= 0:
        return line
    room = min(total, due)
    if line.prepaid_minor or not room:
        return None
    return msgspec.structs.replace(line, amount_minor=-room)


def _difference(line: Line, billed: Billed | None, *, cut: datetime) -> Line:
    """The line less what was billed, with the whole new rating in its parts and digest."""
    before = billed or Billed(
        price_code="",
        meter_code="",
        group_key={},
        quantity=Decimal(0),
        amount_minor=0,
        prepaid_minor=0,
        event_count=0,
    )
    whole_minor = line.amount_minor - before.amount_minor
    earlier = Earlier(
        quantity=exact_text(Fraction(before.quantity)),
        amount_minor=before.amount_minor,
        prepaid_minor=before.prepaid_minor,
        event_count=before.event_count,
        recorded_until=cut,
        whole_minor=whole_minor,
    )
    return msgspec.structs.replace(
        line,
        kind=LineKind.CORRECTION,
        description=f"{line.description}: correction",
        quantity=exact_text(exact_of(line.quantity) - Fraction(before.quantity)),
        amount_minor=whole_minor,
        prepaid_minor=line.prepaid_minor - before.prepaid_minor,
        event_count=line.event_count - before.event_count,
        earlier=earlier,
    )


def _nothing(other: Line, billed: Billed) -> Line:
    """A place that was billed and now has nothing: a minimum that was due while there was no group."""
    return Line(
        kind=LineKind.USAGE,
        description=billed.price_code,
        plan_code=other.plan_code,
        plan_version=other.plan_version,
        price_code=billed.price_code,
        meter_code=billed.meter_code,
        group_key=billed.group_key,
        service_start_at=other.service_start_at,
        service_end_at=other.service_end_at,
        recorded_until=other.recorded_until,
        quantity="0",
        amount_minor=0,
    )
