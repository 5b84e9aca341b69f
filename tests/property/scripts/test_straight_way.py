"""The straight way allows just what the long one would, with the same reply and the same writes.

Everything that both told and left behind is compared.
"""

from __future__ import annotations

from typing import Any

import pytest
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import DAY_MS, FOREVER, LARGEST, Shop, limit, metered, tariff
from ways import both_ways

from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    SpendCap,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
)

START_MS = 2_000_000_000_000
DAYS = Window(kind=WindowKind.STEPS, anchor_ms=START_MS + DAY_MS // 2, every_ms=DAY_MS)
LISTED = Window(kind=WindowKind.EDGES, edges_ms=(START_MS - DAY_MS, START_MS + DAY_MS // 4, START_MS + 9 * DAY_MS))
ROLLING = Window(kind=WindowKind.ROLLING, every_ms=DAY_MS)
PATHS = ["", "", "team:ml", "team:ml", "team:ml/key:k1", "team:ml/project:p/user:u/key:k1"]

GRANTS = st.lists(
    st.tuples(
        st.sampled_from([1, 40, 200, 10**6, 10**6, 10**6]),
        st.sampled_from(["USD"] * 6 + ["EUR"]),
        st.sampled_from([""] * 20 + ["calls", "other"]),
        st.sampled_from([0] * 9 + [START_MS + DAY_MS // 8]),
    ),
    min_size=1,
    max_size=4,
)
QUANTITIES = st.sampled_from([*range(1, 13), *range(1, 13), 30, 0, LARGEST - 9, LARGEST])
ASKED = st.tuples(
    st.sampled_from(["consume", "consume", "consume", "record", "hold", "hold", "settle", "settle", "release"]),
    st.one_of(
        st.tuples(st.tuples(st.just("calls"), QUANTITIES)),
        st.lists(st.tuples(st.sampled_from(["calls", "other", "other"]), QUANTITIES), min_size=2, max_size=5),
    ),
    st.sampled_from([False, False, True]),
    st.sampled_from(["", "", "k1"]),
    st.sampled_from(PATHS),
)


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    units = draw(st.sampled_from([0, 10, 40, 90, 90, 90, LARGEST]))
    window = draw(st.sampled_from([FOREVER, DAYS, DAYS, DAYS, DAYS, LISTED, LISTED, ROLLING]))
    is_carried = window.kind is not WindowKind.ROLLING and draw(st.sampled_from([False] * 9 + [True]))
    return limit(
        units,
        ceiling=draw(st.sampled_from([-1, units, units, min(LARGEST, units + 5)])),
        window=window,
        counter=draw(st.sampled_from(["a", "b"])),
        since_ms=draw(st.sampled_from([0, 0, START_MS - 7, START_MS + DAY_MS // 2 + 7])),
        carry_units=7 if is_carried else 0,
    )


@st.composite
def tariffs(draw: st.DrawFn, price_id: str) -> Tariff:
    rate = draw(st.sampled_from([0, 7, 7, 7]))
    tiers = (
        Tier(upto=20, nanos_per_batch=rate, flat_nanos=draw(st.sampled_from([0, 11]))),
        Tier(upto=0, nanos_per_batch=rate),
    )
    return tariff(
        0,
        tiers=tiers,
        price_id=price_id,
        batch=draw(st.sampled_from([1, 3])),
        package_units=draw(st.sampled_from([1, 4])),
        currency=draw(st.sampled_from(["USD"] * 9 + ["EUR"])),
        window=draw(st.sampled_from([FOREVER, DAYS, LISTED])),
        prepaid=draw(st.sampled_from([True] * 7 + [False])),
    )


@st.composite
def rights(draw: st.DrawFn, prices: str = "pq") -> Entitlement:
    """Mostly plain terms, each strange in a way of its own now and then."""
    kinds = [FeatureKind.METERED] * 20 + [FeatureKind.SWITCH, FeatureKind.GAUGE, FeatureKind.STATIC]
    kind = draw(st.sampled_from(kinds))
    guard = Guard(
        limits=tuple(draw(st.lists(limits(), max_size=2, unique_by=lambda one: one.counter))),
        concurrent=draw(st.sampled_from([-1] * 9 + [1])),
    )
    is_free = kind in (FeatureKind.GAUGE, FeatureKind.STATIC)
    listed = tuple(
        draw(tariffs(one)) for one in ("" if is_free else draw(st.sampled_from([prices[0]] * 6 + ["", prices])))
    )
    return metered(*listed, guard=guard, kind=kind, outage_units=draw(st.sampled_from([0, 9])), plan="pro")


@st.composite
def caps(draw: st.DrawFn) -> SpendCap:
    nanos = draw(st.sampled_from([0, 200, 900, 9_000, 9_000, 9_000, LARGEST]))
    currency = draw(st.sampled_from(["USD", "USD", "USD", "EUR"]))
    return SpendCap(
        counter=f"${currency}@0",
        currency=currency,
        nanos=nanos,
        ceiling=draw(st.sampled_from([-1, nanos, nanos])),
        window=draw(st.sampled_from([FOREVER, DAYS, DAYS, DAYS, DAYS, DAYS, LISTED, ROLLING])),
        since_ms=draw(st.sampled_from([0, 0, START_MS - 7, START_MS + DAY_MS // 2 + 7])),
    )


@st.composite
def budgets(draw: st.DrawFn) -> dict[str, Budget]:
    """Of some nodes, for this feature or for another."""
    places = ["team:*", "team:*", "key:*", "user:*", "team:ml", "team:ml/key:k1"]
    names = draw(st.sets(st.sampled_from(places), min_size=1, max_size=3))
    told: dict[str, Budget] = {}
    for name in sorted(names):
        own = draw(st.lists(limits(), max_size=2, unique_by=lambda one: one.counter))
        guard = Guard(limits=tuple(own), concurrent=draw(st.sampled_from([-1] * 9 + [1])))
        feature = draw(st.sampled_from(["calls"] * 5 + ["other"]))
        has_cap = draw(st.sampled_from([False, True]))
        told[name] = Budget(guards={feature: guard}, caps=(draw(caps()),) if has_cap else ())
    return told


@settings(max_examples=500, deadline=None)
@given(
    terms=st.lists(
        st.tuples(
            st.tuples(rights(), rights("rs")),
            budgets(),
            st.sampled_from([0, DAY_MS, DAY_MS // 2 - 60_000, DAY_MS // 2 + 60_000]),
            st.sampled_from([Status.ACTIVE] * 19 + [Status.SUSPENDED]),
        ),
        min_size=1,
        max_size=3,
    ),
    granted=GRANTS,
    asked=st.lists(ASKED, min_size=2, max_size=8),
)
def test_the_straight_way_is_the_long_one_made_short(
    desk: Desk, terms: list[Any], granted: list[Any], asked: list[Any]
) -> None:
    """Whatever the terms, the levels, the grants and the hour: allowed, refused, shadowed, held and ended."""
    now = desk.now_ms()
    acts: list[Any] = [("grant", f"grant_{n}", *one) for n, one in enumerate(granted)]
    for both, nodes, later_ms, status in terms:
        acts += [("project", both, nodes, START_MS + later_ms - now, status), *asked]
    straight, long = both_ways(desk, acts)
    assert straight == long


def plain_terms(guard: Guard) -> Entitlement:
    return metered(tariff(7, window=DAYS, batch=3), guard=guard)


@pytest.mark.parametrize("act", ["consume", "record", "hold", "settle", "release"])
@pytest.mark.parametrize("path", ["", "team:ml/key:k1"])
def test_plain_terms_are_decided_on_the_straight_way(shop: Shop, act: str, path: str) -> None:
    """Its mark is a wallet's order that is read alone; with a budget of the customer it is one of several."""
    guard, looks = Guard(limits=(limit(100, window=DAYS),)), list[list[int]]()
    cap = SpendCap(counter="$USD@0", currency="USD", nanos=10**6, ceiling=10**6, window=DAYS)
    nodes = {"team:*": Budget(caps=(cap,)), "key:*": Budget(guards={"calls": guard})}
    for more in ({}, {"": Budget()}):
        shop.project(calls=plain_terms(guard), budgets=nodes | more)
        shop.grant(f"grant_{len(looks)}", 10**6)
        assert shop.consume(("calls", 5), path=path)[0] == "allowed"
        hold_id = shop.hold(("calls", 5), path=path)[10]
        shop.desk.client.config_resetstat()
        match act:
            case "consume" | "record" | "hold":
                assert getattr(shop, act)(("calls", 5), path=path)[0] == "allowed"
            case "settle":
                assert shop.settle(hold_id, ("calls", 3))[0] == "settled"
            case _:
                assert shop.release(hold_id)[0] == "released"
        told = shop.desk.client.info("commandstats")
        looks.append([told.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("hget", "hmget")])
    (alone, others), (none, all_of_them) = looks
    assert (alone, others, none) == (1, all_of_them - 2, 0), "the long one has looked at the terms before"


def test_what_is_held_takes_room_in_a_price_on_either_way(shop: Shop) -> None:
    """Units used and held of one price stay below 2^53, though nothing of it costs anything."""
    shop.project(calls=metered(tariff(0)))
    shop.grant("grant_a", 1)
    assert shop.hold(("calls", LARGEST - 5))[0] == "allowed"
    assert shop.consume(("calls", 6)) == "OVERFLOW quantity"
    assert shop.consume(("calls", 5))[0] == "allowed"
