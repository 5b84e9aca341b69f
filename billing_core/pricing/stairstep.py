"""Stairsteps: one amount for a capacity, chosen by the worst of several peaks.

A step holds while every peak is within its bound; the first step that holds is the price. The last step has no
bounds, so every peak has a price.

Worked example: 10.00 up to 100 seats and 1,000 projects, 20.00 up to 200 and 2,000, else 30.00. Peaks of 100 seats
and 1,001 projects cost 20.00.

Units: peaks and bounds in the units of their meters, amounts in nanos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec

from billing_core.errors import InvalidInput


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step: an amount, and the largest peak of each meter that it covers. The open step has no bounds."""

    amount_nanos: Fraction
    upto: dict[str, Fraction] = {}


def stairstep_nanos(steps: Sequence[Step], peaks: Mapping[str, Fraction]) -> Fraction:
    """The amount of the first step that covers all peaks; a meter without a peak is at zero.

    Raises: InvalidInput where the last step is not open.
    """
    if not steps or steps[-1].upto:
        raise InvalidInput("the last step must be open, or peaks above it have no price", field="steps")
    return next(
        step.amount_nanos
        for step in steps
        if all(peaks.get(meter, Fraction(0)) <= bound for meter, bound in step.upto.items())
    )
