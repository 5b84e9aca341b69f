"""Budget levels: each holds back by itself, the refusal names it, and its memory ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from shop import DAY_MS, FOREVER, KEYS, Shop, limit, metered, tariff

from billing_core.contract.snapshot import Budget, Guard, SpendCap, Tariff, Window, WindowKind

DAYS = Window(kind=WindowKind.STEPS, anchor_ms=0, every_ms=DAY_MS)
HOUR_MS = 3_600_000


def budget(units: int = -1, *, cap: int = -1, concurrent: int = -1, window: Window = FOREVER) -> Budget:
    """A budget of the feature `calls`, with a spend cap in USD where one is named."""
    limits = (limit(units, window=window),) if units >= 0 else ()
    caps = (
        (SpendCap(counter="$USD@ever", currency="USD", nanos=cap, ceiling=cap, window=window),) if cap >= 0 else ()
    )
    return Budget(guards={"calls": Guard(limits=limits, concurrent=concurrent)}, caps=caps)


def told(reply: Any) -> tuple[Any, ...]:
    """Reason, charge, level and limit."""
    return (reply[0], *reply[2:5])


LEVELS = [
    ("the customer", {}, ("limit_reached", 1, "customer", "c@ever")),
    ("a team", {"team:ml": budget(7)}, ("limit_reached", 1, "team:ml", "c@ever")),
    ("a key below it", {"team:ml/key:k1": budget(7)}, ("limit_reached", 1, "team:ml/key:k1", "c@ever")),
    ("all teams", {"team:*": budget(7)}, ("limit_reached", 1, "team:ml", "c@ever")),
    ("all keys", {"key:*": budget(7)}, ("limit_reached", 1, "team:ml/key:k1", "c@ever")),
    ("the upper of two", {"team:ml": budget(6), "key:*": budget(6)}, ("limit_reached", 1, "team:ml", "c@ever")),
    ("money of a team", {"team:ml": budget(cap=70)}, ("limit_reached", 1, "team:ml", "$USD@ever")),
    ("money of the customer", {"": budget(cap=70)}, ("limit_reached", 1, "customer", "$USD@ever")),
    (
        "units before money",
        {"": budget(cap=10), "key:*": budget(7)},
        ("limit_reached", 1, "team:ml/key:k1", "c@ever"),
    ),
]


@pytest.mark.parametrize(("who", "budgets", "expected"), LEVELS, ids=[row[0] for row in LEVELS])
def test_the_refusal_names_level_and_limit(
    shop: Shop, who: str, budgets: dict[str, Budget], expected: tuple[Any, ...]
) -> None:
    """Level by level from the customer down; what was refused has written nothing."""
    shop.project(calls=metered(tariff(10), limit_units=9 if budgets else 7), budgets=budgets)
    shop.grant("grant_a", 1000)
    before = shop.desk.dump()
    peeked = shop.peek(("calls", 8), path="team:ml/key:k1")
    assert told(shop.consume(("calls", 8), path="team:ml/key:k1")) == told(peeked) == expected
    assert shop.desk.dump() == before
    assert told(shop.consume(("calls", 1), path="team:ml/key:k1"))[0] == "allowed"


def test_levels_count_by_themselves(shop: Shop) -> None:
    """One key's usage is its team's and the customer's, and no other key's."""
    shop.project(calls=metered(limit_units=100), budgets={"team:*": budget(20), "key:*": budget(10)})
    shop.consume(("calls", 8), path="team:ml/key:k1")
    shop.consume(("calls", 7), path="team:ml/key:k2")
    shop.consume(("calls", 5), path="team:it")
    assert shop.counter("c@ever:u") == 20
    assert [shop.counter("c@ever:u", node=node) for node in ("team:ml", "team:it")] == [15, 5]
    assert [shop.counter("c@ever:u", node=f"team:ml/key:{key}") for key in ("k1", "k2")] == [8, 7]
    assert told(shop.consume(("calls", 6), path="team:ml/key:k3"))[2] == "team:ml"


def test_a_node_of_its_own_replaces_the_default_of_its_kind(shop: Shop) -> None:
    """Whole: what the default says of other features does not count for it."""
    shop.project(calls=metered(), budgets={"team:*": budget(1), "team:ml": budget(5), "team:it": Budget()})
    replies = [shop.consume(("calls", 5), path=f"team:{team}")[0] for team in ("ml", "it", "hr")]
    assert replies == ["allowed", "allowed", "limit_reached"]


def test_the_tightest_limit_is_told(shop: Shop) -> None:
    """Over all levels, whoever has least left; the first of those that tie."""
    shop.project(calls=metered(limit_units=100), budgets={"team:ml": budget(20), "key:*": budget(10)})
    assert shop.consume(("calls", 4), path="team:ml/key:k1")[13:15] == (10, 6)
    shop.consume(("calls", 12), path="team:ml")
    assert shop.peek(("calls", 0), path="team:ml/key:k1")[13:15] == (20, 4)


PATHS = ["ml", "team:", "team:ml/", "/team:ml", "key:k/team:ml", "team:a/team:b", "team:a b", "crew:x", "team:-x"]


@pytest.mark.parametrize("path", [*PATHS, "team:" + "x" * 65, "team:ml//key:k"])
def test_a_path_has_kinds_in_their_order(shop: Shop, path: str) -> None:
    """Team, project, user, key; each optional, each with a code."""
    shop.project(calls=metered())
    replies = {shop.consume(("calls", 1), path=path), shop.peek(("calls", 1), path=path)}
    assert replies == {"INVALID path"}
    assert shop.desk.run("usage_read", [KEYS.epoch, KEYS.snapshot, KEYS.counters], path) == "INVALID path"


def test_a_node_is_forgotten_when_its_windows_are_over(shop: Shop) -> None:
    """To the full hour after the last of them; a lifetime stays, and so does what is held."""
    shop.project(calls=metered(), budgets={"team:ml": budget(9, window=DAYS), "team:it": budget(9)})
    name = f"{KEYS.counters}/team:ml"
    shop.consume(("calls", 1), path="team:ml")
    left_ms = shop.desk.client.pttl(name)
    assert 0 < left_ms <= DAY_MS + HOUR_MS
    hold_id = shop.hold(("calls", 1), path="team:ml")[10]
    assert shop.desk.client.pttl(name) == -1
    shop.release(hold_id)
    assert left_ms - 60_000 < shop.desk.client.pttl(name) <= left_ms
    shop.consume(("calls", 1), path="team:it")
    assert shop.desk.client.pttl(f"{KEYS.counters}/team:it") == -1


def test_a_node_that_only_held_is_gone_with_the_hold(shop: Shop) -> None:
    """A concurrency limit alone leaves nothing behind."""
    shop.project(calls=metered(), budgets={"key:*": budget(concurrent=1)})
    hold_id = shop.hold(("calls", 1), path="key:k1")[10]
    assert shop.counter("calls:c", node="key:k1") == 1
    shop.release(hold_id)
    assert not shop.desk.client.exists(f"{KEYS.counters}/key:k1")


def test_usage_is_told_for_every_level_of_a_path(shop: Shop) -> None:
    """Limits, rates, open holds and spend caps, each with its level."""
    shop.project(calls=metered(tariff(10), limit_units=50), budgets={"team:*": budget(20, cap=500, concurrent=3)})
    shop.grant("grant_a", 1000)
    shop.consume(("calls", 2), path="team:ml")
    shop.hold(("calls", 3), path="team:ml")
    rows = shop.usage("team:ml/key:k1")
    assert ("limit", "calls", 2, 1, "", "customer", "c@ever", 50, 50, 2, 3, 45, 0, 0) in rows
    assert ("limit", "calls", 2, 1, "", "team:ml", "c@ever", 20, 20, 2, 3, 15, 0, 0) in rows
    assert ("concurrency", "calls", 2, 1, "", "team:ml", "", 3, 3, 0, 1, 2, 0, 0) in rows
    assert ("spend_cap", "", -1, 1, "USD", "team:ml", "$USD@ever", 500, 500, 20, 30, 450, 0, 0) in rows
    assert len(shop.usage()) == 3


def test_what_is_held_counts_at_every_level_and_is_taken_back_there(shop: Shop) -> None:
    """Units under limits, money under caps; after the end what was used counts instead."""
    shop.project(calls=metered(tariff(10)), budgets={"team:ml": budget(10, cap=100)})
    shop.grant("grant_a", 1000)
    hold_id = shop.hold(("calls", 9), path="team:ml")[10]
    assert told(shop.consume(("calls", 2), path="team:ml"))[2:] == ("team:ml", "c@ever")
    shop.settle(hold_id, ("calls", 3))
    stands = {field: shop.counter(field, node="team:ml") for field in ("c@ever:u", "c@ever:h", "$USD@ever:u")}
    assert stands == {"c@ever:u": 3, "c@ever:h": 0, "$USD@ever:u": 30}
    assert shop.consume(("calls", 7), path="team:ml")[0] == "allowed"


def test_the_largest_request_is_decided(shop: Shop) -> None:
    """A hundred features, each with as many limits and prices as may be, at five levels."""
    guard = Guard(limits=tuple(limit(100, window=DAYS, carry_units=1, counter=f"{n}@day") for n in range(32)))
    codes = [f"f{number}" for number in range(100)]
    told = {
        code: metered(
            *(tariff(1, price_id=f"{code}{n}", currency=f"C{n}") for n in range(32)), guard=own(guard, code)
        )
        for code in codes
    }
    guards = {code: own(guard, code) for code in codes}
    shop.project(budgets={kind: Budget(guards=guards) for kind in ("team:*", "key:*")}, **told)
    shop.grant("grant_a", 1000, currency="C31")
    charges = [(code, 1) for code in codes]
    assert shop.peek(*charges, path="team:ml/key:k1")[0] == "allowed"
    assert shop.consume(*charges, path="team:ml/key:k1")[0] == "allowed"
    hold_id = shop.hold(*charges, path="team:ml/key:k1")[10]
    assert shop.settle(hold_id)[0] == "settled"
    assert shop.counter("f99.31@day:u", node="team:ml/key:k1") == 2
    more = Guard(limits=(*guard.limits, limit(1, counter="more")))
    fields = ["f:f0", msgspec.msgpack.encode(metered(guard=more))]
    assert shop.desk.run("project", [KEYS.epoch, KEYS.snapshot], 9, "active", 0, *fields) == "INVALID entitlement"


def own(guard: Guard, code: str) -> Guard:
    """The same, with counters of this feature's own."""
    limits = (msgspec.structs.replace(one, counter=f"{code}.{one.counter}") for one in guard.limits)
    return msgspec.structs.replace(guard, limits=tuple(limits))


def wallets(code: str) -> list[Tariff]:
    """As many as may be, in as many currencies."""
    return [tariff(1, price_id=f"{code}{n}", currency=f"C{n}") for n in range(32)]
