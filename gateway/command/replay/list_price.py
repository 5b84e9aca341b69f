"""The list price, worked out anew from the catalog file: what the whole of a trace must cost to the nano.

This is the other hand of the proof. Nothing here knows how the house prices: it reads two rates and a fee from the
TOML file and multiplies. What the invoices say in the end is held against it.

Worked example: 2.50 per 1,000,000 input tokens and 10.00 per 1,000,000 output tokens make 2,500 and 10,000 nanos a
token; 374 in and 44 out cost 935,000 + 440,000 = 1,375,000 nanos.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import msgspec

from billing_core.errors import InvalidInput
from billing_core.values.money import nanos_of

INPUT: Final = "input_tokens"
OUTPUT: Final = "output_tokens"


class _Price(msgspec.Struct, frozen=True, kw_only=True):
    """The words of a price that are read here."""

    code: str
    meter: str
    model: str
    unit_amount: str = "0"
    per: int | str = 1
    pay: str = "arrears"
    feature: str = ""


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The words of a plan that are read here."""

    code: str
    currency: str
    fee_amount: str = "0"
    prices: tuple[_Price, ...] = ()


class _Catalog(msgspec.Struct, frozen=True, kw_only=True):
    """The words of a catalog that are read here."""

    plans: tuple[_Plan, ...] = ()


class ListPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What one plan charges. Units: nanos a unit, exact; minor units of the currency for the fee."""

    plan: str
    currency: str
    fee_nanos: int
    input_nanos: Fraction
    output_nanos: Fraction

    def cost_nanos(self, input_units: int, output_units: int) -> Fraction:
        """What so many units cost, exactly."""
        return self.input_nanos * input_units + self.output_nanos * output_units


def list_price_of(document: dict[str, object], plan_code: str) -> ListPrice:
    """The list price of one plan.

    Raises: InvalidInput where there is no such plan, or where it does not charge both kinds of token as they come.
    """
    try:
        catalog = msgspec.convert(document, _Catalog)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{error}", field="catalog") from None
    plan = next((one for one in catalog.plans if one.code == plan_code), None)
    if plan is None:
        offered = ", ".join(one.code for one in catalog.plans)
        raise InvalidInput(f"the catalog has no plan {plan_code!r}; it has {offered}", field="plan")
    fee = nanos_of(plan.fee_amount, field="fee_amount")
    return ListPrice(
        plan=plan.code,
        currency=plan.currency,
        fee_nanos=int(fee),
        input_nanos=_rate(plan, INPUT),
        output_nanos=_rate(plan, OUTPUT),
    )


def _rate(plan: _Plan, feature: str) -> Fraction:
    """Nanos a unit of the feature's one prepaid price."""
    prices = [one for one in plan.prices if feature in (one.feature, one.meter)]
    if len(prices) != 1 or prices[0].model != "per_unit" or prices[0].pay != "prepaid":
        rule = f"a replay needs one prepaid per_unit price on {feature}"
        raise InvalidInput(rule, field=f"plan {plan.code}")
    per = prices[0].per
    if not isinstance(per, int):
        raise InvalidInput(f"a rate per {per} cannot be replayed", field=f"price {prices[0].code}")
    return nanos_of(prices[0].unit_amount, field=f"price {prices[0].code}") / per
