"""Several wallets, postpaid prices, records, shadow mode, lateness and gauges, each told by its name."""

from __future__ import annotations

from typing import Any

import pytest
from shop import FOREVER, LARGEST, OVER, Shop, limit, metered, tariff

from billing_core.contract.snapshot import Budget, Entitlement, FeatureKind, Guard, SpendCap, Status

CREDITS = tariff(3, currency="CRED", price_id="credits")


def gauge(units: int = -1, **more: Any) -> Entitlement:
    guard = Guard(limits=(limit(units),)) if units >= 0 else Guard()
    return Entitlement(kind=FeatureKind.GAUGE, enabled=True, guard=guard, **more)


def test_the_first_wallet_that_can_pay_it_all_pays(shop: Shop) -> None:
    """Credits first, then money, then the invoice; never a part of each."""
    postpaid = tariff(10, price_id="later", prepaid=False)
    shop.project(calls=metered(CREDITS, tariff(10), postpaid))
    shop.grant("grant_c", 10, currency="CRED")
    shop.grant("grant_a", 40)
    paid = [shop.consume(("calls", quantity)) for quantity in (2, 2, 3, 1, 2)]
    told = [(reply[6], reply[7], reply[8]) for reply in paid]
    assert told == [("CRED", 6, 4), ("USD", 20, 20), ("USD", 30, 0), ("CRED", 3, 1), ("USD", 20, 0)]
    entries = [entry.charges[0] for entry in shop.entries()]
    assert [(one.rated_nanos, one.charged_nanos) for one in entries] == [
        (6, 6),
        (20, 20),
        (30, 0),
        (3, 3),
        (20, 20),
    ]
    assert (shop.counter("$credits:u"), shop.counter("$p:u"), shop.counter("$later:u")) == (3, 4, 3)


def test_a_refusal_tells_the_first_wallet(shop: Shop) -> None:
    """What it would have cost there, and what is in it."""
    shop.project(calls=metered(CREDITS, tariff(10)))
    shop.grant("grant_c", 5, currency="CRED")
    reply = shop.consume(("calls", 2))
    assert (reply[0], *reply[6:9], reply[16]) == ("insufficient_balance", "CRED", 6, 5, 6)


def test_another_tariff_without_a_period_is_passed_over(shop: Shop) -> None:
    """The first one says that the decision is unavailable."""
    shop.project(
        calls=metered(CREDITS, tariff(10, window=OVER), tariff(7, price_id="z")),
        off=metered(tariff(1, window=OVER)),
    )
    shop.grant("grant_a", 100)
    assert shop.consume(("calls", 1))[6:9] == ("USD", 7, 93)
    assert shop.consume(("off", 1))[0] == "unavailable"


def test_a_grant_pays_only_for_the_features_that_it_names(shop: Shop) -> None:
    """The balance that is told is what this feature may use; codes are whole words."""
    shop.project(calls=metered(tariff(1)), call=metered(tariff(1, price_id="q")))
    shop.grant("grant_b", 5, features="calls tokens", priority=0)
    shop.grant("grant_a", 10, priority=1)
    assert shop.consume(("call", 11))[7:9] == (11, 10)
    assert shop.consume(("call", 3), ("calls", 7))[:1] == ("allowed",)
    (entry,) = shop.entries()
    assert {move.grant_id: move.nanos for move in entry.movements} == {"grant_a": 5, "grant_b": 5}
    assert (shop.consume(("calls", 6))[0], shop.consume(("calls", 5))[0]) == ("insufficient_balance", "allowed")


def test_a_postpaid_price_counts_for_spend_caps_and_for_no_wallet(shop: Shop) -> None:
    """Rated in real time, by the same arithmetic."""
    cap = SpendCap(counter="$USD@ever", currency="USD", nanos=50, ceiling=50, window=FOREVER)
    shop.project(calls=metered(tariff(10, prepaid=False)), budgets={"": Budget(caps=(cap,))})
    assert shop.consume(("calls", 4))[6:9] == ("USD", 40, 0)
    held = shop.hold(("calls", 1))
    assert shop.consume(("calls", 1))[:5] == ("limit_reached", 0, 1, "customer", "$USD@ever")
    assert shop.settle(held[10], ("calls", 2))[:1] == ("settled",)
    assert (shop.counter("$USD@ever:u"), shop.counter("$USD@ever:h")) == (60, 0)
    assert shop.consume(("calls", LARGEST)) == "OVERFLOW quantity"


def test_a_record_is_never_refused(shop: Shop) -> None:
    """Suspended, unknown, over the limit, beyond the wallet: it has happened."""
    guard = Guard(limits=(limit(5),), concurrent=0)
    shop.project(status=Status.SUSPENDED, calls=metered(tariff(10), guard=guard))
    shop.grant("grant_a", 25)
    reply = shop.record(("calls", 7), ("ghost", 3))
    assert (reply[0], *reply[6:9], *reply[13:15]) == ("allowed", "USD", 70, 0, 5, 0)
    (entry,) = shop.entries()
    told = [(one.quantity, one.charged_nanos, one.uncollected_nanos, one.currency) for one in entry.charges]
    assert told == [(7, 25, 45, "USD"), (3, 0, 0, "")]
    assert (shop.counter("c@ever:u"), shop.counter("$p:u")) == (7, 7)


@pytest.mark.parametrize("by", ["request", "entitlement"])
def test_shadow_mode_tells_what_it_would_have_refused(shop: Shop, by: str) -> None:
    """Allowed, nothing charged or counted, an entry of its own; where nothing is refused it charges as always."""
    shop.project(calls=metered(tariff(10), limit_units=5, shadow=by == "entitlement"))
    shop.grant("grant_a", 100)
    ask = {"shadow": by == "request", "key": "k"}
    reply = shop.consume(("calls", 6), **ask)
    assert (reply[0], *reply[2:5], reply[12]) == ("allowed", 1, "customer", "c@ever", "limit_reached")
    assert shop.consume(("calls", 6), **ask)[1] == 1
    (entry,) = shop.entries()
    assert (entry.kind.value, entry.refusal, entry.level) == ("shadow", "limit_reached", "customer")
    assert (shop.counter("c@ever:u"), shop.wallet("r:grant_a")) == (0, 100)
    assert shop.consume(("calls", 5), shadow=True)[12] == ""
    assert shop.wallet("r:grant_a") == 50


def test_shadow_mode_of_a_plan_counts_where_all_charges_are_in_it(shop: Shop) -> None:
    """Else an enforced feature would go free beside one that is only watched."""
    shop.project(seen=metered(limit_units=1, shadow=True), real=metered())
    assert shop.consume(("seen", 2))[0] == "allowed"
    assert shop.consume(("seen", 2), ("real", 1))[0] == "limit_reached"
    assert shop.consume(("ghost", 1))[0] == "not_entitled"
    assert shop.consume(("ghost", 1), shadow=True)[12] == "not_entitled"


def test_a_hold_that_shadow_mode_lets_through_is_empty(shop: Shop) -> None:
    """So that its end finds it, and finds nothing to charge."""
    shop.project(calls=metered(tariff(10)))
    reply = shop.hold(("calls", 6), shadow=True)
    assert (reply[0], reply[12]) == ("allowed", "insufficient_balance")
    assert shop.settle(reply[10], ("calls", 6))[4:7] == (0, 0, 0)


def test_who_comes_too_late_is_not_served(shop: Shop) -> None:
    """Nothing is written; a retry of what was in time gets its answer all the same."""
    shop.project(calls=metered(tariff(10)), offset_ms=5_000_000)
    shop.grant("grant_a", 100)
    soon = shop.desk.now_ms() + 60_000
    assert shop.consume(("calls", 1), key="k", not_after_ms=soon)[0] == "allowed"
    before = shop.desk.dump_raw()
    late = shop.consume(("calls", 1), key="other", not_after_ms=1)
    assert (late[0], late[11], late[13:]) == ("unavailable", 0, (-1, -1, 0, 0, "", "", 0, ""))
    assert late[5] > soon + 4_000_000
    assert shop.hold(("calls", 1), not_after_ms=1)[0] == "unavailable"
    assert shop.consume(("calls", 1), key="k", not_after_ms=1)[:2] == ("allowed", 1)
    assert shop.desk.dump_raw() == before


def test_a_gauge_goes_up_and_down(shop: Shop) -> None:
    """By signed changes or set; refused above its ceiling, never on the way down, and an error below zero."""
    shop.project(seats=gauge(5))
    quantities = [3, 3, "-1", "=5", "=6", "-5", "-1"]
    replies = [shop.consume(("seats", quantity)) for quantity in quantities]
    told = [reply if isinstance(reply, str) else (reply[0], reply[14]) for reply in replies]
    reached = ("limit_reached", 2)
    assert told == [
        ("allowed", 2),
        reached,
        ("allowed", 3),
        ("allowed", 0),
        ("limit_reached", 0),
        ("allowed", 5),
        "INVALID level",
    ]
    assert [entry.charges[0].quantity for entry in shop.entries()] == [3, 2, 5, 0]
    shop.consume(("seats", 4))
    shop.project(seats=gauge(2))
    assert [shop.consume(("seats", quantity))[0] for quantity in ("-1", "=3", 1)] == [
        "allowed",
        "allowed",
        "limit_reached",
    ]


def test_a_gauge_stands_at_every_level(shop: Shop) -> None:
    """Setting a node moves those above it by as much; the entry tells the customer's level."""
    seats = {"team:ml": Budget(guards={"seats": Guard(limits=(limit(4),))})}
    shop.project(seats=gauge(10), budgets=seats)
    shop.consume(("seats", 3), path="team:ml")
    shop.consume(("seats", "=5"), path="team:it")
    assert shop.consume(("seats", 2), path="team:ml")[2:5] == (1, "team:ml", "c@ever")
    shop.consume(("seats", "=1"), path="team:it")
    assert [shop.counter("seats:g", node=node) for node in ("", "team:ml", "team:it")] == [4, 3, 1]
    assert [entry.charges[0].quantity for entry in shop.entries()] == [3, 8, 4]
    assert ("gauge", "seats", 3, 1, "", "team:ml", "c@ever", 4, 4, 3, 0, 1, 0, 0) in shop.usage("team:ml")


def test_only_a_gauge_has_signs_and_it_cannot_be_held(shop: Shop) -> None:
    """Neither is a refusal: it is a mistake."""
    shop.project(seats=gauge(), calls=metered())
    replies = [shop.consume(("calls", "-1")), shop.consume(("calls", "=1")), shop.hold(("seats", 1))]
    assert set(replies) == {"INVALID quantity"}
    assert [shop.consume(("seats", text)) for text in ("+1", "--1", "=-1", "= 1", "-", "=")] == [
        "INVALID quantity"
    ] * 6
