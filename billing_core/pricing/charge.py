"""Charges: a quantity and a table of rates become exact money, tier by tier.

Tiers are `(lo, hi]`. Graduated: each tier's packages at that tier's rate, and its flat amount once it is entered.
Volume: all packages at the rate of the tier that the total reaches, and that tier's flat amount. Quantity zero
costs nothing, unless the price says that its first flat amount is always due.

A period that is billed by several lines is charged by the cumulative difference: a line costs what the total
after it costs, less what the total before it cost. So packages and tiers come out right however the period is
cut. A volume price cannot be cut; it is charged by the closing line alone, and so is a minimum. A negative
quantity is never priced: a correction prices the corrected total and bills the difference. `mirrored` exists for
books that were kept the other way.

Worked example: tiers <=10 at 10 + 2 flat, <=20 at 5 + 3, open at 5 + 3. Twelve units: 10 * 10 + 2, then 2 * 5 +
3, in all 115.

Units: money in exact nanos, quantities in the meter's units, parts in packages.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

import msgspec

from billing_core.catalog.rate import Method, RateTable, RateTier
from billing_core.errors import InvalidInput
from billing_core.values.money import Exact, to_minor

Quantity = Exact | Decimal


class PartKind(StrEnum):
    """Why a part is on the line: a tier's units, or the top-up to a minimum."""

    TIER = "tier"
    MINIMUM = "minimum"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one tier contributes. `amount_nanos` is net of `capped_nanos`, which the price's maximum took off."""

    kind: PartKind = PartKind.TIER
    tier_index: int = 0
    quantity: Exact = 0
    unit_nanos: Exact = 0
    flat_nanos: Exact = 0
    capped_nanos: Exact = 0
    amount_nanos: Exact


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What a quantity costs, exactly, and by which tiers."""

    quantity: Exact
    packages: Exact
    parts: tuple[Part, ...]
    amount_nanos: Exact


def charge_of(table: RateTable, quantity: Quantity, *, tier_quantity: Quantity | None = None) -> Charge:
    """What the whole period's quantity costs.

    `tier_quantity` chooses the tier of a volume price where the quantity that is priced was prorated.

    Raises: InvalidInput for a negative quantity.
    """
    units = _priceable(quantity)
    counted = table.packages(units)
    if table.method is Method.VOLUME:
        chosen = counted if tier_quantity is None else table.packages(_priceable(tier_quantity))
        parts = _volume_parts(table, counted, chosen=chosen)
    else:
        parts = list(_graduated_parts(table, before=None, after=counted))
    parts = _bounded(table, parts)
    return _charge(units, parts, packages=counted)


def charge_between(table: RateTable, *, before: Quantity | None, after: Quantity, closing: bool) -> Charge:
    """What a line costs that takes the period's total from `before` to `after`.

    `before` is None for the period's first line; `closing` says whether this is the last one. Lines that follow one
    another add up to `charge_of` the last total.

    Raises: InvalidInput for a negative quantity or a total that shrinks.
    """
    start, end = (None if before is None else _priceable(before)), _priceable(after)
    if start is not None and end < start:
        raise InvalidInput("a total never shrinks: a correction prices the corrected total", field="quantity")
    line_units = end - (start or 0)
    if table.method is Method.VOLUME:
        return charge_of(table, end) if closing else _charge(line_units, [], packages=0)
    counted_before, counted_after = (None if start is None else table.packages(start)), table.packages(end)
    parts = list(_graduated_parts(table, before=counted_before, after=counted_after))
    billed: Exact = 0
    if counted_before is not None:
        billed = _sum(_capped(table, list(_graduated_parts(table, before=None, after=counted_before)), billed=0))
    parts = _capped(table, parts, billed=billed)
    if closing:
        parts = _topped_up(table, parts, billed=billed)
    return _charge(line_units, parts, packages=counted_after - (counted_before or 0))


def mirrored(charge: Charge) -> Charge:
    """The same charge with every sign turned: what a negative quantity costs in books that price one."""
    parts = tuple(
        msgspec.structs.replace(
            part,
            quantity=-part.quantity,
            flat_nanos=-part.flat_nanos,
            capped_nanos=-part.capped_nanos,
            amount_nanos=-part.amount_nanos,
        )
        for part in charge.parts
    )
    return Charge(
        quantity=-charge.quantity, packages=-charge.packages, parts=parts, amount_nanos=-charge.amount_nanos
    )


def still_due_minor(exact_nanos: Exact, *, billed_minor: int, currency: str) -> int:
    """What is left to bill of an exact amount: rounded once as a whole, then less what was billed.

    Example: 3.685 of which 3.69 was billed leaves 0, not half a cent.
    """
    return to_minor(exact_nanos, currency) - billed_minor


def _priceable(quantity: Quantity) -> Exact:
    if quantity < 0:
        raise InvalidInput("a negative quantity is never priced", field="quantity")
    numerator, denominator = quantity.as_integer_ratio()
    return numerator if denominator == 1 else Fraction(numerator, denominator)


def _charge(quantity: Exact, parts: list[Part], *, packages: Exact) -> Charge:
    return Charge(quantity=quantity, packages=packages, parts=tuple(parts), amount_nanos=_sum(parts))


def _sum(parts: list[Part]) -> Exact:
    return sum(part.amount_nanos for part in parts)


def _graduated_parts(table: RateTable, *, before: Exact | None, after: Exact) -> Iterator[Part]:
    """The tiers that the range (before, after] touches; `before` None means that nothing was billed yet."""
    start, low = before or 0, 0
    for index, tier in enumerate(table.tiers):
        high = after if tier.upto is None else min(tier.upto, after)
        quantity = max(0, high - max(low, start))
        always = index == 0 and table.first_flat_always_due
        entered = after > low or always
        entered_before = before is not None and (before > low or always)
        flat = tier.flat_nanos if entered and not entered_before else 0
        if quantity or flat:
            yield _part(index, tier, quantity=quantity, flat=flat)
        if tier.upto is None or after <= tier.upto:
            return
        low = tier.upto


def _volume_parts(table: RateTable, counted: Exact, *, chosen: Exact) -> list[Part]:
    index = next(i for i, tier in enumerate(table.tiers) if tier.upto is None or chosen <= tier.upto)
    tier = table.tiers[index]
    if not chosen and not table.first_flat_always_due:
        return []
    return [_part(index, tier, quantity=counted, flat=tier.flat_nanos)]


def _part(index: int, tier: RateTier, *, quantity: Exact, flat: Exact) -> Part:
    amount = quantity * tier.unit_nanos + flat
    return Part(
        tier_index=index, quantity=quantity, unit_nanos=tier.unit_nanos, flat_nanos=flat, amount_nanos=amount
    )


def _bounded(table: RateTable, parts: list[Part]) -> list[Part]:
    return _topped_up(table, _capped(table, parts, billed=0), billed=0)


def _capped(table: RateTable, parts: list[Part], *, billed: Exact) -> list[Part]:
    """Take what is above the maximum off the last parts first."""
    if table.maximum_nanos is None:
        return parts
    excess = max(0, billed + _sum(parts) - table.maximum_nanos)
    capped: list[Part] = []
    for part in reversed(parts):
        off = min(excess, part.amount_nanos)
        excess -= off
        capped.append(msgspec.structs.replace(part, capped_nanos=off, amount_nanos=part.amount_nanos - off))
    return capped[::-1]


def _topped_up(table: RateTable, parts: list[Part], *, billed: Exact) -> list[Part]:
    missing = (table.minimum_nanos or 0) - billed - _sum(parts)
    return [*parts, Part(kind=PartKind.MINIMUM, amount_nanos=missing)] if missing > 0 else parts
