"""Overdrafts by name: burned last, repaid first, ended and lowered without forgetting what is owed."""

from __future__ import annotations

from shop import KEYS, Shop, metered, tariff

OVERDRAFT = 2


def moved(shop: Shop) -> list[tuple[str, dict[str, int]]]:
    """Kind and movements of each entry, in order."""
    return [(entry.kind, {one.grant_id: one.nanos for one in entry.movements}) for entry in shop.entries()]


def listed(shop: Shop) -> list[str]:
    """The grants in the burn order, as a live read tells them."""
    _, *fields = shop.desk.run("wallet_read", [KEYS.epoch, KEYS.snapshot, KEYS.wallet])
    return fields[1::11]


def test_an_overdraft_burns_last_and_the_next_paid_grant_repays_it(shop: Shop) -> None:
    """A gift repays nothing; 50 paid repay 30 and leave 20."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("over", 100, paid=OVERDRAFT)
    shop.grant("own", 20)
    assert shop.consume(("calls", 5))[0] == "allowed"
    shop.grant("gift", 10, paid=0)
    shop.grant("new", 50)
    assert moved(shop) == [("debit", {"own": 20, "over": 30}), ("repay", {"new": 30, "over": -30})]
    assert shop.consume(("calls", 13))[0] == "allowed"
    assert shop.consume(("calls", 1))[0] == "insufficient_balance"


def test_an_overdraft_that_has_ended_lends_nothing_and_is_repaid(shop: Shop) -> None:
    """It leaves the order only when nothing of it is drawn any more."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("over", 100, paid=OVERDRAFT)
    shop.consume(("calls", 3))
    assert shop.lapse("over", "void") == 70
    assert shop.consume(("calls", 1))[0] == "insufficient_balance"
    shop.grant("new", 50)
    assert moved(shop)[-1] == ("repay", {"new": 30, "over": -30})
    assert listed(shop) == ["new", "over"]
    assert [shop.consume(("calls", quantity))[0] for quantity in (3, 2)] == ["insufficient_balance", "allowed"]
    assert [shop.lapse("over", "void") for _ in range(2)] == [30, 0]
    shop.grant("other", 10)
    assert "over" not in listed(shop)
    assert [kind for kind, _ in moved(shop)].count("repay") == 1


def test_what_is_held_of_an_ended_overdraft_is_owed_once_it_is_settled(shop: Shop) -> None:
    """The hold keeps its part; what it uses is repaid like what was drawn before."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("over", 100, paid=OVERDRAFT)
    hold_id = shop.hold(("calls", 5))[10]
    assert shop.lapse("over", "void") == 50
    assert shop.settle(hold_id, ("calls", 2))[4:6] == (20, 30)
    assert shop.lapse("over", "void") == 30
    shop.grant("new", 100)
    assert moved(shop)[-1] == ("repay", {"new": 20, "over": -20})


def test_a_lowered_overdraft_lends_up_to_its_limit(shop: Shop) -> None:
    """Lowering is repeated without harm; what is drawn above the limit is not lent again when it is repaid."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("over", 100, paid=OVERDRAFT)
    assert [shop.lapse("over", "lower", limit=60) for _ in range(2)] == [40, 0]
    assert shop.consume(("calls", 5))[0] == "allowed"
    assert shop.lapse("over", "lower", limit=20) == 10
    assert shop.consume(("calls", 1))[0] == "insufficient_balance"
    shop.grant("new", 50)
    assert shop.lapse("over", "lower", limit=20) == 30
    assert [shop.consume(("calls", quantity))[0] for quantity in (3, 2)] == ["insufficient_balance", "allowed"]
    assert shop.lapse("new", "lower", limit=0) == 0


def test_a_grant_that_counts_from_later_on_repays_nothing(shop: Shop) -> None:
    """Nor one that is over already: what cannot be spent now is not taken for a debt of now."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("over", 100, paid=OVERDRAFT)
    shop.consume(("calls", 4))
    now_ms = shop.desk.now_ms()
    shop.grant("later", 70, effective_ms=now_ms + 3_600_000)
    shop.grant("past", 70, expires_ms=now_ms - 1)
    assert [shop.wallet(f"r:{name}") for name in ("over", "later", "past")] == [60, 70, 70]
    assert len(shop.entries()) == 1
