"""Ends of holds with much in them, and settlements that come after the deadline."""

from __future__ import annotations

import pytest
from shop import KEYS, LARGEST, Shop, limit, metered, tariff

from billing_core.contract.keys import hold_key
from billing_core.contract.snapshot import Budget, Guard, SpendCap, Tier, Window, WindowKind

FOREVER = Window(kind=WindowKind.LIFETIME)
DAY = Window(kind=WindowKind.STEPS, anchor_ms=0, every_ms=86_400_000)
ROLLING = Window(kind=WindowKind.ROLLING, every_ms=3_600_000)
ENDED = slice(4, 8)
"""Charged, released, uncollected and balance of an end."""
PATH = "team:ml/project:chat/user:bob/key:k1"
NODES = ("", "team:ml", "team:ml/project:chat", "team:ml/project:chat/user:bob", PATH)


def late_hold(shop: Shop, amount: int = 100, units: int = 5) -> str:
    """A hold of calls at ten nanos that was released by its deadline."""
    shop.project(calls=metered(tariff(10), limit_units=50))
    shop.grant("grant_a", amount)
    hold_id = shop.due_hold(("calls", units), on_expiry="release")
    assert shop.sweep() == 1
    return hold_id


def test_a_late_settlement_is_charged_anew(shop: Shop) -> None:
    """Out of the wallet, once; the same again gets its answer, another is a conflict."""
    hold_id = late_hold(shop)
    assert (shop.wallet("r:grant_a"), shop.entries()) == (100, [])
    first = shop.settle(hold_id, ("calls", 7))
    assert (first[:2], first[ENDED]) == (("late", 0), (70, 0, 0, 30))
    assert shop.settle(hold_id, ("calls", 7)) == ("late", 1, *first[2:])
    assert shop.settle(hold_id, ("calls", 8), digest="other")[:2] == ("conflict", 0)
    assert shop.release(hold_id) == ("late", 1, *first[2:])
    (entry,) = shop.entries()
    assert (entry.body.event_id, entry.charges[0].quantity, entry.charges[0].uncollected_nanos) == ("e", 7, 0)
    assert (shop.counter("c@ever:u"), shop.counter("c@ever:h"), shop.counter("$p:h")) == (7, 0, 0)


def test_what_a_late_settlement_cannot_collect_is_told(shop: Shop) -> None:
    """The wallet was spent by others in between."""
    hold_id = late_hold(shop)
    shop.consume(("calls", 8))
    assert shop.settle(hold_id)[ENDED] == (20, 0, 30, 0)
    assert shop.entries()[1].charges[0].uncollected_nanos == 30


def test_the_late_settlement_may_be_the_one_that_ends_the_hold(shop: Shop) -> None:
    """Nobody came by between the deadline and it: released, and charged anew in one step."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    hold_id = shop.due_hold(("calls", 5), on_expiry="release")
    assert shop.settle(hold_id, ("calls", 20))[ENDED] == (100, 0, 100, 0)
    assert (shop.wallet("h:grant_a"), KEYS.holds in shop.desk.dump(), KEYS.shard_holds in shop.desk.dump()) == (
        0,
        False,
        False,
    )


@pytest.mark.parametrize("act", ["settle", "release", "sweep", "consume", "part", "extend"])
def test_an_expiry_that_charged_stands(shop: Shop, act: str) -> None:
    """Whoever comes first after the deadline ends the hold; no later settlement is charged beside it."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    hold_id = shop.due_hold(("calls", 5), on_expiry="charge")
    {
        "settle": lambda: shop.settle(hold_id, ("calls", 1)),
        "release": lambda: shop.release(hold_id),
        "sweep": shop.sweep,
        "consume": lambda: shop.consume(("calls", 0)),
        "part": lambda: shop.part(hold_id, ("calls", 1)),
        "extend": lambda: shop.extend(hold_id, ("calls", 1)),
    }[act]()
    late = shop.settle(hold_id, ("calls", 1))
    assert (late[:2], late[ENDED]) == (("expired", 1), (50, 0, 0, 50))
    assert [entry.charges[0].quantity for entry in shop.entries()] == [5]


def test_a_late_settlement_of_a_foreign_feature_leaves_the_hold_expired(shop: Shop) -> None:
    """An error charges nothing; the right quantities can still come."""
    hold_id = late_hold(shop)
    before = shop.desk.dump()
    assert shop.settle(hold_id, ("tokens", 1)) == "INVALID feature"
    assert shop.settle(hold_id, ("calls", LARGEST)) == "OVERFLOW quantity"
    left, kept = (dump.pop(hold_key(hold_id, KEYS.shard)) for dump in (shop.desk.dump(), before))
    assert left[0] == kept[0]
    assert shop.settle(hold_id)[0] == "late"


def test_after_parts_only_what_came_since_is_late(shop: Shop) -> None:
    """The parts were charged when they came, and are events of their own."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    reply = shop.hold(("calls", 6), ttl_ms=40)
    shop.part(reply[10], ("calls", 4))
    shop.desk.wait_until(reply[9])
    assert shop.settle(reply[10])[ENDED] == (20, 0, 0, 40)
    assert [entry.body.event_id for entry in shop.entries()] == ["e.1", "e"]


def test_an_expired_hold_is_remembered_for_a_day(shop: Shop) -> None:
    """Then nobody knows of it; the answer of a late settlement is kept as told."""
    hold_id = late_hold(shop)
    name = hold_key(hold_id, KEYS.shard)
    assert 86_000_000 < shop.desk.client.pttl(name) <= 86_400_000
    shop.settle(hold_id, keep_ms=50_000)
    assert 40_000 < shop.desk.client.pttl(name) <= 50_000


def test_the_late_price_is_todays_or_the_promised_one(shop: Shop) -> None:
    """As of every end of a hold."""
    hold_id = late_hold(shop)
    shop.project()
    assert shop.settle(hold_id)[ENDED] == (50, 0, 0, 50)


def test_an_expired_hold_of_shadow_mode_is_settled_in_shadow(shop: Shop) -> None:
    """It never charged anything and does not now."""
    shop.project(calls=metered(tariff(10)))
    reply = shop.hold(("calls", 5), ttl_ms=1, shadow=True)
    shop.desk.wait_until(reply[9])
    assert shop.settle(reply[10], ("calls", 2))[ENDED] == (0, 0, 0, 0)
    assert [entry.body.event_id for entry in shop.entries()] == ["e", "e.1"]


def test_a_hold_at_every_level_ends_at_every_level(shop: Shop) -> None:
    """Several limits for each feature and node, caps and places: nothing stays held, all that was used counts."""
    cap = SpendCap(counter="$USD@day", currency="USD", nanos=10_000, ceiling=10_000, window=DAY)
    limits = tuple(
        limit(1000, counter=f"calls@{name}", window=window)
        for name, window in (("ever", FOREVER), ("day", DAY), ("rolling", ROLLING))
    )
    guard = Guard(limits=limits, concurrent=2)
    budget = Budget(guards={"calls": guard}, caps=(cap,))
    budgets = {"": Budget(caps=(cap,)), **{f"{kind}:*": budget for kind in ("team", "project", "user", "key")}}
    shop.project(calls=metered(tariff(10), guard=guard), tokens=metered(tariff(1, price_id="q")), budgets=budgets)
    shop.grant("grant_a", 5000)
    hold_id = shop.hold(("calls", 30), ("tokens", 100), path=PATH)[10]
    for node in NODES:
        held = [
            shop.counter(f"{name}:h", node=node)
            for name in ("calls@ever", "calls@day", "calls@rolling", "$USD@day")
        ]
        assert (held, shop.counter("calls:c", node=node)) == ([30, 30, 30, 400], 1)
    assert shop.settle(hold_id, ("tokens", 250), ("calls", 7))[ENDED] == (320, 230, 0, 4680)
    for node in NODES:
        held = [
            shop.counter(f"{name}:h", node=node)
            for name in ("calls@ever", "calls@day", "calls@rolling", "$USD@day")
        ]
        used = [shop.counter(f"{name}:u", node=node) for name in ("calls@ever", "calls@day", "$USD@day")]
        assert (held, used, shop.counter("calls:c", node=node)) == ([0, 0, 0, 0], [7, 7, 320], 0)
        assert shop.counter("o", node=node) == 0


def test_each_charge_is_settled_in_its_own_currency(shop: Shop) -> None:
    """The answer tells the first; the entry tells all, and no wallet pays for another."""
    shop.project(a=metered(tariff(10)), b=metered(tariff(3, currency="EUR", price_id="q")))
    shop.grant("dollars", 100)
    shop.grant("euros", 60, currency="EUR")
    hold_id = shop.hold(("a", 5), ("b", 10))[10]
    assert shop.settle(hold_id, ("a", 2), ("b", 30))[3:8] == ("USD", 20, 30, 0, 80)
    told = [(one.currency, one.charged_nanos, one.uncollected_nanos) for one in shop.entries()[0].charges]
    assert told == [("USD", 20, 0), ("EUR", 60, 30)]
    assert [shop.wallet(f"{letter}:{grant}") for grant in ("dollars", "euros") for letter in "rh"] == [80, 0, 0, 0]


def test_the_second_wallet_pays_for_what_it_was_asked(shop: Shop) -> None:
    """The first could not; the hold stays in the currency that paid, also above what was held."""
    euro = tariff(2, currency="EUR", price_id="e")
    shop.project(calls=metered(tariff(10), euro))
    shop.grant("dollars", 40)
    shop.grant("euros", 30, currency="EUR")
    hold_id = shop.hold(("calls", 5))[10]
    assert shop.settle(hold_id, ("calls", 20))[4:7] == (30, 0, 10)
    assert shop.wallet("r:dollars") == 40


def test_a_restricted_grant_pays_above_the_hold_only_for_its_features(shop: Shop) -> None:
    """What other charges gave back to it stays there."""
    shop.project(a=metered(tariff(10)), b=metered(tariff(10, price_id="q")))
    shop.grant("only_b", 100, features="b")
    shop.grant("any", 40, priority=1)
    hold_id = shop.hold(("a", 2), ("b", 10))[10]
    assert shop.settle(hold_id, ("a", 9), ("b", 3))[ENDED] == (70, 70, 50, 0)
    assert (shop.wallet("r:only_b"), shop.wallet("r:any")) == (70, 0)


def test_an_overdraft_is_drawn_last_and_gets_back_first(shop: Shop) -> None:
    """Reverse order of taking: what is lent is returned before what was paid."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("overdraft", 100, paid=2)
    shop.grant("own", 60)
    hold_id = shop.hold(("calls", 10))[10]
    assert (shop.wallet("h:own"), shop.wallet("h:overdraft")) == (60, 40)
    shop.settle(hold_id, ("calls", 7))
    assert (shop.wallet("r:own"), shop.wallet("r:overdraft")) == (0, 90)


def test_a_postpaid_hold_is_never_uncollected(shop: Shop) -> None:
    """The invoice asks for it; the cap counts what it comes to."""
    cap = SpendCap(counter="$USD@ever", currency="USD", nanos=100, ceiling=100, window=FOREVER)
    tiers = Tier(upto=3, nanos_per_batch=10), Tier(upto=0, nanos_per_batch=4)
    shop.project(calls=metered(tariff(0, tiers=tiers, prepaid=False)), budgets={"": Budget(caps=(cap,))})
    hold_id = shop.hold(("calls", 5))[10]
    assert shop.counter("$USD@ever:h") == 38
    assert shop.settle(hold_id, ("calls", 50))[ENDED] == (0, 0, 0, 0)
    (charge,) = shop.entries()[0].charges
    assert (charge.rated_nanos, charge.charged_nanos, charge.uncollected_nanos) == (218, 0, 0)
    assert (shop.counter("$USD@ever:u"), shop.counter("$USD@ever:h")) == (218, 0)


def test_a_hundred_charges_of_a_hold_end_in_one_step(shop: Shop) -> None:
    """The most that one hold may have."""
    shop.project(calls=metered(tariff(10), limit_units=1000))
    shop.grant("grant_a", 10_000)
    hold_id = shop.hold(*[("calls", 2)] * 100)[10]
    shop.part(hold_id, *[("calls", 1)] * 100)
    assert shop.settle(hold_id)[ENDED] == (1000, 0, 0, 8000)
    assert (shop.counter("c@ever:u"), shop.counter("c@ever:h")) == (200, 0)


def test_quantities_at_the_end_of_what_a_number_carries(shop: Shop) -> None:
    """Held, charged in part, and settled, without losing one."""
    shop.project(calls=metered(tariff(1)))
    shop.grant("grant_a", LARGEST)
    hold_id = shop.hold(("calls", LARGEST))[10]
    assert shop.part(hold_id, ("calls", LARGEST - 2))[4:6] == (LARGEST - 2, 2)
    assert shop.settle(hold_id, ("calls", 1))[ENDED] == (1, 1, 0, 1)
    assert (shop.counter("$p:u"), shop.counter("$p:h"), shop.wallet("r:grant_a")) == (LARGEST - 1, 0, 1)


def test_a_shard_that_was_built_anew_charges_nothing_late(shop: Shop) -> None:
    """Nobody knows whether the late settlement had come before what was lost."""
    hold_id = late_hold(shop)
    shop.desk.client.set(KEYS.epoch, 2)
    late = shop.settle(hold_id)
    assert (late[:2], late[ENDED], shop.entries()) == (("expired", 1), (0, 50, 0, 100), [])
