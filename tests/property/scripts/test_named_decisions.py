"""Decisions and grants that chance meets too seldom, each told by its name; most lines are refusals."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from shop import DAY_MS, KEYS, LARGEST, OVER, Shop, limit, metered, tariff

from billing_core.contract.snapshot import Entitlement, FeatureKind, Guard, Status, Tier, Window, WindowKind

REFUSALS: list[tuple[str, dict[str, Any], list[tuple[str, int]], tuple[str, int]]] = [
    ("suspension goes before entitlement", {"status": Status.SUSPENDED}, [("none", 1)], ("suspended", 0)),
    ("the second feature is unknown", {}, [("free", 1), ("none", 1)], ("not_entitled", 2)),
    ("a disabled feature is not entitled", {}, [("off", 1)], ("not_entitled", 1)),
    ("entitlement of the last goes before a limit", {}, [("three", 9), ("none", 1)], ("not_entitled", 2)),
    ("a hard limit", {}, [("three", 4)], ("limit_reached", 1)),
    ("the same feature twice passes the limit", {}, [("three", 2), ("three", 2)], ("limit_reached", 2)),
    ("a limit goes before the wallet", {}, [("dear", 1), ("three", 4)], ("limit_reached", 2)),
    ("no window holds this instant", {}, [("over", 1)], ("unavailable", 1)),
    ("no period of the price holds this instant", {}, [("priced_over", 1)], ("unavailable", 1)),
    ("the balance is short", {}, [("dear", 1)], ("insufficient_balance", 1)),
    ("the second charge is short", {}, [("cheap", 50), ("cheap", 51)], ("insufficient_balance", 2)),
    ("a price beyond all money", {}, [("cheap", LARGEST)], ("insufficient_balance", 1)),
    ("a soft limit lets through", {}, [("soft", 100)], ("allowed", 0)),
    ("at the limit", {}, [("three", 3)], ("allowed", 0)),
    ("at the balance", {}, [("cheap", 100)], ("allowed", 0)),
]


@pytest.mark.parametrize(("name", "more", "charges", "expected"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_checks_come_in_their_order(
    shop: Shop, name: str, more: dict[str, Any], charges: list[tuple[str, int]], expected: tuple[str, int]
) -> None:
    """Suspended, entitlement, limits, wallet; the first that fails names reason and charge and writes nothing."""
    shop.project(
        **more,
        free=metered(),
        off=Entitlement(kind=FeatureKind.SWITCH, enabled=False),
        three=metered(limit_units=3),
        soft=metered(guard=Guard(limits=(limit(3, ceiling=-1),))),
        over=metered(guard=Guard(limits=(limit(9, window=OVER),))),
        cheap=metered(tariff(1)),
        dear=metered(tariff(101)),
        priced_over=metered(tariff(1, window=OVER, price_id="q")),
    )
    shop.grant("grant_a", 100)
    before = shop.desk.dump()
    peeked, reply = shop.peek(*charges), shop.consume(*charges)
    assert (reply[0], reply[2]) == (peeked[0], peeked[2]) == expected
    assert (shop.desk.dump() == before) == (expected[0] != "allowed")


def test_a_static_feature_tells_its_value_and_counts_nothing(shop: Shop) -> None:
    """Its quantity is ignored; with nothing else above zero there is no entry."""
    shop.project(region=Entitlement(kind=FeatureKind.STATIC, enabled=True, static_value="eu"))
    before = shop.desk.dump()
    assert shop.consume(("region", LARGEST))[13:] == (-1, -1, 0, 0, "eu", "", 0, "")
    assert shop.desk.dump() == before


def test_zero_is_decided_and_not_recorded(shop: Shop) -> None:
    """Zero passes a limit that is used up, even one that was passed; beside other units it is in the entry."""
    shop.project(calls=metered(tariff(1), limit_units=5))
    shop.grant("grant_a", 100)
    shop.consume(("calls", 5))
    assert shop.consume(("calls", 0))[13:17] == (5, 0, 0, 0)
    shop.project(calls=metered(tariff(1), limit_units=3), other=metered())
    assert shop.consume(("calls", 0))[0] == "allowed"
    assert len(shop.entries()) == 1
    shop.consume(("calls", 0), ("other", 1))
    assert [charge.quantity for charge in shop.entries()[1].charges] == [0, 1]


def test_two_currencies_in_one_request_are_paid_by_two_wallets(shop: Shop) -> None:
    """Column by column; the reply tells the first, and what each charge costs in its own."""
    shop.project(a=metered(tariff(1)), b=metered(tariff(2, currency="EUR", price_id="q")))
    shop.grant("grant_a", 100)
    assert shop.consume(("a", 1), ("b", 1))[0] == "insufficient_balance"
    shop.grant("grant_b", 100, currency="EUR")
    reply = shop.consume(("a", 1), ("b", 1))
    assert (reply[0], *reply[6:9], reply[16], reply[24]) == ("allowed", "USD", 1, 99, 1, 2)
    (entry,) = shop.entries()
    assert [(charge.currency, charge.charged_nanos) for charge in entry.charges] == [("USD", 1), ("EUR", 2)]
    assert [(move.grant_id, move.nanos) for move in entry.movements] == [("grant_a", 1), ("grant_b", 2)]


def test_every_way_to_decide_tells_the_plan(shop: Shop) -> None:
    """For each charge; a snapshot that was written before there were plans has none."""
    plain, long = metered(tariff(1), plan="pro"), metered(plan="pro", guard=Guard(concurrent=9))
    shop.project(plain=plain, long=long)
    shop.grant("grant_a", 1_000)
    for feature in ("plain", "long"):
        for act in (shop.consume, shop.record, shop.peek, shop.hold):
            assert act((feature, 1))[-1] == "pro"
    for charges in ((("plain", 1), ("long", 1)), (("plain", 1), ("long", 1), ("plain", 1))):
        assert shop.consume(*charges)[20::8] == ("pro",) * len(charges)
    assert shop.consume(("ghost", 1))[-1] == ""
    for entitlement in (plain, long):
        *words, _ = msgspec.msgpack.decode(msgspec.msgpack.encode(entitlement))
        assert shop.desk.run("project", [KEYS.epoch, KEYS.snapshot], shop.version + 1, "active", 0, "f:old",
                             msgspec.msgpack.encode(words)) == 1  # fmt: skip
        shop.version += 1
        assert shop.consume(("old", 1))[::20] == ("allowed", "")
    for plan in ("a b", "-", "x" * 65, 7):
        fields = ["f:calls", msgspec.msgpack.encode([*words, plan])]
        answer = shop.desk.run("project", [KEYS.epoch, KEYS.snapshot], shop.version + 1, "active", 0, *fields)
        assert answer == "INVALID entitlement"


def test_nanos_below_one_are_carried(shop: Shop) -> None:
    """One third of a nano each: 0, 0, 1, and so on; across tiers and packages too."""
    shop.project(calls=metered(tariff(1, batch=3)))
    shop.grant("grant_a", 100)
    assert [shop.consume(("calls", 1))[7] for _ in range(6)] == [0, 0, 1, 0, 0, 1]


def test_a_period_that_began_anew_begins_at_the_first_tier(shop: Shop) -> None:
    """The price's counter belongs to its billing period on the tenant's clock."""
    days = Window(kind=WindowKind.STEPS, anchor_ms=0, every_ms=DAY_MS)
    steps = metered(
        tariff(0, window=days, tiers=(Tier(upto=2, nanos_per_batch=9), Tier(upto=0, nanos_per_batch=1)))
    )
    shop.project(calls=steps)
    shop.grant("grant_a", 100)
    assert shop.consume(("calls", 3))[7] == 19
    shop.project(calls=steps, offset_ms=DAY_MS)
    assert shop.consume(("calls", 1))[7] == 9


def test_grants_burn_in_their_order(shop: Shop) -> None:
    """Priority, expiry (none last), promotional first, effective, created, id; what is not usable, not at all."""
    now = shop.desk.now_ms()
    shop.project(calls=metered(tariff(1)))
    shop.grant("grant_h", 5, priority=1)
    shop.grant("grant_g_b", 5, created_ms=2)
    shop.grant("grant_g_a", 5, created_ms=2)
    shop.grant("grant_f", 5, created_ms=1)
    shop.grant("grant_e", 5, effective_ms=0, paid=0, created_ms=9)
    shop.grant("grant_d", 5, expires_ms=now + 2 * DAY_MS)
    shop.grant("grant_c", 5, expires_ms=now + DAY_MS)
    shop.grant("grant_expired", 5, expires_ms=now)
    shop.grant("grant_future", 5, effective_ms=now + DAY_MS)
    assert shop.consume(("calls", 36))[0] == "insufficient_balance"
    shop.consume(("calls", 35))
    moved = [movement.grant_id for movement in shop.entries()[0].movements]
    assert moved == ["grant_c", "grant_d", "grant_e", "grant_f", "grant_g_a", "grant_g_b", "grant_h"]


def test_a_wallet_never_holds_more_than_a_double_carries(shop: Shop) -> None:
    """The sum over a currency's grants stays at or below 2^53 - 1, held nanos included."""
    shop.project(calls=metered(tariff(1)))
    assert shop.grant("grant_a", LARGEST - 1) == 1
    assert shop.hold(("calls", 1000))[0] == "allowed"
    assert shop.grant("grant_b", 2) == "OVERFLOW wallet"
    assert shop.grant("grant_b", 1) == 1
    assert shop.grant("grant_b", 999) == 0


def test_counters_refuse_to_pass_what_a_double_carries(shop: Shop) -> None:
    """Used and held units together stay exact."""
    shop.project(calls=metered(guard=Guard(limits=(limit(5, ceiling=-1),))))
    assert shop.consume(("calls", LARGEST))[0] == "allowed"
    assert shop.consume(("calls", 1)) == "OVERFLOW quantity"
    assert shop.hold(("calls", 1)) == "OVERFLOW quantity"
    assert shop.counter("c@ever:u") == LARGEST


def test_a_lapse_takes_what_remains_and_later_what_was_held(shop: Shop) -> None:
    """A hold keeps its part of an expired grant; what it gives back is nobody's, until the next lapse takes it."""
    now = shop.desk.now_ms()
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100, expires_ms=now + DAY_MS)
    hold_id = shop.hold(("calls", 5))[10]
    assert shop.lapse("grant_a", "expire") == 0
    shop.project(calls=metered(tariff(10)), offset_ms=DAY_MS)
    assert shop.lapse("grant_a", "expire") == 50
    assert shop.settle(hold_id, ("calls", 3))[4:] == (30, 20, 0, 0)
    assert shop.consume(("calls", 1))[0] == "insufficient_balance"
    assert [shop.lapse("grant_a", "expire") for _ in range(2)] == [20, 0]
    moved = [movement.nanos for entry in shop.entries() for movement in entry.movements]
    assert sorted(moved) == [20, 30, 50]


def test_a_void_grant_is_gone_at_once(shop: Shop) -> None:
    """Before its expiry too, and it never comes back."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    hold_id = shop.hold(("calls", 5))[10]
    assert shop.lapse("grant_a", "void") == 50
    assert shop.release(hold_id)[7] == 0
    assert shop.grant("grant_a", 100) == 0
    assert shop.consume(("calls", 1))[0] == "insufficient_balance"


def test_live_reads_tell_what_stands(shop: Shop) -> None:
    """Wallet in burn order, usage limit by limit, on the tenant's clock."""
    shop.project(
        calls=metered(tariff(10), limit_units=50), region=Entitlement(kind=FeatureKind.STATIC, enabled=True)
    )
    shop.grant("grant_a", 100, expires_ms=1)
    shop.grant("grant_b", 100, paid=0)
    shop.consume(("calls", 3))
    shop.hold(("calls", 2))
    _, *grants = shop.desk.run("wallet_read", [KEYS.epoch, KEYS.snapshot, KEYS.wallet])
    assert grants[:11] == ["USD", "grant_a", 0, 100, 0, 0, 1, 0, 1, "", 0]
    assert grants[11:] == ["USD", "grant_b", 1, 50, 20, 0, 0, 0, 0, "", 0]
    status, *rows = shop.usage()
    assert status == "active"
    assert ("limit", "calls", 2, 1, "", "customer", "c@ever", 50, 50, 3, 2, 45, 0, 0) in rows
    assert ("feature", "region", 1, 1, "", "", "", -1, -1, 0, 0, -1, 0, 0) in rows


def test_nobody_is_served_where_the_shard_is_not_built(shop: Shop) -> None:
    """No epoch, no answer; and no customer without a snapshot."""
    assert shop.consume(("calls", 1)) == shop.peek(("calls", 1)) == "UNKNOWN customer"
    shop.project(calls=metered())
    shop.desk.client.delete(KEYS.epoch)
    replies = [shop.consume(("calls", 1)), shop.grant("grant_a", 1), shop.sweep(), shop.settle("hold_x")]
    assert set(replies) == {"UNAVAILABLE epoch"}
