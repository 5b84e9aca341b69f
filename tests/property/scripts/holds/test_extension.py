"""More for an open hold, and more time: decided like a hold, all of it or nothing."""

from __future__ import annotations

import msgspec
import pytest
from shop import KEYS, LARGEST, OVER, Shop, limit, metered, tariff

from billing_core.contract.snapshot import Budget, FeatureKind, Guard, Rate, SpendCap, Status, Window, WindowKind
from billing_core.contract.usage_event import EntryKind

FOREVER = Window(kind=WindowKind.LIFETIME)
ENDED = slice(4, 8)
"""Charged, released, uncollected and balance of an end."""


def open_hold(shop: Shop, *amounts: int, units: int = 5) -> str:
    """Five calls at ten nanos."""
    shop.project(calls=metered(tariff(10), limit_units=20), tokens=metered())
    for number, amount in enumerate(amounts):
        shop.grant(f"grant_{number}", amount, priority=number)
    return shop.hold(("calls", units))[10]


def test_an_extension_sets_more_aside(shop: Shop) -> None:
    """The answer is that of a decision, and tells the hold."""
    hold_id = open_hold(shop, 70, 80)
    reply = shop.extend(hold_id, ("calls", 6), ttl_ms=500_000)
    assert (reply[0], reply[6:9], reply[10], reply[13:15]) == ("allowed", ("USD", 60, 40), hold_id, (20, 9))
    assert (shop.wallet("h:grant_0"), shop.wallet("h:grant_1"), shop.counter("c@ever:h")) == (70, 40, 11)
    for name in (KEYS.shard_holds, KEYS.holds):
        assert shop.desk.client.zscore(name, hold_id) == reply[9]
    assert shop.settle(hold_id, ("calls", 8))[ENDED] == (80, 30, 0, 70)
    assert (shop.wallet("r:grant_0"), shop.wallet("r:grant_1")) == (0, 70)
    assert (shop.counter("c@ever:u"), shop.counter("c@ever:h"), shop.counter("$p:h")) == (8, 0, 0)


def test_a_feature_that_is_not_named_settles_as_extended(shop: Shop) -> None:
    """What it holds is what it was given."""
    hold_id = open_hold(shop, 1000)
    shop.extend(hold_id, ("calls", 3))
    shop.part(hold_id, ("calls", 6))
    shop.extend(hold_id, ("calls", 4))
    assert shop.settle(hold_id)[ENDED] == (60, 0, 0, 880)
    assert [entry.charges[0].quantity for entry in shop.entries()] == [6, 6]


def test_a_later_deadline_may_be_all(shop: Shop) -> None:
    """Never an earlier one; and nothing else changes."""
    hold_id = open_hold(shop, 100)
    before = shop.desk.dump()
    deadline_ms = shop.extend(hold_id, ttl_ms=1)[9]
    assert (deadline_ms, shop.desk.dump()) == (shop.desk.client.zscore(KEYS.holds, hold_id), before)
    reply = shop.extend(hold_id, ttl_ms=500_000)
    assert (reply[0], len(reply), reply[9] > deadline_ms) == ("allowed", 13, True)


REFUSALS = [
    ("over a limit", ("calls", 16), "limit_reached", "customer"),
    ("beyond the wallet", ("calls", 6), "insufficient_balance", ""),
]


@pytest.mark.parametrize(("name", "charge", "reason", "level"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_a_refused_extension_leaves_the_hold_as_it_was(
    shop: Shop, name: str, charge: tuple[str, int], reason: str, level: str
) -> None:
    """Its deadline too; and the answer, also when it is asked for again, tells the hold that stands."""
    hold_id = open_hold(shop, 100)
    before = shop.desk.dump()
    reply = shop.extend(hold_id, charge, ttl_ms=500_000, key="k")
    assert (reply[0], reply[2:4], reply[10]) == (reason, (1, level), hold_id)
    shop.grant("grant_more", 1000)
    assert shop.extend(hold_id, charge, ttl_ms=500_000, key="k") == (reply[0], 1, *reply[2:])
    after = shop.desk.dump()
    assert {name for name in after if after[name] != before.get(name)} == {
        KEYS.wallet,
        KEYS.idempotency_prefix + "k",
    }
    assert shop.wallet("h:grant_0") == 50


def test_a_suspended_customer_gets_no_more(shop: Shop) -> None:
    """Nor more time; what the work took is settled all the same."""
    hold_id = open_hold(shop, 100)
    shop.project(status=Status.SUSPENDED, calls=metered(tariff(10)))
    assert shop.extend(hold_id, ("calls", 1))[:4] == ("suspended", 0, 0, "")
    assert shop.extend(hold_id, ttl_ms=500_000)[0] == "suspended"
    assert shop.settle(hold_id)[0] == "settled"


def test_an_extension_is_one_act_for_its_key(shop: Shop) -> None:
    """The same again gets the first answer; another under the key is a conflict."""
    hold_id = open_hold(shop, 100)
    first = shop.extend(hold_id, ("calls", 2), key="k")
    assert shop.extend(hold_id, ("calls", 2), key="k") == (first[0], 1, *first[2:])
    assert shop.extend(hold_id, ("calls", 2), key="k", digest="other") == "CONFLICT idempotency"
    assert shop.wallet("h:grant_0") == 70


@pytest.mark.parametrize("end", ["settled", "released", "expired", "not_found"])
def test_a_hold_that_is_not_open_is_not_extended(shop: Shop, end: str) -> None:
    """The answer says how it ended; nothing is remembered under the key."""
    hold_id = open_hold(shop, 100)
    match end:
        case "settled":
            shop.settle(hold_id)
        case "released":
            shop.release(hold_id)
        case "expired":
            hold_id = shop.due_hold(("calls", 1), on_expiry="release")
        case _:
            hold_id = "hold_unknown"
    reply = shop.extend(hold_id, ("calls", 1), ttl_ms=10, key="k")
    assert (reply[:5], reply[9:11], reply[13:16]) == ((end, 0, 0, "", ""), (0, ""), (-1, -1, 0))
    assert KEYS.idempotency_prefix + "k" not in shop.desk.dump()


def test_its_own_place_does_not_stand_in_its_way(shop: Shop) -> None:
    """One hold at a time may still grow, at every level."""
    guard = Guard(limits=(limit(40, counter="calls@ever"),), concurrent=1)
    shop.project(calls=metered(guard=guard), budgets={"team:*": Budget(guards={"calls": guard})})
    hold_id = shop.hold(("calls", 5), path="team:ml")[10]
    assert shop.extend(hold_id, ("calls", 5))[0] == "allowed"
    node = [shop.counter(field, node="team:ml") for field in ("calls@ever:h", "calls:c", "o")]
    assert (node, shop.counter("calls:c")) == ([10, 1, 1], 1)
    assert shop.hold(("calls", 1), path="team:ml")[0] == "concurrency_limited"
    shop.release(hold_id)
    assert (f"{KEYS.counters}/team:ml" in shop.desk.dump(), shop.counter("calls:c")) == (True, 0)
    assert [shop.counter(field, node="team:ml") for field in ("calls@ever:h", "calls:c", "o")] == [0, 0, 0]


def test_what_a_new_plan_counts_is_held_from_the_extension_on(shop: Shop) -> None:
    """Each counter takes back what it was given, whatever the plan was when."""
    hold_id = open_hold(shop, 1000)
    shop.project(
        calls=metered(tariff(20, price_id="q"), guard=Guard(limits=(limit(9, counter="new@ever"),))),
        budgets={
            "": Budget(caps=(SpendCap(counter="$c", currency="USD", nanos=900, ceiling=900, window=FOREVER),))
        },
    )
    assert shop.extend(hold_id, ("calls", 4))[7] == 80

    def held() -> list[int]:
        return [shop.counter(f"{name}:h") for name in ("c@ever", "$p", "new@ever", "$q", "$c")]

    assert held() == [5, 5, 4, 4, 80]
    shop.part(hold_id, ("calls", 3))
    assert held() == [2, 2, 1, 1, 20]
    assert shop.settle(hold_id)[4:6] == (120, 0)
    assert (held(), shop.wallet("h:grant_0"), shop.wallet("r:grant_0")) == ([0, 0, 0, 0, 0], 0, 820)


def test_more_is_taken_in_the_currency_of_the_hold(shop: Shop) -> None:
    """Although another wallet could pay; one charge has one currency."""
    euro = tariff(1, currency="EUR", price_id="e")
    shop.project(calls=metered(tariff(10), euro))
    shop.grant("grant_0", 50)
    shop.grant("grant_e", 1000, currency="EUR")
    hold_id = shop.hold(("calls", 4))[10]
    assert shop.extend(hold_id, ("calls", 2))[0] == "insufficient_balance"
    assert shop.extend(hold_id, ("calls", 1))[6:8] == ("USD", 10)


def test_what_was_free_when_it_was_promised_stays_free(shop: Shop) -> None:
    """A price that came in between is for the next hold."""
    shop.project(calls=metered())
    hold_id = shop.hold(("calls", 4))[10]
    shop.project(calls=metered(tariff(10)))
    assert (shop.extend(hold_id, ("calls", 2))[7], shop.settle(hold_id)[4]) == (0, 0)


def test_an_extension_is_one_more_act_for_a_rate(shop: Shop) -> None:
    """It passes the door like every other."""
    rate = Rate(counter="calls~hour", units=1, per_ms=3_600_000, burst_units=2)
    shop.project(calls=metered(guard=Guard(rates=(rate,))))
    hold_id = shop.hold(("calls", 4))[10]
    assert [shop.extend(hold_id, ("calls", 1))[0] for _ in range(2)] == ["allowed", "rate_limited"]


def test_what_cannot_be_added_changes_nothing(shop: Shop) -> None:
    """Other features, gauges, windows that are over, and more than a number carries."""
    shop.project(calls=metered(), tokens=metered(), over=metered(), seats=metered(kind=FeatureKind.GAUGE))
    hold_id = shop.hold(("calls", LARGEST), ("over", 1))[10]
    shop.project(calls=metered(), over=metered(guard=Guard(limits=(limit(9, window=OVER),))))
    before = shop.desk.dump()
    assert shop.extend(hold_id, ("tokens", 1)) == "INVALID feature"
    assert shop.extend(hold_id, ("calls", 1)) == "OVERFLOW quantity"
    assert shop.extend(hold_id, ("over", 1))[0] == "unavailable"
    assert shop.extend(hold_id, *[("calls", 1)] * 101) == "INVALID charges"
    assert shop.desk.run("extend", [KEYS.epoch] * 4, "d", 0, 0, 0, 1, "calls", "-1") == "INVALID quantity"
    assert shop.desk.dump() == before


def test_shadow_mode_refuses_no_extension(shop: Shop) -> None:
    """What would be refused is not added but appended as an event of its own; the hold goes on with what it has."""
    shop.project(calls=metered(tariff(10), limit_units=8))
    shop.grant("grant_0", 1000)
    hold_id = shop.hold(("calls", 5), shadow=True)[10]
    reply = shop.extend(hold_id, ("calls", 4), ttl_ms=500_000)
    assert (reply[0], reply[12]) == ("allowed", "limit_reached")
    assert shop.wallet("h:grant_0") == 50
    assert reply[9] == shop.desk.client.zscore(KEYS.holds, hold_id)
    shop.settle(hold_id)
    told = [(entry.kind, entry.body.event_id) for entry in shop.entries()]
    assert told == [(EntryKind.SHADOW, "e.1"), (EntryKind.SETTLE, "e")]


def test_an_empty_hold_of_shadow_mode_stays_empty(shop: Shop) -> None:
    """More is asked of it, and nothing set aside."""
    shop.project(calls=metered(tariff(10)))
    hold_id = shop.hold(("calls", 5), shadow=True)[10]
    reply = shop.extend(hold_id, ("calls", 4))
    assert (reply[0], reply[7], reply[12]) == ("allowed", 0, "insufficient_balance")
    shop.settle(hold_id)
    quantities = [fields[b"q"] for _, fields in shop.desk.client.xrange(KEYS.stream)]
    assert quantities == [b"5", b"9"]


def test_parts_of_one_grant_are_kept_as_one(shop: Shop) -> None:
    """A lease that is filled up again and again does not grow."""
    hold_id = open_hold(shop, 10_000, units=1)
    sizes = []
    for _ in range(5):
        shop.part(hold_id, ("calls", 1))
        shop.extend(hold_id, ("calls", 1))
        sizes.append(len(msgspec.msgpack.encode(shop.desk.dump()[f"{KEYS.epoch[:7]}:hold:{hold_id}"])))
    assert len(set(sizes)) == 1
