"""Arguments that nobody should send: an error reply leaves every key as it was, and no script ever stumbles.

A stumble is a failure of Lua itself, such as an arithmetic on nil. It would stop a script between two writes; so
it is not enough that the reply is an error, it must be one of those that the script's header lists.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import redis
from desk import Desk, decision_keys, grant_keys, hold_keys, part_keys
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.contract.keys import CustomerKeys, customer_keys, event_ids_key, hold_key, new_hold_id
from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Rate,
    RateCount,
    Snapshot,
    SpendCap,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.contract.usage_event import EventBody, encode_body
from lua.loader import SCRIPTS

KEYS = customer_keys("acme", "c0")
HELD, FRESH = new_hold_id(KEYS.shard), new_hold_id(KEYS.shard)
GRANTED = {"grant_a": 1000, "grant_b": 5000}
DAY = Window(kind=WindowKind.STEPS, anchor_ms=0, every_ms=86_400_000)
TARIFF = Tariff(
    price_id="p",
    currency="USD",
    package_units=1,
    batch=3,
    tiers=(Tier(upto=100, nanos_per_batch=7), Tier(upto=0, nanos_per_batch=5)),
    window=DAY,
)
ROLLING = Window(kind=WindowKind.ROLLING, every_ms=3_600_000)
LIMITS = (
    Limit(counter="calls@day", units=10**6, ceiling=10**6, window=DAY, since_ms=5, carry_units=10**5),
    Limit(counter="calls@hour", units=10**6, ceiling=-1, window=ROLLING),
)
RATE = Rate(counter="calls~0", units=1000, per_ms=1000, burst_units=10**6, counts=RateCount.UNITS)
GUARD = Guard(limits=LIMITS, rates=(RATE,), concurrent=100)
METERED = Entitlement(kind=FeatureKind.METERED, enabled=True, guard=GUARD, tariffs=(TARIFF,))
SEATS = Entitlement(kind=FeatureKind.GAUGE, enabled=True, guard=Guard(limits=LIMITS[:1]))
CAP = SpendCap(counter="$USD@day", currency="USD", nanos=10**9, ceiling=10**9, window=DAY)
BUDGET = Budget(guards={"calls": GUARD, "seats": SEATS.guard}, caps=(CAP,))
SNAPSHOT = Snapshot(
    version=1,
    status=Status.ACTIVE,
    clock_offset_ms=0,
    features={"calls": METERED, "tokens": METERED, "seats": SEATS},
    budgets={"": Budget(caps=(CAP,)), "team:*": BUDGET},
)
PATH = "team:ml/key:k1"
BODY = encode_body(EventBody(event_id="e", tenant_id="acme", customer_id="c0", features=("calls", "tokens")))
PAIRS = 2, "calls", 10, "tokens", 20

SOUND: dict[str, tuple[list[str], tuple[Any, ...]]] = {
    "consume": (decision_keys(KEYS, "k"), ("digest", 60_000, 5_000, BODY, PATH, 0, 0, *PAIRS)),
    "record": (decision_keys(KEYS, "k"), ("digest", 60_000, BODY, PATH, *PAIRS)),
    "peek": (decision_keys(KEYS), (PATH, *PAIRS)),
    "hold": (
        [*decision_keys(KEYS, "k"), hold_key(FRESH, KEYS.shard)],
        ("digest", 60_000, 5_000, BODY, PATH, 0, 0, FRESH, 60_000, "charge", *PAIRS),
    ),
    "settle": (hold_keys(KEYS, HELD), ("digest", 60_000, BODY, 2, "calls", 3, "tokens", 400)),
    "part": (part_keys(KEYS, HELD, "k"), ("digest", 60_000, BODY, 10**10, 2, "calls", 3, "tokens", 400)),
    "extend": (
        [*hold_keys(KEYS, HELD)[:3], part_keys(KEYS, HELD, "k")[4]],
        ("digest", 60_000, 5_000, 10**10, 2, "calls", 3, "tokens", 40),
    ),
    "release": (hold_keys(KEYS, HELD)[:3], (60_000,)),
    "sweep": ([KEYS.epoch, KEYS.shard_holds, KEYS.stream], (10,)),
    "grant": (grant_keys(KEYS), ("USD", "grant_c", 700, 1, 0, 0, 1, 5, "", BODY)),
    "lapse": ([KEYS.epoch, KEYS.snapshot, KEYS.wallet, KEYS.stream], ("USD", "grant_a", "void", BODY, 0)),
    "project": ([KEYS.epoch, KEYS.snapshot], (2, "active", 0, *snapshot_fields(SNAPSHOT))),
    "ingest": (
        [KEYS.epoch, KEYS.stream, event_ids_key("acme", KEYS.shard)],
        (60_000, 0, BODY, "x", "digest", "y", ""),
    ),
    "wallet_read": ([KEYS.epoch, KEYS.snapshot, KEYS.wallet], ()),
    "usage_read": ([KEYS.epoch, KEYS.snapshot, KEYS.counters], (PATH,)),
}

HOSTILE: list[str | bytes] = [
    *("", " ", "-1", "-0", "0", "1", "1.5", "1e3", "0x10", "nan", "inf", "-inf", "1e309", "٣", "a b", "a=1", "g:w"),
    *(
        str(2**53 - 1),
        str(2**53),
        str(2**63),
        str(2**64),
        "9" * 400,
        "x" * 5000,
        "calls",
        "badge",
        "USD",
        "f:calls",
    ),
    *(
        b"\x00",
        b"\xff\xfe",
        b"\x93\x01\x02",
        b"\xc1",
        b"\x97",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"1\x00",
    ),
]


def set_scene(desk: Desk) -> None:
    """A customer with two grants, some usage and an open hold."""
    desk.clear()
    desk.client.set(KEYS.epoch, 1)
    assert desk.run("project", [KEYS.epoch, KEYS.snapshot], 1, "active", 0, *snapshot_fields(SNAPSHOT)) == 1
    for grant_id, amount in GRANTED.items():
        assert desk.run("grant", grant_keys(KEYS), "USD", grant_id, amount, 0, 0, 0, 1, 0, "", BODY) == 1
    desk.run("consume", decision_keys(KEYS), "", 0, 0, BODY, PATH, 0, 0, *PAIRS)
    keys = [*decision_keys(KEYS), hold_key(HELD, KEYS.shard)]
    assert (
        desk.run("hold", keys, "", 0, 0, BODY, PATH, 0, 0, HELD, 10**9, "charge", 2, "calls", 5, "tokens", 500)[0]
        == "allowed"
    )


def moved_of(desk: Desk, keys: CustomerKeys) -> dict[str, int]:
    """What the stream says has left each grant, whatever the body is: scripts carry bodies unread."""
    moved: dict[str, int] = {}
    for _, fields in desk.client.xrange(keys.stream):
        for part in fields.get(b"m", b"").decode().split():
            grant_id, nanos = part.split("=")
            moved[grant_id] = moved.get(grant_id, 0) + int(nanos)
    return moved


@st.composite
def spoiled_calls(draw: st.DrawFn) -> tuple[str, list[str], list[Any]]:
    """A sound call in which some arguments were replaced, removed, doubled or added."""
    name = draw(st.sampled_from(sorted(SOUND)))
    keys, args = list(SOUND[name][0]), list(SOUND[name][1])
    for _ in range(draw(st.integers(1, 3))):
        words = st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=12), st.integers().map(str))
        at, word = draw(st.integers(0, max(0, len(args) - 1))), draw(words)
        match draw(st.sampled_from(["replace"] * 6 + ["remove", "insert", "append"])):
            case "replace" if args:
                args[at] = word
            case "remove" if args:
                del args[at]
            case "insert":
                args.insert(at, word)
            case _:
                args.append(word)
    return name, keys, args


@settings(deadline=None, max_examples=250)
@given(call=spoiled_calls())
def test_an_error_reply_leaves_everything_as_it_was(desk: Desk, call: tuple[str, list[str], list[Any]]) -> None:
    """Either a listed error and nothing written, or an act as whole as any other: no nano is lost."""
    name, keys, args = call
    set_scene(desk)
    before = desk.dump()
    reply = desk.run(name, keys, *args)
    if isinstance(reply, str):
        assert desk.dump() == before
        return
    wallet, moved = desk.client.hgetall(KEYS.wallet), moved_of(desk, KEYS)
    for grant_id, granted in GRANTED.items():
        stands = int(wallet[f"r:{grant_id}".encode()]) + int(wallet[f"h:{grant_id}".encode()])
        assert granted == stands + moved.get(grant_id, 0)
    counters = {
        text for name in desk.client.keys(f"{KEYS.counters}*") for text in desk.client.hgetall(name).items()
    }
    assert all(0 <= int(value) <= 2**53 - 1 for name, value in counters if name[-2:] not in (b":b", b":t"))


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_keys_of_another_type_or_number_change_nothing(desk: Desk, data: st.DataObject) -> None:
    """A key that is something else stops the script before its first write."""
    name = data.draw(st.sampled_from(sorted(SOUND)))
    keys, args = list(SOUND[name][0]), SOUND[name][1]
    set_scene(desk)
    place = data.draw(st.integers(1, len(keys) - 1))
    match data.draw(st.sampled_from(["other type", "fewer", "more"])):
        case "other type":
            kind = data.draw(st.sampled_from(["string", "hash", "set", "stream"]))
            keys[place] = f"{keys[0]}:strange"
            make_strange(desk, keys[place], kind)
        case "fewer":
            del keys[place]
        case _:
            keys.append(keys[place])
    before = desk.dump_raw()
    try:
        desk.client.execute_command(*SCRIPTS[name].call(keys, args))
    except redis.ResponseError:
        assert desk.dump_raw() == before


def make_strange(desk: Desk, key: str, kind: str) -> None:
    if kind == "string":
        desk.client.set(key, "strange")
    elif kind == "hash":
        desk.client.hset(key, "strange", "strange")
    elif kind == "set":
        desk.client.sadd(key, "strange")
    else:
        desk.client.xadd(key, {"strange": "strange"})


@st.composite
def spoiled_rights(draw: st.DrawFn) -> bytes:
    """The array of an entitlement or a budget in which one thing, however deep, is something else."""
    values: list[Any] = [
        None,
        -1,
        0,
        2**53,
        2**60,
        1.5,
        float("nan"),
        "",
        "x",
        "a b",
        [],
        {},
        {"a": 1},
        True,
        [[]],
        [0],
    ]
    tree: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(draw(st.sampled_from([METERED, SEATS, BUDGET]))))
    node = tree
    while True:
        at = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if isinstance(node[at], (list, dict)) and node[at] and draw(st.sampled_from([True, True, True, False])):
            node = node[at]
            continue
        if draw(st.integers(0, 4)) == 0:
            del node[at]
        else:
            node[at] = draw(st.sampled_from(values))
        return msgspec.msgpack.encode(tree)


@settings(deadline=None, max_examples=150)
@given(packed=st.one_of(spoiled_rights(), st.binary(max_size=20)), field=st.sampled_from(["f:calls", "b:team:ml"]))
def test_a_snapshot_that_was_taken_never_makes_a_decision_stumble(desk: Desk, packed: bytes, field: str) -> None:
    """What `project` lets in, every decision can read."""
    set_scene(desk)
    before, whole = desk.dump_raw(), snapshot_fields(SNAPSHOT)
    told = dict(zip(whole[::2], whole[1::2], strict=True)) | {field: packed}
    args = [part for pair in told.items() for part in pair]
    if desk.run("project", [KEYS.epoch, KEYS.snapshot], 2, "active", 0, *args) != 1:
        assert desk.dump_raw() == before
        return
    keys, asked = decision_keys(KEYS), ("", 0, 0, BODY, PATH)
    for pairs in ((1, "calls", 10), (2, "calls", 0, "calls", 1), (1, "seats", "=3"), (1, "calls", 2**53 - 1)):
        desk.run("peek", keys, PATH, *pairs)
        desk.run("consume", keys, *asked, 0, 0, *pairs)
        desk.run("record", keys, *asked[1:], *pairs)
        fresh = new_hold_id(KEYS.shard)
        desk.run("hold", [*keys, hold_key(fresh, KEYS.shard)], *asked, 0, 0, fresh, 1000, "charge", *pairs)
        desk.run("settle", hold_keys(KEYS, fresh), "", 1000, "", 1, "calls", 30)
    desk.run("settle", hold_keys(KEYS, HELD), "", 1000, "", 0)
    desk.run("usage_read", [KEYS.epoch, KEYS.snapshot, KEYS.counters], PATH)


@pytest.mark.parametrize("name", sorted(SOUND))
def test_the_sound_calls_are_sound(desk: Desk, name: str) -> None:
    """Otherwise nothing above would be about arguments."""
    set_scene(desk)
    keys, args = SOUND[name]
    assert {*SOUND, "clock"} == set(SCRIPTS)  # which has no argument that could be hostile
    assert not isinstance(desk.run(name, keys, *args), str)
