"""Rates and open holds: what passes, what waits and how long, and that a refusal costs nothing."""

from __future__ import annotations

import msgspec
import pytest
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st
from model.counting import open_pace
from shop import Shop, metered

from billing_core.contract.snapshot import Budget, Guard, Rate, RateCount
from lua.loader import assemble

MINUTE_MS = 60_000


def rate(units: int, *, burst: int, counts: RateCount = RateCount.REQUESTS, per_ms: int = 1000 * MINUTE_MS) -> Rate:
    return Rate(counter="calls~0", units=units, per_ms=per_ms, burst_units=burst, counts=counts)


def test_a_burst_passes_and_the_next_one_waits(shop: Shop) -> None:
    """The refusal says how long: a unit's share of the period, less what has drained since."""
    shop.project(calls=metered(guard=Guard(rates=(rate(10, burst=2),))))
    replies = [shop.consume(("calls", 50)) for _ in range(3)]
    assert [reply[0] for reply in replies] == ["allowed", "allowed", "rate_limited"]
    assert replies[2][2:5] == (1, "customer", "calls~0")
    assert 99 * MINUTE_MS < replies[2][11] <= 100 * MINUTE_MS
    shop.project(calls=metered(guard=Guard(rates=(rate(10, burst=2),))), offset_ms=100 * MINUTE_MS)
    assert [shop.consume(("calls", 1))[0] for _ in range(2)] == ["allowed", "rate_limited"]


def test_a_refusal_costs_nothing(shop: Shop) -> None:
    """Neither a rate's own nor another check's; a peek costs nothing either."""
    shop.project(calls=metered(limit_units=5, guard=Guard(rates=(rate(1, burst=2),))), none=metered())
    before = shop.desk.dump()
    shop.peek(("calls", 1))
    assert shop.consume(("calls", 1), ("ghost", 1))[0] == "not_entitled"
    assert shop.desk.dump() == before
    assert [shop.consume(("calls", 1))[0] for _ in range(4)] == ["allowed", "allowed", *["rate_limited"] * 2]


def test_a_rate_of_units_counts_quantities(shop: Shop) -> None:
    """More than the burst can never pass, and says so; nothing costs nothing."""
    shop.project(calls=metered(guard=Guard(rates=(rate(10, burst=100, counts=RateCount.UNITS),))))
    assert shop.consume(("calls", 60))[0] == "allowed"
    assert (shop.consume(("calls", 50))[0], shop.consume(("calls", 0))[0]) == ("rate_limited", "allowed")
    never = shop.consume(("calls", 101))
    assert (never[0], never[11]) == ("rate_limited", 0)


def test_an_act_counts_once_whatever_it_names(shop: Shop) -> None:
    """A rate of requests is one of acts."""
    shop.project(calls=metered(guard=Guard(rates=(rate(1, burst=2),))))
    replies = [shop.consume(("calls", 1), ("calls", 1))[0] for _ in range(3)]
    assert replies == ["allowed", "allowed", "rate_limited"]


def test_a_node_has_a_rate_of_its_own(shop: Shop) -> None:
    """And is forgotten when it has drained."""
    guard = Guard(rates=(rate(1, burst=1),))
    shop.project(calls=metered(), budgets={"key:*": Budget(guards={"calls": guard})})
    assert [shop.consume(("calls", 1), path=f"key:{key}")[0] for key in "aab"] == [
        "allowed",
        "rate_limited",
        "allowed",
    ]
    (name,) = shop.desk.client.keys("*/key:a")
    assert 0 < shop.desk.client.pttl(name) <= 1000 * MINUTE_MS + 60 * MINUTE_MS


@pytest.mark.parametrize("path", ["", "team:ml"])
def test_an_open_hold_is_a_place_that_is_taken(shop: Shop, path: str) -> None:
    """Until it ends; a debit wants a free place and takes none."""
    guard = Guard(concurrent=2)
    if path:
        shop.project(calls=metered(), budgets={path: Budget(guards={"calls": guard})})
    else:
        shop.project(calls=metered(guard=guard))
    first, second = (shop.hold(("calls", 1), ("calls", 1), path=path)[10] for _ in range(2))
    refused = shop.hold(("calls", 1), path=path)
    assert (refused[0], *refused[2:5]) == ("concurrency_limited", 1, path or "customer", "calls:c")
    assert shop.consume(("calls", 1), path=path)[0] == "concurrency_limited"
    shop.settle(first, ("calls", 1))
    assert [shop.consume(("calls", 1), path=path)[0] for _ in range(3)] == ["allowed"] * 3
    shop.release(second)
    assert [shop.hold(("calls", 1), path=path)[0] for _ in range(3)] == [
        "allowed",
        "allowed",
        "concurrency_limited",
    ]


RAISE = assemble(
    """--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/path.lua
--!include lib/level/refusal.lua
--!include lib/level/pace.lua as pace_acts
local rate, node, replies = cmsgpack.unpack(ARGV[1]), node_of('customer', false, 'k'), {}
local charges = { { feature = 'calls', quantity = whole(ARGV[4]) } }
pace_acts.ask(node, 1, { rate })
node.values = { ARGV[2] }
pace_acts.read(node, whole(ARGV[3]))
local decision = { nodes = { node }, at = whole(ARGV[3]), mode = 'consume' }
local passes = pace_acts.fit(decision, charges)
local fields = {}
pace_acts.write(node, fields)
return { passes and 1 or 0, passes and 0 or decision.refusal[4], fields[2] or '' }
"""
)

whole = st.one_of(st.integers(0, 1000), st.integers(0, 2**53 - 1), st.sampled_from([2**53 - 1, 2**52, 10**15]))


@settings(max_examples=120, deadline=None)
@given(data=st.data(), units=whole, per_ms=whole, stored=whole, at=whole, gap=whole, quantity=whole)
def test_a_rate_is_exact_to_the_edge_of_a_double(
    desk: Desk, data: st.DataObject, units: int, per_ms: int, stored: int, at: int, gap: int, quantity: int
) -> None:
    """Level, verdict and waiting time are those of whole numbers, whatever the clock does."""
    units, per_ms = max(1, units), max(1, per_ms)
    burst = data.draw(st.integers(1, max(1, (2**53 - 1) // per_ms)))
    told = Rate(counter="r", units=units, per_ms=per_ms, burst_units=burst, counts=RateCount.UNITS)
    level, since = min(stored, burst * per_ms), max(0, min(at + gap, 2**53 - 1) - data.draw(whole))
    pace = open_pace(told, stored={"r:t": (level, since)}, at=at)
    passes, wait_ms = pace.admit(quantity)
    packed = msgspec.msgpack.encode(told)
    real = desk.client.eval(RAISE, 0, packed, f"{level} {since}", at, quantity)
    assert real[0] == passes
    if passes:
        expected = f"{pace.level + pace.raised} {pace.since}" if pace.raised else ""
        assert real[2].decode() == expected
    elif max(wait_ms, pace.since) < 2**52:
        assert real[1] == (wait_ms + pace.since - at if wait_ms else 0)
