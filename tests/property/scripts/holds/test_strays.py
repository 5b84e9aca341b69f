"""What chance does not come to: deadlines of what has ended, prices that are full, one price twice in a hold."""

from __future__ import annotations

from shop import KEYS, LARGEST, Shop, limit, metered, tariff

from billing_core.contract.snapshot import Guard


def test_a_deadline_of_a_hold_that_has_ended_ends_nothing(shop: Shop) -> None:
    """It leaves the list, and the hold is as it was: a late settlement is charged once."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    hold_id = shop.due_hold(("calls", 5), on_expiry="charge")
    released = shop.due_hold(("calls", 5), on_expiry="release")
    assert shop.sweep() == 1  # the second hold ended the first
    before = shop.desk.dump()
    for listed in (KEYS.shard_holds, KEYS.holds):
        shop.desk.client.zadd(listed, {hold_id: 1, released: 1, "hold_of_nobody": 1})
    assert shop.sweep() == 0
    assert shop.consume(("calls", 0))[0] == "allowed"
    after = shop.desk.dump()
    assert KEYS.shard_holds not in after
    assert KEYS.holds not in after
    assert (after[KEYS.wallet], after[KEYS.stream]) == (before[KEYS.wallet], before[KEYS.stream])
    assert shop.settle(released, ("calls", 5))[:2] == ("late", 0)
    assert shop.wallet("r:grant_a") == 0


def test_a_price_that_has_no_room_left_says_so(shop: Shop) -> None:
    """It is no want of balance: no top-up would help."""
    shop.project(calls=metered(tariff(0)))
    assert shop.consume(("calls", LARGEST))[:1] == ("allowed",)
    before = shop.desk.dump()
    assert shop.consume(("calls", 1)) == "OVERFLOW quantity"
    assert shop.hold(("calls", 1)) == "OVERFLOW quantity"
    assert shop.desk.dump() == before


def test_charges_of_one_price_end_behind_one_another(shop: Shop) -> None:
    """Seven nanos for two units are three and four, in whatever charges they come."""
    shop.project(calls=metered(tariff(7, batch=2)))
    shop.grant("grant_a", 100)
    hold_id = shop.hold(("calls", 1), ("calls", 1))[10]
    assert shop.settle(hold_id)[4] == 7
    (entry,) = shop.entries()
    assert [charge.rated_nanos for charge in entry.charges] == [3, 4]
    assert shop.wallet("r:grant_a") == 93


def test_an_extension_ends_what_else_is_due_before_it_is_decided(shop: Shop) -> None:
    """What another hold of the customer gave back is there for it."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    hold_id = shop.hold(("calls", 5))[10]
    shop.due_hold(("calls", 5), on_expiry="release")
    assert shop.extend(hold_id, ("calls", 4))[0] == "allowed"
    assert (shop.wallet("r:grant_a"), shop.wallet("h:grant_a")) == (10, 90)


def test_a_limit_that_is_named_twice_behind_many_others_is_one_limit(shop: Shop) -> None:
    """Whether a few counters are looked through or many are found by name, the second charge sees the first."""
    features = {
        f"f{number}": metered(guard=Guard(limits=(limit(1, counter=f"f{number}@ever"),))) for number in range(20)
    }
    shop.project(**features)
    for count in range(1, 20):
        charges = [(f"f{number}", 1) for number in range(count)]
        assert shop.peek(*charges)[0] == "allowed"
        assert shop.consume(*charges, charges[-1])[:3] == ("limit_reached", 0, count + 1)
