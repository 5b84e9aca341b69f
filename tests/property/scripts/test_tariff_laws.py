"""Laws of a tariff in real time: the same requests come to the same money, who pays it now or who pays it later."""

from __future__ import annotations

import math
from typing import Any

from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st
from model.counting import cumulative
from shop import FOREVER, KEYS, LARGEST, Shop, metered

from billing_core.contract.snapshot import Budget, SpendCap, Tariff, Tier

GRANTED = LARGEST // 2


@st.composite
def prices(draw: st.DrawFn) -> dict[str, Any]:
    """Tiers, flat fees, packages and a denominator, small enough for every boundary to be met."""
    bounds = sorted(draw(st.sets(st.integers(1, 60), max_size=3)))
    rate, flat = st.integers(0, 50), st.sampled_from([0, 0, 7])
    tiers = tuple(Tier(upto=upto, nanos_per_batch=draw(rate), flat_nanos=draw(flat)) for upto in (*bounds, 0))
    return {"package_units": draw(st.integers(1, 4)), "batch": draw(st.sampled_from([1, 3, 7, 10])), "tiers": tiers}


def priced(terms: dict[str, Any], *, prepaid: bool) -> Tariff:
    return Tariff(price_id="p", currency="USD", window=FOREVER, prepaid=prepaid, **terms)


def played(desk: Desk, tariff: Tariff, acts: list[tuple[str, int]]) -> Shop:
    """A customer with money enough, after these acts."""
    shop = Shop(desk)
    cap = SpendCap(counter="$USD@ever", currency="USD", nanos=0, ceiling=-1, window=FOREVER)
    shop.project(calls=metered(tariff), budgets={"": Budget(caps=(cap,)), "team:*": Budget(caps=(cap,))})
    shop.grant("grant_a", GRANTED)
    for act, quantity in acts:
        match act:
            case "consume":
                assert shop.consume(("calls", quantity), path="team:ml")[0] == "allowed"
            case "record":
                assert shop.record(("calls", quantity), path="team:ml")[0] == "allowed"
            case _:
                hold_id = shop.hold(("calls", quantity), path="team:ml")[10]
                real = {"settle below": quantity // 2, "settle above": quantity + 3}.get(act, quantity)
                assert shop.settle(hold_id, ("calls", real))[0] == "settled"
    return shop


acts = st.lists(
    st.tuples(
        st.sampled_from(["consume", "consume", "record", "settle below", "settle at", "settle above"]),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(terms=prices(), acts=acts)
def test_prepaid_and_postpaid_come_to_the_same(
    desk: Desk, terms: dict[str, Any], acts: list[tuple[str, int]]
) -> None:
    """Entry by entry what is rated is equal; all of it leaves the wallet, or none; both spend caps have it."""
    now, later = priced(terms, prepaid=True), priced(terms, prepaid=False)
    shop = played(desk, now, acts)
    paid = [entry.charges[0] for entry in shop.entries()]
    total = sum(one.quantity for one in paid)
    exact = math.floor(cumulative(now, total))
    assert sum(one.rated_nanos for one in paid) == exact
    assert all((one.charged_nanos, one.uncollected_nanos) == (one.rated_nanos, 0) for one in paid)
    assert shop.wallet("r:grant_a") == GRANTED - exact
    assert shop.wallet("h:grant_a") == 0
    assert {shop.counter("$USD@ever:u", node=node) for node in ("", "team:ml")} == {exact}
    shop = played(desk, later, acts)
    owed = [entry.charges[0] for entry in shop.entries()]
    assert [one.rated_nanos for one in owed] == [one.rated_nanos for one in paid]
    assert all((one.charged_nanos, one.uncollected_nanos) == (0, 0) for one in owed)
    assert shop.wallet("r:grant_a") == GRANTED
    assert {shop.counter("$USD@ever:u", node=node) for node in ("", "team:ml")} == {exact}
    held = shop.desk.client.hmget(KEYS.counters, "$p:h", "$USD@ever:h")
    assert {int(units or 0) for units in held} == {0}
