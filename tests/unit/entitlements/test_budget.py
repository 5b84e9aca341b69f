"""Budgets: what a document may say, and what holds a node back in the end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_core.catalog.document import Feature, FeatureKind
from billing_core.catalog.guard import EntitlementTerms, PlanSpendCap, SpendLevel
from billing_core.entitlements.budget import (
    MAX_NODES,
    BudgetDocument,
    check_budgets,
    customer_caps,
    node_terms,
)
from billing_core.errors import InvalidInput
from billing_core.values.period import Interval

FEATURES = {
    "calls": Feature(code="calls", kind=FeatureKind.METERED, meter="calls"),
    "seats": Feature(code="seats", kind=FeatureKind.GAUGE, meter="seats"),
    "dark": Feature(code="dark", kind=FeatureKind.SWITCH),
}


def document(*nodes: dict[str, Any]) -> BudgetDocument:
    return msgspec.convert({"nodes": list(nodes)}, BudgetDocument)


def calls(units: int, interval: str = "day") -> dict[str, Any]:
    return {"feature": "calls", "limits": [{"units": units, "interval": interval}]}


def cap(amount: str, **more: Any) -> dict[str, Any]:
    return {"amount": amount, "currency": "USD", "interval": "month", **more}


def test_a_sound_document_is_taken() -> None:
    """The customer, kinds of nodes, single nodes; guards without a word."""
    check_budgets(
        document(
            {"guards": [calls(1)], "spend_caps": [cap("0"), cap("5", interval="day"), cap("1", currency="AIC")]},
            {
                "node": "team:*",
                "guards": [calls(2), {"feature": "seats", "limits": [{"units": 1, "anchor": "lifetime"}]}],
            },
            {"node": "team:ml/project:chat/user:bob/key:k1", "guards": [{"feature": "calls"}]},
        ),
        features=FEATURES,
        units=["AIC"],
    )


@pytest.mark.parametrize(
    ("nodes", "field", "rule"),
    [
        ([{"node": "team"}], "nodes[0].node", "team:*"),
        ([{"node": "floor:*"}], "nodes[0].node", "is not a segment"),
        ([{"node": "key:k/team:ml"}], "nodes[0].node", "in the wrong place"),
        ([{"node": "team:ml/project:*"}], "nodes[0].node", "is not a segment"),
        ([{"node": "team:ml"}, {"node": "team:ml"}], "nodes[1].node", "named by nodes[0] already"),
        ([{}, {}], "nodes[1].node", "named by nodes[0] already"),
        ([{"guards": [{"feature": "nothing"}]}], "nodes[0].guards[0].feature", "there is no feature"),
        ([{"guards": [{"feature": "dark"}]}], "nodes[0].guards[0].feature", "cannot be limited"),
        ([{"guards": [calls(1), calls(2)]}], "nodes[0].guards[1].feature", "already"),
        ([{"guards": [calls(-1)]}], "nodes[0].guards[0].limits[0].units", "from 0 to"),
        (
            [{"guards": [{"feature": "seats", "limits": [{"units": 1, "interval": "day"}]}]}],
            "nodes[0].guards[0].limits[0].anchor",
            "for its lifetime",
        ),
        ([{"spend_caps": [{"amount": "1", "interval": "day"}]}], "nodes[0].spend_caps[0].currency", "names the"),
        ([{"spend_caps": [cap("1", currency="dollar")]}], "nodes[0].spend_caps[0].currency", "neither"),
        ([{"spend_caps": [cap("1", currency="AIC")]}], "nodes[0].spend_caps[0].currency", "neither"),
        ([{"spend_caps": [cap("1"), cap("2")]}], "nodes[0].spend_caps[1]", "already"),
        ([{"spend_caps": [cap(str(n)) for n in range(9)]}], "nodes[0].spend_caps", "at most 8 spend caps"),
        ([{"node": f"key:k{n}"} for n in range(MAX_NODES + 1)], "nodes", "at most 1000 nodes"),
    ],
)
def test_a_document_that_breaks_a_rule_is_refused(nodes: list[dict[str, Any]], field: str, rule: str) -> None:
    """By the path of what breaks it."""
    with pytest.raises(InvalidInput) as caught:
        check_budgets(document(*nodes), features=FEATURES, units=[])
    assert caught.value.field == field
    assert rule in caught.value.detail


ENTITLED = {
    "calls": msgspec.convert(
        {"feature": "calls", "levels": {"key": {"limits": [{"units": 1000, "interval": "day"}]}}}, EntitlementTerms
    ),
    "seats": EntitlementTerms(feature="seats"),
}
PLAN_CAPS = (
    PlanSpendCap(amount="100", interval=Interval.MONTH),
    PlanSpendCap(amount="7", interval=Interval.MONTH, level=SpendLevel.KEY),
)


def told(*nodes: dict[str, Any]) -> dict[str, tuple[dict[str, list[int]], dict[str, str]]]:
    """Units by feature and amounts by counter, of each node."""
    found = node_terms(document(*nodes), ENTITLED, plan_caps=PLAN_CAPS, currency="USD")
    return {
        node: (
            {code: [limit.units for limit in guard.limits] for code, guard in terms.guards.items()},
            {counter: cap.amount for counter, cap in terms.caps.items()},
        )
        for node, terms in found.items()
    }


def test_the_plans_defaults_stand_for_every_node_of_their_level() -> None:
    """Where no document says otherwise."""
    assert told() == {"key:*": ({"calls": [1000]}, {"$USD@month": "7"})}


def test_the_nearest_word_counts_feature_by_feature_and_cap_by_cap() -> None:
    """A node over its kind's star over the plan; other kinds are none of its business."""
    seats = {"feature": "seats", "limits": [{"units": 3, "anchor": "lifetime"}]}
    found = told(
        {"node": "key:*", "guards": [calls(50)]},
        {"node": "team:ml/key:batch", "guards": [calls(5000)], "spend_caps": [cap("9"), cap("1", interval="day")]},
        {"node": "key:idle", "guards": [seats]},
        {"node": "team:ml", "spend_caps": [cap("60")]},
    )
    assert found == {
        "key:*": ({"calls": [50]}, {"$USD@month": "7"}),
        "team:ml/key:batch": ({"calls": [5000]}, {"$USD@month": "9", "$USD@day": "1"}),
        "key:idle": ({"calls": [50], "seats": [3]}, {"$USD@month": "7"}),
        "team:ml": ({}, {"$USD@month": "60"}),
    }


def test_a_guard_without_a_word_lifts_the_default() -> None:
    """For this node and this feature."""
    assert told({"node": "key:free", "guards": [{"feature": "calls"}]})["key:free"][0] == {"calls": []}


def test_a_feature_that_nobody_is_entitled_to_needs_no_guard() -> None:
    """It is refused anyway."""
    found = node_terms(document({"node": "team:a", "guards": [calls(1)]}), {})
    assert found == {}


def test_at_the_customer_the_cap_that_refuses_first_counts() -> None:
    """Nothing that the plan caps is lifted."""
    for amount, counted in (("5", "5"), ("500", "100")):
        caps = customer_caps(document({"spend_caps": [cap(amount)]}), PLAN_CAPS, currency="USD")
        assert {name: one.amount for name, one in caps.items()} == {"$USD@month": counted}
    caps = customer_caps(
        document({"spend_caps": [cap("5", mode="soft"), cap("2", interval="day")]}), PLAN_CAPS, currency="USD"
    )
    assert {name: one.amount for name, one in caps.items()} == {"$USD@month": "100", "$USD@day": "2"}
