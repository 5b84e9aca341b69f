"""Ends of holds that chance meets too seldom, each told by its name."""

from __future__ import annotations

import pytest
from desk import decision_keys
from shop import KEYS, LARGEST, Shop, body, metered, tariff

from billing_core.contract.keys import hold_key
from billing_core.contract.snapshot import Status


def test_held_units_count_against_a_hard_limit(shop: Shop) -> None:
    """Until the hold ends; then what was used counts, in the window of its end."""
    shop.project(calls=metered(limit_units=10))
    hold_id = shop.hold(("calls", 8))[10]
    assert shop.consume(("calls", 3))[0] == "limit_reached"
    shop.settle(hold_id, ("calls", 1))
    assert shop.consume(("calls", 9))[13:15] == (10, 0)


SETTLEMENTS = [
    ("below", 3, (30, 70, 0)),
    ("at", 10, (100, 0, 0)),
    ("above", 14, (140, 0, 0)),
    ("far above", 99, (150, 0, 840)),
]


@pytest.mark.parametrize(("name", "units", "expected"), SETTLEMENTS, ids=[row[0] for row in SETTLEMENTS])
def test_a_hold_settles_below_at_and_above(
    shop: Shop, name: str, units: int, expected: tuple[int, int, int]
) -> None:
    """Charged, released, uncollected; the entry has the full quantity, and one movement a grant."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 60, priority=0)
    shop.grant("grant_b", 90, priority=1)
    hold_id = shop.hold(("calls", 10))[10]
    reply = shop.settle(hold_id, ("calls", units))
    assert (reply[0], reply[4:7], reply[7]) == ("settled", expected, 150 - expected[0])
    (entry,) = shop.entries()
    assert (entry.charges[0].quantity, entry.charges[0].uncollected_nanos) == (units, expected[2])
    taken = {movement.grant_id: movement.nanos for movement in entry.movements}
    assert taken == {grant: nanos for grant, nanos in taken.items() if nanos}
    assert [shop.wallet(f"r:{grant}") for grant in ("grant_a", "grant_b")] == [
        60 - taken.get("grant_a", 0),
        90 - taken.get("grant_b", 0),
    ]
    assert (shop.wallet("h:grant_a"), shop.wallet("h:grant_b"), shop.counter("c@ever:h")) == (0, 0, 0)


def test_what_a_hold_did_not_use_goes_back_in_reverse(shop: Shop) -> None:
    """The grant that was taken from first is used first."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 60, priority=0)
    shop.grant("grant_b", 90, priority=1)
    shop.settle(shop.hold(("calls", 10))[10], ("calls", 7))
    assert (shop.wallet("r:grant_a"), shop.wallet("r:grant_b")) == (0, 80)


def test_uncollected_falls_on_the_last_charges(shop: Shop) -> None:
    """The earlier charges are paid first."""
    shop.project(a=metered(tariff(10)), b=metered(tariff(10, price_id="q")))
    shop.grant("grant_a", 50)
    shop.settle(shop.hold(("a", 1), ("b", 1))[10], ("a", 4), ("b", 4))
    charges = [(charge.charged_nanos, charge.uncollected_nanos) for charge in shop.entries()[0].charges]
    assert charges == [(40, 0), (10, 30)]


def test_a_feature_that_the_hold_lacks_leaves_it_open(shop: Shop) -> None:
    """A mention means the next charge of that name; one too many is an error, and nothing is written."""
    shop.project(a=metered(tariff(10)), b=metered())
    shop.grant("grant_a", 100)
    hold_id = shop.hold(("a", 1), ("a", 2))[10]
    before = shop.desk.dump()
    assert shop.settle(hold_id, ("b", 1)) == "INVALID feature"
    assert shop.settle(hold_id, ("a", 1), ("a", 1), ("a", 1)) == "INVALID feature"
    assert shop.settle(hold_id, ("a", LARGEST)) == "OVERFLOW quantity"
    assert shop.desk.dump() == before
    shop.settle(hold_id, ("a", 3))
    assert [charge.quantity for charge in shop.entries()[0].charges] == [3, 2]


def test_a_quantity_of_no_feature_is_of_the_first_charge(shop: Shop) -> None:
    """The others settle as held; two of no feature are an error."""
    shop.project(a=metered(tariff(10)), b=metered())
    shop.grant("grant_a", 1_000)
    for asked, told in (((("a", 5),), [3]), ((("b", 4), ("a", 5)), [3, 5])):
        hold_id = shop.hold(*asked)[10]
        assert shop.settle(hold_id, ("", 3), ("", 3)) == "INVALID feature"
        assert shop.settle(hold_id, ("", 3))[0] == "settled"
        assert [charge.quantity for charge in shop.entries()[-1].charges] == told


def test_work_that_was_done_is_settled_for_a_suspended_customer(shop: Shop) -> None:
    """Neither suspension nor a limit refuses the end of a hold."""
    shop.project(calls=metered(tariff(10), limit_units=5))
    shop.grant("grant_a", 100)
    hold_id = shop.hold(("calls", 5))[10]
    shop.project(status=Status.SUSPENDED, calls=metered(tariff(10), limit_units=0))
    assert shop.settle(hold_id, ("calls", 7))[:5] == ("settled", 0, *shop.settle(hold_id, ("calls", 7))[2:4], 70)


def test_the_price_at_the_end_is_the_snapshots(shop: Shop) -> None:
    """As the invoice will have it: by the price that counts when the usage is recorded."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    hold_id = shop.hold(("calls", 5))[10]
    shop.project(calls=metered(tariff(3, price_id="q")))
    assert shop.settle(hold_id)[4:6] == (15, 35)
    assert (shop.counter("$p:u"), shop.counter("$q:u")) == (0, 5)


@pytest.mark.parametrize("gone", ["feature", "price", "currency"])
def test_a_price_that_is_gone_was_promised(shop: Shop, gone: str) -> None:
    """Work under a price that ended in between is paid as it was promised, in the currency of the hold."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    hold_id = shop.hold(("calls", 5))[10]
    euro = metered(tariff(1, currency="EUR", price_id="q"))
    shop.project(**{"feature": {}, "price": {"calls": metered()}, "currency": {"calls": euro}}[gone])
    assert shop.settle(hold_id, ("calls", 4))[3:6] == ("USD", 40, 10)


@pytest.mark.parametrize(("on_expiry", "charged", "released"), [("release", 0, 50), ("charge", 50, 0)])
@pytest.mark.parametrize("act", ["release", "sweep", "consume", "hold", "part", "extend"])
def test_whoever_comes_first_after_the_deadline_ends_the_hold(
    shop: Shop, act: str, on_expiry: str, charged: int, released: int
) -> None:
    """The late release, part or extension, the sweeper, or the customer's next request; as the hold was told."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    hold_id = shop.due_hold(("calls", 5), on_expiry=on_expiry)
    acts = {
        "release": lambda: shop.release(hold_id),
        "sweep": shop.sweep,
        "consume": lambda: shop.consume(("calls", 0)),
        "hold": lambda: shop.hold(("calls", 0)),
        "part": lambda: shop.part(hold_id, ("calls", 1)),
        "extend": lambda: shop.extend(hold_id, ("calls", 1)),
    }
    first = acts[act]()
    if act == "release":
        assert (first[:2], first[4:]) == (("expired", 0), (charged, released, 0, 100 - charged))
    late = shop.release(hold_id)
    assert (late[:2], late[4:]) == (("expired", 1), (charged, released, 0, 100 - charged))
    assert [entry.charges[0].quantity for entry in shop.entries()] == ([5] if charged else [])
    assert (shop.wallet("h:grant_a"), shop.counter("$p:h")) == (0, 0)


def test_an_expiry_that_cannot_be_charged_is_released(shop: Shop) -> None:
    """A hold must end, even where a counter has no room for its units."""
    shop.project(calls=metered(tariff(1)))
    shop.grant("grant_a", 100)
    hold_id = shop.due_hold(("calls", 5), on_expiry="charge")
    shop.desk.client.hset(KEYS.counters, mapping={"$p:w": 0, "$p:u": LARGEST})
    assert shop.settle(hold_id) == "OVERFLOW quantity"
    assert shop.release(hold_id)[:6] == ("expired", 1, *shop.release(hold_id)[2:4], 0, 5)


def test_a_hold_of_nothing_can_be_settled_at_something(shop: Shop) -> None:
    """The cost of the work may be wholly unknown."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    hold_id = shop.hold(("calls", 0))[10]
    assert shop.settle(hold_id, ("calls", 4))[4] == 40


def test_a_settle_at_nothing_leaves_no_entry(shop: Shop) -> None:
    """Nothing was measured."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    assert shop.settle(shop.hold(("calls", 4))[10], ("calls", 0))[4:6] == (0, 40)
    assert shop.entries() == []


@pytest.mark.parametrize("path", ["", "team:ml"])
def test_a_settle_may_have_a_body_of_its_own(shop: Shop, path: str) -> None:
    """On either way, of one charge or of several; what ends without one has the hold's."""
    shop.project(a=metered(tariff(10)), b=metered())
    shop.grant("grant_a", 1_000)
    for charges in ((("a", 5),), (("a", 5), ("b", 4))):
        own = body(charges, event_id="own")
        assert shop.settle(shop.hold(*charges, path=path)[10], ("a", 3), body=own)[4] == 30
        assert shop.settle(shop.hold(*charges, path=path)[10], ("a", 3))[4] == 30
    assert [entry.body.event_id for entry in shop.entries()] == ["own", "e", "own", "e"]


def test_a_hold_that_nobody_keeps_is_forgotten(shop: Shop) -> None:
    """With keep_ms 0 the answer is not kept."""
    shop.project(calls=metered())
    hold_id = shop.hold(("calls", 4))[10]
    shop.settle(hold_id, keep_ms=0)
    assert shop.settle(hold_id)[0] == "not_found"


def test_a_hold_id_names_its_key(shop: Shop) -> None:
    """Else the sweeper could not find the hold, and its units would be held for ever."""
    shop.project(calls=metered())
    keys = [*decision_keys(KEYS), hold_key("hold_other", KEYS.shard)]
    args = "", 0, 0, body(()), "", 0, 0, "hold_one", 1000, "release", 1, "calls", 1
    assert shop.desk.run("hold", keys, *args) == "INVALID hold_id"
