"""What a request is: its features and quantities, as the route says, and the order that decides them.

A number in a body or a header is the client's word. Where it is charged at once, that is the price list's business;
where it is held, the response says later what it came to.

An estimate counts the text below a place in the body: every four bytes are a token, which is near enough for the
English that models are asked in, and settled by what the model has counted.

Worked example: `estimate = "messages"` of `{"messages": [{"role": "user", "content": "Hello there"}]}` is 15 bytes
of text, role and content: 4 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import msgspec

from billing_core.errors import InvalidInput
from gateway.admission.order import Charge, Mode, Order
from gateway.edge.proxy.rule import QuantityRule, RouteRule

BYTES_PER_TOKEN: Final = 4
_DIGITS: Final = 16


class Pricing:
    """Of one route. `always`: the order of each of its requests; None where it stands in the request."""

    __slots__ = ("_rule", "_shadow", "always")

    def __init__(self, rule: RouteRule, *, shadow: bool) -> None:
        self._rule = rule
        self._shadow = shadow or rule.shadow
        quantities = [charge.quantity.units for charge in rule.charges]
        fixed = [
            Charge(feature=charge.feature, quantity=units)
            for charge, units in zip(rule.charges, quantities, strict=True)
            if units is not None
        ]
        is_fixed = len(fixed) == len(quantities)
        self.always = self._order(tuple(fixed)) if is_fixed else None

    def order(self, fields: Mapping[str, str], document: object) -> Order:
        """What is asked for.

        Raises: InvalidInput where the request does not say what it must.
        """
        if self.always is not None:
            return self.always
        charges = [
            Charge(feature=charge.feature, quantity=_quantity(charge.quantity, fields, document=document))
            for charge in self._rule.charges
        ]
        return self._order(tuple(charges))

    def _order(self, charges: tuple[Charge, ...]) -> Order:
        rule = self._rule
        is_hold = rule.mode is Mode.HOLD
        return Order(
            charges=charges,
            mode=rule.mode,
            ttl_ms=rule.ttl_ms if is_hold else 0,
            on_expiry=rule.on_expiry,
            shadow=self._shadow,
        )


def read_document(body: bytes) -> object:
    """A JSON body. Raises: InvalidInput."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("must be JSON: the price stands in it", field="body") from None


def found_at(document: object, path: str) -> object:
    """What stands at a place such as `usage.total_tokens` or `choices.0.text`; None where nothing does."""
    for step in path.split("."):
        if isinstance(document, dict):
            document = cast("dict[str, object]", document).get(step)
        elif isinstance(document, list):
            found = cast("list[object]", document)
            document = found[int(step)] if step.isdigit() and int(step) < len(found) else None
        else:
            return None
    return document


def units_of(value: object) -> int | None:
    """A whole number of at least 0, as JSON or a header says it; None where it is none."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) <= _DIGITS else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and 0 <= value <= 10**_DIGITS else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def text_bytes(document: object) -> int:
    """How much text a document has, names of its fields not counted."""
    if isinstance(document, str):
        return len(document.encode("utf-8", "surrogatepass"))
    if isinstance(document, dict):
        return sum(map(text_bytes, cast("dict[str, object]", document).values()))
    return sum(map(text_bytes, cast("list[object]", document))) if isinstance(document, list) else 0


def tokens_in(size: int) -> int:
    """So many bytes of text in tokens."""
    return -(-size // BYTES_PER_TOKEN)


def _quantity(rule: QuantityRule, fields: Mapping[str, str], *, document: object) -> int:
    if rule.units is not None:
        return rule.units
    if rule.estimate is not None:
        return min(tokens_in(text_bytes(found_at(document, rule.estimate))), rule.most)
    name = rule.header or rule.json or ""
    value = fields.get(name) if rule.header is not None else found_at(document, name)
    units = rule.default if value is None else units_of(value)
    if units is None or units > rule.most:
        raise InvalidInput(f"must be a whole number from 0 to {rule.most}", field=name)
    return units
