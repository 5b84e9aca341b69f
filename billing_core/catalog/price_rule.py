"""The rules of one price: what each model reads, how a table of tiers must look, and what prepaid rules out.

Every word of a price must mean something for its model: a rate beside a table of tiers, or tiers beside a rate, is
refused, because one of the two would be read by nobody.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from fractions import Fraction

import msgspec

from billing_core.catalog.document import Meter, Model, PackageRounding, Pay, PeriodMeasure, Price
from billing_core.catalog.fault import Fault
from billing_core.catalog.rate import bound_of
from billing_core.catalog.tariff import tariff_of
from billing_core.contract.snapshot import Window, WindowKind
from billing_core.errors import InvalidInput
from billing_core.values.money import MAX_EXACT, is_currency, minor_exponent, nanos_of

_AMOUNT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,18})?\Z")
_BOUND = re.compile(r"[0-9]{1,16}(\.[0-9]{1,12})?\Z")
MAX_TIERS = 100


class _Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Which words a model needs and which it may have."""

    needs: frozenset[str]
    may: frozenset[str] = frozenset()


_RATE_WORDS = ("unit_amount", "flat_amount", "tiers", "free_units")
_SHAPES = {
    Model.FLAT: _Shape(needs=frozenset({"flat_amount"})),
    Model.PER_UNIT: _Shape(needs=frozenset({"unit_amount"}), may=frozenset({"flat_amount", "free_units"})),
    Model.PACKAGE: _Shape(needs=frozenset({"unit_amount"}), may=frozenset({"flat_amount", "free_units"})),
    Model.GRADUATED: _Shape(needs=frozenset({"tiers"})),
    Model.VOLUME: _Shape(needs=frozenset({"tiers"})),
}


def price_faults(price: Price, path: str, *, meter: Meter | None, units: Collection[str] = ()) -> Iterator[Fault]:
    """Every fault of one price; `meter` is the one it names, where that exists; `units` are the tenant's own."""
    own = [
        *_shape_faults(price, path),
        *_number_faults(price, path),
        *_tier_faults(price, path),
        *_bound_faults(price, path),
    ]
    yield from own
    yield from _pay_faults(price, path, meter=meter)
    yield from _currency_faults(price, path, units=units)
    if price.pay is Pay.PREPAID and price.model is not Model.VOLUME and not own and not _is_timed(price):
        yield from _tariff_faults(price, path)


def amount_faults(text: str, field: str, *, whole_minor_of: str = "") -> Iterator[Fault]:
    """Whether an amount is plain decimal text that is not negative, perhaps in whole minor units of a currency."""
    if not _AMOUNT.match(text):
        yield Fault(
            field, f"{text!r} is not an amount like 12.50: digits, perhaps a point, at most 18 digits behind it"
        )
    elif text.startswith("-"):
        yield Fault(field, "must not be negative")
    elif whole_minor_of:
        try:
            minor = nanos_of(text, field=field) * 10 ** minor_exponent(whole_minor_of) / 10**9
        except InvalidInput:
            return
        if minor.denominator != 1:
            yield Fault(field, f"must be a whole number of minor units of {whole_minor_of}")


def _is_timed(price: Price) -> bool:
    return isinstance(price.per, PeriodMeasure)


def _shape_faults(price: Price, path: str) -> Iterator[Fault]:
    shape = _SHAPES[price.model]
    for word in _RATE_WORDS:
        there = bool(getattr(price, word))
        if word in shape.needs and not there:
            yield Fault(f"{path}.{word}", f"a {price.model} price needs it")
        if there and word not in shape.needs | shape.may:
            yield Fault(f"{path}.{word}", f"a {price.model} price does not read it")
    if price.model is Model.FLAT and (price.package_units != 1 or price.per != 1):
        yield Fault(f"{path}.model", "a flat price reads neither package_units nor per")
    if price.first_flat_always_due and not _has_first_flat(price):
        yield Fault(f"{path}.first_flat_always_due", "the price has no first flat amount")


def _has_first_flat(price: Price) -> bool:
    return any(char in "123456789" for char in (price.tiers[0].flat_amount if price.tiers else price.flat_amount))


def _number_faults(price: Price, path: str) -> Iterator[Fault]:
    for word in ("unit_amount", "flat_amount"):
        text: str = getattr(price, word)
        if text:
            yield from amount_faults(text, f"{path}.{word}")
    if isinstance(price.per, int) and not 1 <= price.per <= MAX_EXACT:
        yield Fault(f"{path}.per", "must be a whole number from 1 to 2^53 - 1")
    if not 1 <= price.package_units <= MAX_EXACT:
        yield Fault(f"{path}.package_units", "must be a whole number from 1 to 2^53 - 1")
    if not 0 <= price.free_units <= MAX_EXACT:
        yield Fault(f"{path}.free_units", "must be a whole number from 0 to 2^53 - 1")


def _tier_faults(price: Price, path: str) -> Iterator[Fault]:
    if len(price.tiers) > MAX_TIERS:
        yield Fault(f"{path}.tiers", f"at most {MAX_TIERS} tiers")
    whole = price.package_units > 1 and price.package_rounding is not PackageRounding.NONE
    below = Fraction(0)
    for index, tier in enumerate(price.tiers):
        where = f"{path}.tiers[{index}]"
        yield from amount_faults(tier.unit_amount, f"{where}.unit_amount")
        yield from amount_faults(tier.flat_amount, f"{where}.flat_amount")
        if tier.upto is None:
            if index < len(price.tiers) - 1:
                yield Fault(f"{where}.upto", "only the last tier may be open")
            continue
        if not _BOUND.match(str(tier.upto)) or bound_of(tier.upto) > MAX_EXACT:
            yield Fault(f"{where}.upto", f"{tier.upto!r} is not a number of units above zero and below 2^53")
            continue
        bound = bound_of(tier.upto)
        if bound <= below:
            yield Fault(
                f"{where}.upto", f"tiers ascend: {tier.upto} is not above {'zero' if index == 0 else below}"
            )
        if whole and bound.denominator != 1:
            yield Fault(f"{where}.upto", "counts packages, so it is a whole number")
        below = bound
    if price.tiers and price.tiers[-1].upto is not None:
        rule = f"the last tier must be open (leave out upto), or units above {price.tiers[-1].upto} have no price"
        yield Fault(f"{path}.tiers", rule)


def _bound_faults(price: Price, path: str) -> Iterator[Fault]:
    sound = True
    for word in ("minimum_amount", "maximum_amount"):
        text: str = getattr(price, word)
        faults = list(amount_faults(text, f"{path}.{word}")) if text else []
        sound = sound and not faults
        yield from faults
        if text and price.pay is Pay.PREPAID:
            yield Fault(f"{path}.{word}", "a prepaid price has no bounds: each act is charged when it happens")
    if (
        sound
        and price.minimum_amount
        and price.maximum_amount
        and Fraction(price.minimum_amount) > Fraction(price.maximum_amount)
    ):
        yield Fault(f"{path}.minimum_amount", "must not be above maximum_amount")


def _pay_faults(price: Price, path: str, *, meter: Meter | None) -> Iterator[Fault]:
    if price.pay is Pay.ARREARS:
        if price.feature:
            yield Fault(f"{path}.feature", "only a prepaid price is charged at a feature's check")
        return
    if not price.feature:
        yield Fault(f"{path}.feature", "a prepaid price names the feature whose checks it charges")
    if price.model is Model.VOLUME:
        yield Fault(
            f"{path}.model", "a volume price cannot be prepaid: later units would change what earlier ones cost"
        )
    if price.first_flat_always_due:
        yield Fault(
            f"{path}.first_flat_always_due",
            "a prepaid price is charged by checks; where there is none, nothing is due",
        )
    if _is_timed(price):
        yield Fault(f"{path}.per", "a prepaid rate cannot wait for the length of its period")
    if meter is not None and meter.group_by:
        yield Fault(f"{path}.meter", "a prepaid price counts all units together, and this meter groups them")


def _currency_faults(price: Price, path: str, *, units: Collection[str]) -> Iterator[Fault]:
    """A price in another currency than its plan's is paid out of a wallet: no invoice could have it."""
    if not price.currency:
        return
    if price.pay is not Pay.PREPAID:
        yield Fault(f"{path}.currency", "only a prepaid price has a currency of its own")
    if price.currency not in units and not is_currency(price.currency):
        yield Fault(f"{path}.currency", f"{price.currency!r} is neither a currency nor one of the units")


def _tariff_faults(price: Price, path: str) -> Iterator[Fault]:
    try:
        tariff_of(price, price_id=price.code, currency="", window=Window(kind=WindowKind.LIFETIME))
    except InvalidInput as fault:
        yield Fault(f"{path}.{fault.field}", fault.detail)
