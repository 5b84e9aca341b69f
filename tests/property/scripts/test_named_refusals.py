"""A refusal is an answer too: whoever asks again under its key is told the same, for as long as it is kept."""

from __future__ import annotations

import pytest
from desk import Near
from shop import KEYS, OVER, Shop, limit, metered, tariff

from billing_core.contract.snapshot import Guard, Rate, Status, Window, WindowKind

HOUR_MS = 3_600_000
CALLS = ("calls", 2)
ANSWER_KEY = KEYS.idempotency_prefix + "k"

KEPT: list[tuple[str, str, dict[str, int], int]] = [
    ("as long as a refusal is kept", "insufficient_balance", {"refusal_ms": 2 * HOUR_MS}, 2 * HOUR_MS),
    ("no longer than any answer", "insufficient_balance", {"window_ms": HOUR_MS}, HOUR_MS),
    ("also for the suspended", "suspended", {}, 5 * HOUR_MS),
    ("also for those who may not", "not_entitled", {}, 5 * HOUR_MS),
    ("until the rate has room", "rate_limited", {}, 3 * HOUR_MS),
    ("not until the rate has room", "rate_limited", {"refusal_ms": 2 * HOUR_MS}, 2 * HOUR_MS),
    ("until the limit has room", "limit_reached", {}, 4 * HOUR_MS),
    ("a moment, for a place may be free", "concurrency_limited", {}, 1_000),
    ("less than a moment", "concurrency_limited", {"refusal_ms": 300}, 300),
    ("not at all", "insufficient_balance", {"refusal_ms": 0}, 0),
    ("not what is no decision", "unavailable", {}, 0),
]


def refuse(shop: Shop, reason: str) -> None:
    """From now on two calls are refused for that reason."""
    guard = Guard()
    match reason:
        case "rate_limited":
            guard = Guard(rates=(Rate(counter="calls~0", units=1, per_ms=3 * HOUR_MS, burst_units=1),))
        case "limit_reached":
            edges = Window(kind=WindowKind.EDGES, edges_ms=(0, shop.desk.now_ms() + 4 * HOUR_MS))
            guard = Guard(limits=(limit(1, window=edges),))
        case "concurrency_limited":
            guard = Guard(concurrent=0)
        case "unavailable":
            guard = Guard(limits=(limit(9, window=OVER),))
        case _:
            pass
    status = Status.SUSPENDED if reason == "suspended" else Status.ACTIVE
    features = {} if reason == "not_entitled" else {"calls": metered(tariff(10), guard=guard)}
    shop.project(status=status, **features)
    if reason == "rate_limited":
        shop.grant("grant_0", 10)
        assert shop.consume(("calls", 1))[0] == "allowed"


@pytest.mark.parametrize("act", ["consume", "hold"])
@pytest.mark.parametrize(("name", "reason", "terms", "kept_ms"), KEPT, ids=[row[0] for row in KEPT])
def test_a_refusal_is_kept(
    shop: Shop, name: str, reason: str, terms: dict[str, int], kept_ms: int, act: str
) -> None:
    """For so long, and nothing else is written; another request under its key is a conflict."""
    refuse(shop, reason)
    before = shop.desk.dump()
    terms = {"refusal_ms": 5 * HOUR_MS, "window_ms": 9 * HOUR_MS} | terms
    with shop.desk.at_once() as replies:
        for digest in ("d", "d", "other"):
            getattr(shop, act)(CALLS, key="k", digest=digest, **terms)
        shop.desk.client.pttl(ANSWER_KEY)
    first, again, other, left_ms = replies
    assert first[:2] == (reason, 0)
    if kept_ms:
        assert (again, other) == ((reason, 1, *first[2:]), "CONFLICT idempotency")
        assert left_ms == min(kept_ms, first[11] or kept_ms)
        assert Near(kept_ms) == left_ms
    else:
        assert (again, other, left_ms) == (first, first, -2)
    after = shop.desk.dump()
    after.pop(ANSWER_KEY, None)
    assert after == before


def test_who_was_refused_is_refused_although_money_came(shop: Shop) -> None:
    """Two attempts under one key have one answer, whenever each is decided; a new attempt has a new key."""
    refuse(shop, "insufficient_balance")
    first = shop.consume(CALLS, key="k")
    shop.grant("grant_0", 100)
    assert shop.consume(CALLS, key="k") == ("insufficient_balance", 1, *first[2:])
    assert shop.entries() == []
    assert shop.consume(CALLS, key="new")[:2] == ("allowed", 0)


def test_after_its_time_a_refusal_is_forgotten(shop: Shop) -> None:
    """The same is decided anew, and what is allowed then stays."""
    refuse(shop, "insufficient_balance")
    assert shop.consume(CALLS, key="k", refusal_ms=1)[0] == "insufficient_balance"
    shop.grant("grant_0", 100)
    shop.desk.wait_until(shop.desk.now_ms() + 1)
    assert shop.consume(CALLS, key="k")[:2] == ("allowed", 0)
    assert shop.consume(CALLS, key="k")[:2] == ("allowed", 1)
    assert shop.consume(CALLS, key="k", digest="other") == "CONFLICT idempotency"


def test_who_waits_as_long_as_was_told_is_decided_anew(shop: Shop) -> None:
    """Under the same key: `Retry-After` is kept, and no longer."""
    rate = Rate(counter="calls~0", units=1, per_ms=40, burst_units=1)
    shop.project(calls=metered(guard=Guard(rates=(rate,))))
    with shop.desk.at_once() as replies:
        for key in ("", "k", "k"):
            shop.consume(CALLS, key=key)
    assert [reply[:2] for reply in replies] == [("allowed", 0), ("rate_limited", 0), ("rate_limited", 1)]
    shop.desk.wait_until(replies[1][5] + replies[1][11])
    assert shop.consume(CALLS, key="k")[:2] == ("allowed", 0)


def test_what_came_too_late_may_come_again(shop: Shop) -> None:
    """Nothing was decided about it."""
    shop.project(calls=metered())
    assert shop.consume(CALLS, key="k", not_after_ms=1)[:2] == ("unavailable", 0)
    assert shop.consume(CALLS, key="k")[:2] == ("allowed", 0)


def test_a_refused_hold_stays_refused_and_is_nowhere(shop: Shop) -> None:
    """It has no id; the next one under a new key has."""
    refuse(shop, "insufficient_balance")
    first = shop.hold(CALLS, key="k")
    shop.grant("grant_0", 100)
    assert shop.hold(CALLS, key="k") == ("insufficient_balance", 1, *first[2:])
    assert (first[9:11], KEYS.holds in shop.desk.dump()) == ((0, ""), False)
    assert shop.hold(CALLS, key="new")[0] == "allowed"


def test_what_was_done_already_is_recorded_over_a_refusal(shop: Shop) -> None:
    """And then stands under the key; with other content it is a conflict."""
    refuse(shop, "insufficient_balance")
    shop.consume(CALLS, key="k")
    assert shop.record(CALLS, key="k", digest="other") == "CONFLICT idempotency"
    recorded = shop.record(CALLS, key="k")
    assert recorded[:2] == ("allowed", 0)
    assert shop.record(CALLS, key="k") == shop.consume(CALLS, key="k") == ("allowed", 1, *recorded[2:])
    assert [entry.charges[0].uncollected_nanos for entry in shop.entries()] == [20]
