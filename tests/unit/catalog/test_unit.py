"""Credit units: what may name one, and where a price may be in one."""

from __future__ import annotations

import msgspec
import pytest

from billing_core.catalog.catalog import Catalog, catalog_of
from billing_core.catalog.document import CatalogDocument
from billing_core.errors import InvalidInput

AIC = {"code": "AIC", "name": "AI credits"}


def priced(**more: object) -> dict[str, object]:
    words = {"meter": "calls", "model": "per_unit", "unit_amount": "2", "pay": "prepaid", "feature": "calls"}
    return {"code": "calls", **words, **more}


def catalog(*prices: dict[str, object], units: tuple[dict[str, str], ...] = (AIC,)) -> Catalog:
    words = {
        "units": units,
        "meters": [{"code": "calls", "event": "calls", "aggregation": "sum", "field": "quantity"}],
        "features": [{"code": "calls", "kind": "metered", "meter": "calls"}],
        "plans": [
            {"code": "basic", "currency": "USD", "entitlements": [{"feature": "calls"}], "prices": list(prices)}
        ],
    }
    return catalog_of(msgspec.convert(words, CatalogDocument))


@pytest.mark.parametrize("code", ["AIC", "CREDIT", "XP", "T0KENS", "ABCDEFGHIJKLMNOP"])
def test_a_unit_may_be_named_so(code: str) -> None:
    """Two to sixteen capital letters and digits that are no currency's code."""
    assert catalog(units=({"code": code},)).document.units[0].code == code


@pytest.mark.parametrize("code", ["", "A", "aic", "1AB", "A-B", "USD", "JPY", "ABCDEFGHIJKLMNOPQ", "AIC\n"])
def test_a_unit_may_not_be_named_so(code: str) -> None:
    """A unit that looks like a currency would be taken for money."""
    with pytest.raises(InvalidInput, match="capital letters and digits") as refusal:
        catalog(units=({"code": code},))
    assert refusal.value.field == "units[0].code"


def test_a_unit_is_declared_once() -> None:
    """Like every code of a catalog."""
    with pytest.raises(InvalidInput, match="already taken"):
        catalog(units=(AIC, AIC))


def test_a_feature_may_be_paid_out_of_several_wallets_once_each() -> None:
    """First credits, then dollars, then euros; but not dollars twice."""
    several = (priced(currency="AIC"), priced(code="usd"), priced(code="eur", currency="EUR"))
    assert len(catalog(*several).plan("basic").prices) == 3
    with pytest.raises(InvalidInput, match="is already charged by price 'usd'") as refusal:
        catalog(*several, priced(code="again", currency="USD"))
    assert refusal.value.field == "plans[0].prices[3].feature"


@pytest.mark.parametrize(
    ("price", "rule"),
    [
        (priced(currency="NOPE"), "'NOPE' is neither a currency nor one of the units"),
        (priced(currency="usd"), "'usd' is neither a currency nor one of the units"),
        (priced(currency="AIC", pay="arrears", feature=""), "only a prepaid price has a currency of its own"),
    ],
)
def test_a_price_of_another_currency_is_prepaid_and_known(price: dict[str, object], rule: str) -> None:
    """No invoice of the plan could have a line in it."""
    with pytest.raises(InvalidInput, match=rule) as refusal:
        catalog(price)
    assert refusal.value.field == "plans[0].prices[0].currency"
