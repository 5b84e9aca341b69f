"""Parts of a hold: charged out of it while it is open, once for each key, by the part or by the attempt."""

from __future__ import annotations

from typing import Any

import pytest
from desk import decision_keys
from shop import KEYS, LARGEST, Shop, body, flat, limit, metered, tariff

from billing_core.contract.snapshot import Budget, Guard, SpendCap, Tier, Window, WindowKind
from billing_core.contract.usage_event import EntryKind

FOREVER = Window(kind=WindowKind.LIFETIME)
CHARGED = slice(4, 8)
"""Charged, held, uncollected and balance of a part."""


def open_shop(shop: Shop, *amounts: int, **more: Any) -> None:
    """Calls at ten nanos, and grants of these amounts, the first burned first."""
    shop.project(calls=metered(tariff(10), **more))
    for number, amount in enumerate(amounts):
        shop.grant(f"grant_{number}", amount, priority=number)


def test_parts_and_the_settlement_add_up(shop: Shop) -> None:
    """Each is charged when it comes; what is not used in the end goes back."""
    open_shop(shop, 60, 90, limit_units=20)
    hold_id = shop.hold(("calls", 10))[10]
    assert shop.part(hold_id, ("calls", 4))[CHARGED] == (40, 60, 0, 50)
    assert (shop.counter("c@ever:u"), shop.counter("c@ever:h"), shop.counter("$p:h")) == (4, 6, 6)
    assert shop.part(hold_id, ("calls", 3))[CHARGED] == (30, 30, 0, 50)
    assert (shop.wallet("h:grant_0"), shop.wallet("h:grant_1")) == (0, 30)
    assert shop.settle(hold_id, ("calls", 1))[CHARGED] == (10, 20, 0, 70)
    assert [entry.charges[0].quantity for entry in shop.entries()] == [4, 3, 1]
    assert (shop.wallet("r:grant_0"), shop.wallet("r:grant_1"), shop.wallet("h:grant_1")) == (0, 70, 0)
    assert (shop.counter("c@ever:u"), shop.counter("c@ever:h"), shop.counter("$p:h")) == (8, 0, 0)


def test_parts_cost_what_one_debit_would(shop: Shop) -> None:
    """The remainder of a price that is no whole nano is carried from part to part, over tiers."""
    tiers = Tier(upto=5, nanos_per_batch=7), Tier(upto=0, nanos_per_batch=3, flat_nanos=2)
    shop.project(calls=metered(tariff(0, tiers=tiers, batch=2)))
    shop.grant("grant_0", 1000)
    hold_id = shop.hold(("calls", 11))[10]
    for _ in range(11):
        shop.part(hold_id, ("calls", 1))
    shop.settle(hold_id, ("calls", 0))
    assert sum(entry.charges[0].charged_nanos for entry in shop.entries()) == (5 * 7 + 6 * 3) // 2 + 2
    assert shop.wallet("r:grant_0") + 28 == 1000


def test_each_entry_under_the_holds_body_is_an_event_of_its_own(shop: Shop) -> None:
    """The settlement has the decision's id; a part with a body of its own has that body's."""
    open_shop(shop, 1000)
    hold_id = shop.hold(("calls", 10))[10]
    shop.part(hold_id, ("calls", 1))
    shop.part(hold_id, ("calls", 2), event_id="own")
    shop.part(hold_id, ("calls", 3))
    shop.settle(hold_id)
    told = [(entry.body.event_id, entry.charges[0].quantity) for entry in shop.entries()]
    assert told == [("e.1", 1), ("own", 2), ("e.2", 3), ("e", 4)]


def test_a_part_lists_all_charges_of_the_hold_or_those_of_its_own_body(shop: Shop) -> None:
    """Columns always have the order of the body that they stand beside."""
    shop.project(a=metered(tariff(10)), b=metered(tariff(100, price_id="q")), c=metered())
    shop.grant("grant_0", 10_000)
    hold_id = shop.hold(("a", 5), ("b", 5), ("c", 5))[10]
    shop.part(hold_id, ("b", 2))
    shop.part(hold_id, ("c", 1), ("a", 3), event_id="own")
    first, second = (
        [(charge.feature, charge.quantity, charge.charged_nanos) for charge in entry.charges]
        for entry in shop.entries()
    )
    assert first == [("a", 0, 0), ("b", 2, 200), ("c", 0, 0)]
    assert second == [("c", 1, 0), ("a", 3, 30)]
    assert shop.settle(hold_id)[CHARGED][:2] == (320, 0)
    assert [charge.quantity for charge in shop.entries()[2].charges] == [2, 3, 4]


def test_a_part_above_the_hold_is_paid_by_the_wallet_and_the_rest_is_uncollected(shop: Shop) -> None:
    """The work was done: its units count, and the entry tells what nobody paid."""
    open_shop(shop, 100, 30)
    hold_id = shop.hold(("calls", 10))[10]
    assert shop.part(hold_id, ("calls", 12))[CHARGED] == (120, 0, 0, 10)
    assert shop.part(hold_id, ("calls", 5))[CHARGED] == (10, 0, 40, 0)
    assert shop.settle(hold_id)[CHARGED] == (0, 0, 0, 0)
    assert [entry.charges[0].uncollected_nanos for entry in shop.entries()] == [0, 40]
    assert shop.counter("$p:u") == 17


def test_units_and_money_of_every_level_move_from_held_to_used(shop: Shop) -> None:
    """A limit and a cap count the part at once, and what is still held beside it."""
    cap = SpendCap(counter="$USD@ever", currency="USD", nanos=500, ceiling=500, window=FOREVER)
    team = Budget(guards={"calls": Guard(limits=(limit(40, counter="calls@ever"),), concurrent=1)}, caps=(cap,))
    shop.project(calls=metered(tariff(10)), budgets={"team:ml": team})
    shop.grant("grant_0", 10_000)
    hold_id = shop.hold(("calls", 30), path="team:ml")[10]
    shop.part(hold_id, ("calls", 20))

    def counted() -> list[int]:
        fields = "calls@ever:u", "calls@ever:h", "$USD@ever:u", "$USD@ever:h", "calls:c", "o"
        return [shop.counter(field, node="team:ml") for field in fields]

    assert counted() == [20, 10, 200, 100, 1, 1]
    assert shop.consume(("calls", 1), path="team:ml")[:5] == ("concurrency_limited", 0, 1, "team:ml", "calls:c")
    shop.part(hold_id, ("calls", 15))
    assert counted() == [35, 0, 350, 0, 1, 1]
    shop.settle(hold_id, ("calls", 5))
    assert counted() == [40, 0, 400, 0, 0, 0]
    assert shop.consume(("calls", 1), path="team:ml")[0] == "limit_reached"


def test_a_postpaid_part_moves_no_grant_and_counts_under_the_cap(shop: Shop) -> None:
    """What the invoice will ask for is rated now."""
    cap = SpendCap(counter="$USD@ever", currency="USD", nanos=500, ceiling=500, window=FOREVER)
    shop.project(calls=metered(tariff(10, prepaid=False)), budgets={"": Budget(caps=(cap,))})
    hold_id = shop.hold(("calls", 10))[10]
    assert shop.part(hold_id, ("calls", 4))[CHARGED] == (0, 0, 0, 0)
    assert (shop.counter("$USD@ever:u"), shop.counter("$USD@ever:h")) == (40, 60)
    shop.release(hold_id)
    assert (shop.counter("$USD@ever:u"), shop.counter("$USD@ever:h")) == (40, 0)
    assert [charge.rated_nanos for charge in shop.entries()[0].charges] == [40]


def test_a_release_after_parts_gives_back_what_is_still_held(shop: Shop) -> None:
    """What was charged is charged."""
    open_shop(shop, 100)
    hold_id = shop.hold(("calls", 10))[10]
    shop.part(hold_id, ("calls", 4))
    assert shop.release(hold_id)[CHARGED] == (0, 60, 0, 60)
    assert len(shop.entries()) == 1


@pytest.mark.parametrize("on_expiry", ["release", "charge"])
def test_an_expiry_after_parts_ends_what_is_still_held(shop: Shop, on_expiry: str) -> None:
    """As it was told: given back, or charged as held; the parts stay charged."""
    open_shop(shop, 100)
    reply = shop.hold(("calls", 10), ttl_ms=40, on_expiry=on_expiry)
    shop.part(reply[10], ("calls", 4))
    shop.desk.wait_until(reply[9])
    assert shop.sweep() == 1
    assert shop.wallet("r:grant_0") == (60 if on_expiry == "release" else 0)
    assert shop.part(reply[10], ("calls", 1), key="k")[0] == "expired"
    assert sum(entry.charges[0].quantity for entry in shop.entries()) == (4 if on_expiry == "release" else 10)


def test_a_part_may_give_the_hold_more_time(shop: Shop) -> None:
    """Never less."""
    open_shop(shop, 100)
    reply = shop.hold(("calls", 10), ttl_ms=50_000)
    hold_id, deadline_ms = reply[10], reply[9]
    assert shop.part(hold_id, ("calls", 1), ttl_ms=10)[8] == deadline_ms
    longer_ms = shop.part(hold_id, ("calls", 1), ttl_ms=500_000)[8]
    assert longer_ms >= deadline_ms + 449_000
    for name in (KEYS.shard_holds, KEYS.holds):
        assert shop.desk.client.zscore(name, hold_id) == longer_ms


def test_a_part_is_charged_once_for_its_key(shop: Shop) -> None:
    """The same again gets the first answer, also after the end of the hold; another under the key is a conflict."""
    open_shop(shop, 100)
    hold_id = shop.hold(("calls", 10))[10]
    first = shop.part(hold_id, ("calls", 4), key="k")
    assert shop.part(hold_id, ("calls", 4), key="k") == (first[0], 1, *first[2:])
    assert shop.part(hold_id, ("calls", 4), key="k", digest="other") == "CONFLICT idempotency"
    shop.settle(hold_id, ("calls", 0))
    assert shop.part(hold_id, ("calls", 4), key="k") == (first[0], 1, *first[2:])
    assert shop.wallet("r:grant_0") == 60


def test_what_cannot_be_charged_is_not_remembered(shop: Shop) -> None:
    """Whoever replays on a hold that is gone may record under the same key."""
    open_shop(shop, 100)
    assert shop.part("hold_unknown", ("calls", 4), key="k")[0] == "not_found"
    hold_id = shop.hold(("calls", 10))[10]
    shop.release(hold_id)
    assert shop.part(hold_id, ("calls", 4), key="k")[0] == "released"
    asked = "d", 60_000, body((("calls", 4),)), "", 1, "calls", 4
    assert shop.desk.run("record", decision_keys(KEYS, "k"), *asked)[:2] == ("allowed", 0)
    assert shop.part(hold_id, ("calls", 4), key="k")[:2] == ("decided", 1)
    assert shop.wallet("r:grant_0") == 60


def test_a_replay_gives_way_to_an_attempt_that_was_made(shop: Shop) -> None:
    """The attempt had run although nobody heard of it: the lease is not charged as well."""
    open_shop(shop, 1000)
    lease_id = shop.hold(("calls", 10))[10]
    attempt = shop.consume(("calls", 3), key="k")
    replay = shop.part(lease_id, ("calls", 3), key="k", event_id="attempt")
    assert replay == ("decided", 1, attempt[5], "USD", 30, 0, 0, attempt[8], 0)
    assert (shop.wallet("r:grant_0"), shop.wallet("h:grant_0"), len(shop.entries())) == (870, 100, 1)


def test_an_attempt_that_comes_after_its_replay_finds_a_decision(shop: Shop) -> None:
    """It is told what the replay has charged, and never the id of the lease."""
    shop.project(calls=metered(tariff(10)), tokens=metered(), euro=metered(tariff(2, currency="EUR", price_id="e")))
    shop.grant("grant_0", 1000)
    shop.grant("grant_e", 1000, currency="EUR")
    lease_id = shop.hold(("calls", 10), ("tokens", 50), ("euro", 5))[10]
    asked = ("tokens", 7), ("calls", 3), ("euro", 2)
    replay = shop.part(lease_id, *asked, key="k", event_id="attempt")
    assert replay[CHARGED] == (30, 70, 0, 900)
    attempt = shop.consume(*asked, key="k")
    free, paid = (-1, -1, 0, 0, "", "", 0, ""), (-1, -1, 0, 30, "", "USD", 0, "")
    head = ("allowed", 1, 0, "", "", replay[2], "USD", 30, 900, 0, "", 0, "")
    assert attempt == (*head, *free, *paid, *(-1, -1, 0, 4, "", "EUR", 0, ""))
    assert [entry.body.event_id for entry in shop.entries()] == ["attempt"]
    assert shop.consume(*asked, key="k", digest="other") == "CONFLICT idempotency"


def test_a_refused_attempt_does_not_stand_in_the_way(shop: Shop) -> None:
    """A refusal is the answer of whoever asks; what was allowed on the lease is charged on it."""
    open_shop(shop, 100)
    lease_id = shop.hold(("calls", 10))[10]
    assert shop.consume(("calls", 3), key="k")[:2] == ("insufficient_balance", 0)
    assert shop.consume(("calls", 3), key="k")[:2] == ("insufficient_balance", 1)
    assert shop.part(lease_id, ("calls", 3), key="k", digest="other") == "CONFLICT idempotency"
    assert shop.part(lease_id, ("calls", 3), key="k", event_id="attempt")[:2] == ("charged", 0)
    assert shop.consume(("calls", 3), key="k")[:2] == ("allowed", 1)
    assert shop.part(lease_id, ("calls", 3), key="k", event_id="attempt")[:2] == ("charged", 1)
    assert (len(shop.entries()), shop.wallet("h:grant_0")) == (1, 70)


def test_a_part_that_cannot_be_charged_leaves_the_hold_as_it_was(shop: Shop) -> None:
    """Nothing is written, not even its key."""
    shop.project(calls=metered(tariff(10)), tokens=metered())
    shop.grant("grant_0", 100)
    hold_id = shop.hold(("calls", 10))[10]
    before = shop.desk.dump()
    assert shop.part(hold_id, ("tokens", 1), key="k") == "INVALID feature"
    assert shop.part(hold_id, ("calls", 1), ("calls", 1), key="k") == "INVALID feature"
    assert shop.part(hold_id, ("calls", LARGEST), key="k") == "OVERFLOW quantity"
    assert shop.part(hold_id, key="k") == "INVALID charges"
    assert shop.desk.dump() == before


def test_a_part_of_nothing_appends_nothing(shop: Shop) -> None:
    """Nothing was measured; it may still have given time."""
    open_shop(shop, 100)
    hold_id = shop.hold(("calls", 10))[10]
    assert shop.part(hold_id, ("calls", 0), ttl_ms=500_000)[CHARGED] == (0, 100, 0, 0)
    assert shop.entries() == []


def test_what_shadow_mode_placed_empty_is_charged_nothing(shop: Shop) -> None:
    """Parts and settlement answer well and append what would have been charged, each as an event of its own."""
    shop.project(calls=metered(tariff(10), limit_units=5))
    shop.grant("grant_0", 1000)
    reply = shop.hold(("calls", 10), shadow=True)
    assert (reply[0], reply[12]) == ("allowed", "limit_reached")
    hold_id, before = reply[10], shop.desk.dump()[KEYS.wallet]
    assert shop.part(hold_id, ("calls", 4))[:2] == ("charged", 0)
    assert shop.part(hold_id, ("calls", 2), event_id="own")[CHARGED] == (0, 0, 0, 0)
    assert shop.settle(hold_id)[:2] == ("settled", 0)
    told = [(entry.kind, entry.body.event_id, entry.refusal, entry.level) for entry in shop.entries()]
    assert told == [(EntryKind.SHADOW, name, "limit_reached", "customer") for name in ("e", "e.1", "own", "e.2")]
    quantities = [fields[b"q"] for _, fields in shop.desk.client.xrange(KEYS.stream)]
    assert quantities == [b"10", b"4", b"2", b"4"]
    assert (shop.desk.dump()[KEYS.wallet], KEYS.counters in shop.desk.dump()) == (before, False)
    assert shop.settle(hold_id)[:2] == ("settled", 1)


def test_the_empty_hold_of_shadow_mode_can_be_released(shop: Shop) -> None:
    """And nothing is appended."""
    shop.project(calls=metered(tariff(10)))
    hold_id = shop.hold(("calls", 10), shadow=True)[10]
    assert shop.release(hold_id)[:2] == ("released", 0)
    assert (len(shop.entries()), KEYS.holds in shop.desk.dump()) == (1, False)


def test_parts_of_more_grants_than_one_use_them_in_order(shop: Shop) -> None:
    """Restricted grants pay only for their features, whoever comes first."""
    shop.project(a=metered(tariff(10)), b=metered(tariff(10, price_id="q")))
    shop.grant("only_b", 50, priority=0, features="b")
    shop.grant("any", 200, priority=1)
    hold_id = shop.hold(("a", 10), ("b", 10))[10]
    shop.part(hold_id, ("b", 3))
    shop.part(hold_id, ("a", 3), ("b", 4))
    moved = [{one.grant_id: one.nanos for one in entry.movements} for entry in shop.entries()]
    assert moved == [{"only_b": 30}, {"any": 50, "only_b": 20}]
    assert shop.release(hold_id)[5] == 100
    assert (shop.wallet("r:only_b"), shop.wallet("r:any")) == (0, 150)


def test_the_pairs_of_a_part_are_not_more_than_a_hundred(shop: Shop) -> None:
    """As of a decision."""
    open_shop(shop, 100)
    hold_id = shop.hold(("calls", 10))[10]
    many = [("calls", 0)] * 101
    assert shop.part(hold_id, *many) == "INVALID charges"
    assert len(flat(tuple(many))) == 202
