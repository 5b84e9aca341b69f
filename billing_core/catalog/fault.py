"""A fault of a document: the place and the rule that is broken there."""

from __future__ import annotations

from typing import NamedTuple

from billing_core.errors import InvalidInput


class Fault(NamedTuple):
    """Where, as `plans[0].prices[1].tiers`, and which rule."""

    field: str
    rule: str


def raise_first(faults: list[Fault]) -> None:
    """Raise InvalidInput for the first fault, naming the others in its text; return where there is none."""
    if not faults:
        return
    first, *others = faults
    also = "".join(f"; also {fault.field}: {fault.rule}" for fault in others[:9])
    more = f"; and {len(others) - 9} more" if len(others) > 9 else ""
    raise InvalidInput(f"{first.rule}{also}{more}", field=first.field)
