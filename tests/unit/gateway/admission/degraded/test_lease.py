"""The book of leases: what is left, who is wanted, who must wait."""

from __future__ import annotations

from gateway.admission.caller import caller_of_customer
from gateway.admission.degraded.lease import Lease, LeasePool, name_of
from gateway.admission.order import Charge, Order

ACME = caller_of_customer("t1", "acme")
UNITS = {"calls": 100, "tokens": 5_000}


def order(**quantities: int) -> Order:
    return Order(charges=tuple(Charge(feature=name, quantity=units) for name, units in quantities.items()))


def lease(until_s: float = 100.0) -> Lease:
    return Lease(ACME, "hold_1", units=UNITS, now_s=0.0, until_s=until_s)


def test_a_lease_covers_an_order_whole_or_not_at_all() -> None:
    """The worked example of the module."""
    ours, asked = lease(), order(calls=1, tokens=800).charges
    for _ in range(6):
        assert ours.covers(asked, now_s=1.0)
        ours.take(asked)
    assert ours.left == {"calls": 94, "tokens": 200}
    assert not ours.covers(asked, now_s=1.0)
    assert ours.covers(order(calls=94, tokens=200).charges, now_s=1.0)
    assert not ours.covers(order(calls=95).charges, now_s=1.0)


def test_a_lease_covers_nothing_else() -> None:
    """Neither other features nor gauges going down, nor anything after its time."""
    assert not lease().covers(order(seats=0).charges, now_s=1.0)
    assert not lease().covers(order(calls=-1).charges, now_s=1.0)
    assert not lease(until_s=1.0).covers(order(calls=1).charges, now_s=1.0)


def test_a_lease_is_filled_up_once_half_is_used() -> None:
    """Sooner would be a round trip for nothing."""
    ours = lease()
    ours.take(order(calls=50).charges)
    assert ours.missing() == {}
    ours.take(order(calls=1, tokens=7).charges)
    assert ours.missing() == {"calls": 51, "tokens": 7}
    ours.give_back(ours.missing())
    assert ours.left == UNITS


def test_a_name_knows_customer_path_and_features_in_whatever_order() -> None:
    """Another of any is another lease."""
    elsewhere = caller_of_customer("t1", "acme", path="team:ml")
    assert name_of(ACME, order(a=1, b=2)) == name_of(ACME, order(b=9, a=9))
    names = {
        name_of(ACME, order(a=1)),
        name_of(ACME, order(a=1, b=1)),
        name_of(elsewhere, order(a=1)),
        name_of(caller_of_customer("t2", "acme"), order(a=1)),
    }
    assert len(names) == 4


def test_the_pool_is_bounded_and_wants_each_name_once() -> None:
    """What is wanted counts as if it were there."""
    pool = LeasePool(2, idle_s=10.0)
    names = [name_of(ACME, order(**{feature: 1})) for feature in ("a", "b", "c")]
    assert [pool.want(name, ACME, units={}, now_s=0.0) for name in (names[0], names[0], names[1], names[2])] == [
        True,
        False,
        True,
        False,
    ]
    assert [name for name, _, _ in pool.wanted()] == names[:2]
    assert pool.wanted() == []
    pool.add(names[0], lease())
    pool.add(names[1], lease())
    assert not pool.want(names[2], ACME, units={}, now_s=0.0)
    assert pool.left_units() == 2 * 5_100
    assert set(pool.of_customer(ACME)) == set(names[:2])
    assert pool.of_customer(caller_of_customer("t2", "acme")) == []


def test_who_was_refused_waits() -> None:
    """So that a customer that is short is not asked about with every request."""
    pool, name = LeasePool(2, idle_s=10.0), name_of(ACME, order(a=1))
    pool.bar(name, now_s=0.0)
    assert not pool.want(name, ACME, units={}, now_s=9.9)
    assert pool.want(name, ACME, units={}, now_s=10.0)


def test_a_cold_lease_is_given_back_unless_it_owes() -> None:
    """What was allowed on it must still be charged on it."""
    pool, name = LeasePool(2, idle_s=10.0), name_of(ACME, order(calls=1, tokens=1))
    ours = lease(until_s=20.0)
    pool.add(name, ours)
    assert pool.cold(now_s=5.0) == []
    assert pool.cold(now_s=10.1) == [name]
    ours.touched_s = 15.0
    assert pool.cold(now_s=19.0) == []
    assert pool.cold(now_s=20.0) == [name]
    ours.take(order(calls=1).charges)
    assert pool.cold(now_s=20.0) == []
