"""Many at once: the wallet pays exactly as often as it can, and one act that many ask for happens once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from crowd import at_once
from desk import Desk, decision_keys, grant_keys, hold_keys

from billing_core.contract.keys import customer_keys, hold_key, new_hold_id
from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Snapshot,
    SpendCap,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.contract.usage_event import EventBody, decode_entry, encode_body

KEYS = customer_keys("acme", "c0")
PRICE_NANOS = 7
FOREVER = Window(kind=WindowKind.LIFETIME)
TIERS = (Tier(upto=0, nanos_per_batch=PRICE_NANOS),)
TARIFF = Tariff(price_id="p", currency="USD", package_units=1, batch=1, tiers=TIERS, window=FOREVER)
CALLS = Entitlement(kind=FeatureKind.METERED, enabled=True, tariffs=(TARIFF,))
SNAPSHOT = Snapshot(version=1, status=Status.ACTIVE, clock_offset_ms=0, features={"calls": CALLS})
BODY = encode_body(EventBody(event_id="e", tenant_id="acme", customer_id="c0", features=("calls",)))
ONE = 1, "calls", 1


def open_wallet(desk: Desk, amounts: Sequence[int], snapshot: Snapshot = SNAPSHOT) -> None:
    """A customer with these grants."""
    desk.clear()
    desk.client.set(KEYS.epoch, 1)
    desk.run("project", [KEYS.epoch, KEYS.snapshot], 1, "active", 0, *snapshot_fields(snapshot))
    for number, amount in enumerate(amounts):
        desk.run("grant", grant_keys(KEYS), "USD", f"grant_{number}", amount, 0, 0, 0, 1, number, "", BODY)


async def test_fifty_debits_on_a_balance_for_ten_grant_exactly_ten(desk: Desk, valkey_server: str) -> None:
    """floor(b / a) are granted, whatever grants the balance lies in, and each has its entry."""
    open_wallet(desk, [30, 3, 43])
    call = decision_keys(KEYS), ("", 0, 0, BODY, "", 0, 0, *ONE)
    replies = await at_once(valkey_server, [("consume", *call)] * 50)
    assert Counter(reply[0] for reply in replies) == {"allowed": 10, "insufficient_balance": 40}
    entries = [decode_entry(stream_id, fields) for stream_id, fields in desk.client.xrange(KEYS.stream)]
    moved = sum(movement.nanos for entry in entries for movement in entry.movements)
    assert (len(entries), moved) == (10, 10 * PRICE_NANOS)
    wallet = desk.dump()[KEYS.wallet]
    assert [wallet[f"r:grant_{number}"] for number in range(3)] == [0, 0, 6]


@pytest.mark.parametrize("by", ["limit", "cap"])
async def test_fifty_debits_of_five_keys_on_a_team_for_ten_grant_exactly_ten(
    desk: Desk, valkey_server: str, by: str
) -> None:
    """By units or by money; a level that others share is no less exact."""
    limit = Limit(counter="calls@ever", units=10, ceiling=10, window=FOREVER)
    nanos = 10 * PRICE_NANOS + 1
    cap = SpendCap(counter="$USD@ever", currency="USD", nanos=nanos, ceiling=nanos, window=FOREVER)
    budget = Budget(guards={"calls": Guard(limits=(limit,))}) if by == "limit" else Budget(caps=(cap,))
    told = Snapshot(version=1, status=Status.ACTIVE, clock_offset_ms=0, features={"calls": CALLS})
    open_wallet(desk, [1000], msgspec.structs.replace(told, budgets={"team:ml": budget}))
    calls = [(decision_keys(KEYS), ("", 0, 0, BODY, f"team:ml/key:k{n % 5}", 0, 0, *ONE)) for n in range(50)]
    replies = await at_once(valkey_server, [("consume", *call) for call in calls])
    assert Counter((reply[0], reply[3]) for reply in replies) == {
        ("allowed", ""): 10,
        ("limit_reached", "team:ml"): 40,
    }
    assert desk.dump()[KEYS.wallet]["r:grant_0"] == 1000 - 10 * PRICE_NANOS


async def test_of_fifty_holds_as_many_are_open_as_may_be(desk: Desk, valkey_server: str) -> None:
    """A place that is taken is taken once."""
    guarded = msgspec.structs.replace(CALLS, guard=Guard(concurrent=10))
    told = Snapshot(version=1, status=Status.ACTIVE, clock_offset_ms=0, features={"calls": guarded})
    open_wallet(desk, [1000], told)
    ids = [new_hold_id(KEYS.shard) for _ in range(50)]
    calls = [
        (
            [*decision_keys(KEYS), hold_key(name, KEYS.shard)],
            ("", 0, 0, BODY, "", 0, 0, name, 60_000, "release", *ONE),
        )
        for name in ids
    ]
    replies = await at_once(valkey_server, [("hold", *call) for call in calls])
    assert Counter(reply[0] for reply in replies) == {"allowed": 10, "concurrency_limited": 40}
    assert desk.dump()[KEYS.counters]["calls:c"] == 10


async def test_fifty_retries_under_one_key_are_one_debit(desk: Desk, valkey_server: str) -> None:
    """One acts, the others get its answer."""
    open_wallet(desk, [1000])
    call = decision_keys(KEYS, "key"), ("digest", 60_000, 0, BODY, "", 0, 0, *ONE)
    replies = await at_once(valkey_server, [("consume", *call)] * 50)
    assert sorted(reply[1] for reply in replies) == [0] + [1] * 49
    assert len({(reply[0], *reply[2:]) for reply in replies}) == 1
    assert desk.dump()[KEYS.wallet]["r:grant_0"] == 1000 - PRICE_NANOS


async def test_of_concurrent_settles_exactly_one_wins(desk: Desk, valkey_server: str) -> None:
    """The first ends the hold; the same request again is told the same, another one that it came too late."""
    open_wallet(desk, [1000])
    hold_id = new_hold_id(KEYS.shard)
    keys = [*decision_keys(KEYS), hold_key(hold_id, KEYS.shard)]
    desk.run("hold", keys, "", 0, 0, BODY, "", 0, 0, hold_id, 60_000, "release", 1, "calls", 30)
    calls = [(hold_keys(KEYS, hold_id), (f"digest {n % 5}", 60_000, "", 1, "calls", n % 5)) for n in range(50)]
    replies = await at_once(valkey_server, [("settle", *call) for call in calls])
    assert Counter(reply[:2] for reply in replies) == {("settled", 0): 1, ("settled", 1): 9, ("conflict", 0): 40}
    (winner,) = {reply[4] for reply in replies if reply[0] == "settled"}
    assert desk.dump()[KEYS.wallet] | {"o:USD": None} == {"o:USD": None, "r:grant_0": 1000 - winner, "h:grant_0": 0}


async def test_a_settle_and_a_release_at_once_end_the_hold_one_way(desk: Desk, valkey_server: str) -> None:
    """Either settled or released, and everybody is told the same end."""
    open_wallet(desk, [1000])
    hold_id = new_hold_id(KEYS.shard)
    keys = [*decision_keys(KEYS), hold_key(hold_id, KEYS.shard)]
    desk.run("hold", keys, "", 0, 0, BODY, "", 0, 0, hold_id, 60_000, "release", 1, "calls", 30)
    names = hold_keys(KEYS, hold_id)
    both = await asyncio.gather(
        at_once(valkey_server, [("settle", names, ("digest", 60_000, "", 0))] * 5),
        at_once(valkey_server, [("release", names[:3], (60_000,))] * 5),
    )
    replies = [reply for replies in both for reply in replies]
    assert len({(reply[0], *reply[2:]) for reply in replies}) == 1
    assert sorted(reply[1] for reply in replies) == [0] + [1] * 9
