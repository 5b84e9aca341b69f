"""The cumulative price of a tariff: the twin of what the scripts compute.

A(u) is the exact price of u units since the start of the billing period. A debit of q units after u costs
floor(A(u + q)) - floor(A(u)) nanos, so the remainder is carried by construction and the sum of all debits is
floor(A(U)). A hold takes ceil(A(u + q) - A(u)).

Worked example: 1 nano per 3 units, batch 3. Debits of one unit each cost 0, 0, 1, 0, 0, 1 nanos.
"""

from __future__ import annotations

from fractions import Fraction

from billing_core.contract.snapshot import Tariff
from billing_core.values.invariant import invariant


def cumulative_nanos(tariff: Tariff, units: int) -> Fraction:
    """A(units): exact, callers take floor or ceil.

    Raises: InvariantBroken for negative units or a tariff whose last tier is closed.
    """
    invariant(units >= 0, "units are never negative")
    packages = -(-units // tariff.package_units)
    rated, flat, low = 0, 0, 0
    for tier in tariff.tiers:
        if packages <= low:
            break
        high = packages if tier.upto == 0 else min(tier.upto, packages)
        rated += (high - low) * tier.nanos_per_batch
        flat += tier.flat_nanos
        low = high if tier.upto == 0 else tier.upto
    invariant(packages <= low, "a tariff's last tier is open")
    return Fraction(rated, tariff.batch) + flat


def debit_nanos(tariff: Tariff, *, used_units: int, units: int) -> int:
    """What a debit of `units` after `used_units` costs in whole nanos."""
    after, before = cumulative_nanos(tariff, used_units + units), cumulative_nanos(tariff, used_units)
    return after.numerator // after.denominator - before.numerator // before.denominator


def hold_nanos(tariff: Tariff, *, used_units: int, units: int) -> int:
    """What a hold of `units` after `used_units` sets aside: never less than any debit of as many units."""
    cost = cumulative_nanos(tariff, used_units + units) - cumulative_nanos(tariff, used_units)
    return -(-cost.numerator // cost.denominator)
