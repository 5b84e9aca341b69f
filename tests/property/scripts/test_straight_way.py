"""The straight way allows just what the long one would, with the same reply and the same writes.

A customer budget that bounds nothing changes no decision, and sends every charge the long way. So the same acts are
done with and without one, and everything that both told and left behind is compared.
"""

from __future__ import annotations

from typing import Any

from desk import Desk, Near
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import DAY_MS, FOREVER, KEYS, LARGEST, Shop, limit, metered, tariff

from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
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
PASSING = ":idem:", ":hold:", ":holds", ":chd:"
"""Parts of the keys of what has a name or an instant of its own in each run."""

GRANTS = st.lists(
    st.tuples(
        st.sampled_from([1, 40, 200, 3_000]),
        st.sampled_from(["USD", "USD", "USD", "EUR"]),
        st.sampled_from(["", "", "", "calls", "other"]),
        st.sampled_from([0, 0, 0, START_MS + DAY_MS // 8]),
    ),
    max_size=4,
)
ASKED = st.tuples(
    st.sampled_from(["consume", "consume", "consume", "hold"]),
    st.one_of(st.integers(0, 30), st.integers(0, 30), st.integers(LARGEST - 30, LARGEST)),
    st.booleans(),
    st.sampled_from(["", "", "k1"]),
)


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    units = draw(st.sampled_from([0, 10, 40, LARGEST]))
    window = draw(st.sampled_from([FOREVER, DAYS, DAYS, LISTED, ROLLING]))
    is_carried = window.kind is not WindowKind.ROLLING and draw(st.sampled_from([False, False, False, True]))
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
        currency=draw(st.sampled_from(["USD", "USD", "EUR"])),
        window=draw(st.sampled_from([FOREVER, DAYS, LISTED])),
        prepaid=draw(st.sampled_from([True, True, True, False])),
    )


@st.composite
def rights(draw: st.DrawFn) -> Entitlement:
    """Mostly plain terms, each strange in a way of its own now and then."""
    kinds = [FeatureKind.METERED] * 8 + [FeatureKind.SWITCH, FeatureKind.GAUGE, FeatureKind.STATIC]
    kind = draw(st.sampled_from(kinds))
    guard = Guard(
        limits=tuple(draw(st.lists(limits(), max_size=2, unique_by=lambda one: one.counter))),
        concurrent=draw(st.sampled_from([-1, -1, -1, 1])),
    )
    prices = (
        ()
        if kind in (FeatureKind.GAUGE, FeatureKind.STATIC)
        else draw(st.sampled_from([("p",), ("p",), (), ("p", "q")]))
    )
    listed = tuple(draw(tariffs(price_id)) for price_id in prices)
    return metered(*listed, guard=guard, kind=kind, outage_units=draw(st.sampled_from([0, 9])))


def told_and_left(shop: Shop, acts: list[Any], *, goes_long: bool) -> tuple[list[Any], dict[str, Any]]:
    """Every reply, and every key but the snapshot and what is another in each run."""
    budgets = {"": Budget()} if goes_long else {}
    replies: list[Any] = []
    for act, *told in acts:
        if act == "project":
            shop.project(calls=told[0], offset_ms=told[1], status=told[2], budgets=budgets)
        elif act == "grant":
            replies.append(shop.grant(told[0], told[1], currency=told[2], features=told[3], effective_ms=told[4]))
        elif act == "hold":
            replies.append(shop.hold(("calls", told[0]))[0])
        else:
            reply = shop.consume(("calls", told[0]), shadow=told[1], key=told[2])
            if not isinstance(reply, str):
                reply = (*reply[:5], Near(reply[5]), *reply[6:11], Near(reply[11]), *reply[12:])
            replies.append(reply)
    left = {key: value for key, value in shop.desk.dump().items() if not any(part in key for part in PASSING)}
    del left[KEYS.snapshot]
    for entry in left.get(KEYS.stream, ()):
        entry["at"] = Near(int(entry["at"])) if "at" in entry else None
    return replies, left


@settings(max_examples=500, deadline=None)
@given(
    terms=st.lists(
        st.tuples(
            rights(),
            st.sampled_from([0, DAY_MS, DAY_MS // 2 - 60_000, DAY_MS // 2 + 60_000]),
            st.sampled_from([Status.ACTIVE] * 9 + [Status.SUSPENDED]),
        ),
        min_size=1,
        max_size=3,
    ),
    granted=GRANTS,
    asked=st.lists(ASKED, min_size=1, max_size=6),
)
def test_the_straight_way_is_the_long_one_made_short(
    desk: Desk, terms: list[Any], granted: list[Any], asked: list[Any]
) -> None:
    """Whatever the terms, the grants, quantities and the hour: allowed, refused, shadowed or answered before."""
    now = desk.now_ms()
    acts: list[Any] = [("grant", f"grant_{n}", *one) for n, one in enumerate(granted)]
    for right, later_ms, status in terms:
        acts += [("project", right, START_MS + later_ms - now, status), *asked]
    straight = told_and_left(Shop(desk), acts, goes_long=False)
    assert straight == told_and_left(Shop(desk), acts, goes_long=True)


def test_plain_terms_are_decided_on_the_straight_way(shop: Shop) -> None:
    """Its own mark is a wallet's order that is read alone; with a budget it is read as one of several."""
    plain = metered(tariff(7, window=DAYS, batch=3), guard=Guard(limits=(limit(100, window=DAYS),)))
    looks: list[int] = []
    for budgets in ({}, {"": Budget()}):
        shop.project(calls=plain, budgets=budgets)
        shop.grant(f"grant_{len(looks)}", 10**6)
        shop.desk.client.config_resetstat()
        assert shop.consume(("calls", 5))[0] == "allowed"
        looks.append(shop.desk.client.info("commandstats").get("cmdstat_hget", {}).get("calls", 0))
    assert looks == [1, 0]


def test_what_is_held_takes_room_in_a_price_on_either_way(shop: Shop) -> None:
    """Units used and held of one price stay below 2^53, though nothing of it costs anything."""
    shop.project(calls=metered(tariff(0)))
    shop.grant("grant_a", 1)
    assert shop.hold(("calls", LARGEST - 5))[0] == "allowed"
    assert shop.consume(("calls", 6)) == "OVERFLOW quantity"
    assert shop.consume(("calls", 5))[0] == "allowed"
