"""Cases in which the straight way and the long one would differ if the straight one took a step too few."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from desk import Desk
from shop import FOREVER, limit, metered, tariff
from ways import both_ways

from billing_core.contract.snapshot import Budget, Entitlement, Guard, SpendCap, Status, Window, WindowKind

AGE = Window(kind=WindowKind.EDGES, edges_ms=(1, 4_000_000_000_000))
"""In which no test meets an edge, whatever the hour."""


def own(counter: str) -> Guard:
    return Guard(limits=(limit(90, window=AGE, counter=counter),))


def under_cap(currency: str = "USD", **more: Any) -> Budget:
    cap = {"counter": f"${currency}@0", "currency": currency, "nanos": 900, "ceiling": 900, "window": AGE}
    return Budget(caps=(SpendCap(**cap | more),))


PAID, FREE = metered(tariff(7, window=AGE), guard=own("a")), metered(guard=own("b"))
OTHER = metered(tariff(5, price_id="r", window=AGE), guard=own("b"))
EUROS = metered(tariff(5, price_id="r", currency="EUR"))
LATER = metered(tariff(5, price_id="r", prepaid=False))
TEAM, KEY = "team:ml", "team:ml/key:k1"
ONE, BOTH = (("calls", 3),), (("calls", 3), ("other", 4))


def asked(act: str, charges: Any = ONE, path: str = "") -> tuple[Any, ...]:
    return act, charges, False, "", path


def terms(calls: Entitlement, other: Entitlement, nodes: dict[str, Budget]) -> tuple[Any, ...]:
    return "project", (calls, other), nodes, 0, Status.ACTIVE


NAMED = {
    "a grant of one nano": [terms(PAID, FREE, {}), ("grant", "a_nano", 1, "USD", "", 0), asked("consume")],
    "a grant for another feature": [
        terms(PAID, FREE, {}),
        ("grant", "other", 50, "USD", "other", 0),
        *[asked("consume"), asked("hold"), asked("settle")],
    ],
    "a node whose hash vanishes": [terms(PAID, FREE, {TEAM: under_cap()}), *[asked("consume", path=TEAM)] * 3],
    "a node in which nothing counts": [terms(PAID, FREE, {TEAM: Budget()}), *[asked("consume", path=TEAM)] * 2],
    "a cap in another currency": [
        terms(PAID, FREE, {TEAM: under_cap("EUR")}),
        *[asked("consume", path=TEAM), asked("hold", path=TEAM), asked("settle", path=TEAM)] * 2,
    ],
    "holds at a node that counts for ever": [
        terms(PAID, FREE, {KEY: under_cap(window=FOREVER)}),
        *[asked("consume", path=KEY), asked("hold", path=KEY), asked("hold", path=KEY), asked("settle")] * 2,
        asked("release"),
    ],
    "caps in two currencies": [
        terms(PAID, FREE, {TEAM: Budget(caps=(*under_cap("EUR").caps, *under_cap().caps))}),
        *[asked("consume", path=TEAM), asked("hold", path=TEAM), asked("settle")] * 2,
    ],
    "a price of nothing under a cap": [
        terms(metered(tariff(0)), FREE, {TEAM: under_cap()}),
        *[asked("consume", path=TEAM), asked("hold", path=TEAM), asked("settle")] * 2,
    ],
    "the last hold of a node that counts for ever": [
        terms(PAID, FREE, {KEY: under_cap(window=FOREVER)}),
        *[asked("consume", path=KEY), asked("hold", path=KEY), asked("settle")],
    ],
    "a window that became longer while it was held": [
        terms(PAID, FREE, {TEAM: under_cap()}),
        *[asked("consume", path=TEAM), asked("hold", path=TEAM)],
        terms(PAID, FREE, {TEAM: under_cap(window=FOREVER)}),
        asked("settle"),
    ],
    "the first hold of a node": [
        terms(PAID, FREE, {TEAM: under_cap()}),
        *[asked("consume", path=TEAM), asked("hold", path=TEAM)],
    ],
    "the last hold of a node": [
        terms(PAID, FREE, {TEAM: under_cap()}),
        *[asked("consume", path=TEAM), asked("hold", path=TEAM), asked("settle")] * 3,
    ],
    "two charges, one cap": [terms(PAID, OTHER, {TEAM: under_cap()}), *[asked("consume", BOTH, TEAM)] * 9],
    "two charges, one limit": [
        terms(PAID, metered(tariff(5, price_id="r"), guard=own("a")), {}),
        *[asked("consume", BOTH)] * 14,
    ],
    "two charges, one price": [terms(PAID, metered(tariff(7, window=AGE)), {}), *[asked("consume", BOTH)] * 3],
    "two charges, two wallets": [terms(PAID, EUROS, {}), *[asked("consume", BOTH)] * 3],
    "two charges, one on credit": [terms(PAID, LATER, {}), *[asked("consume", BOTH)] * 3],
    "two charges, both on credit": [terms(LATER, FREE, {}), *[asked("record", BOTH)] * 3],
    "two charges, on credit in two currencies": [
        terms(LATER, metered(tariff(5, currency="EUR", prepaid=False)), {}),
        *[asked("consume", BOTH)] * 3,
    ],
    "two charges, one free": [terms(FREE, PAID, {}), *[asked("consume", BOTH), asked("record", BOTH[::-1])] * 3],
    "two charges of one feature": [terms(PAID, FREE, {}), *[asked("consume", ONE * 2)] * 3],
    "a hold that outgrows what it set aside": [
        terms(PAID, FREE, {}),
        *[asked("hold"), asked("settle", (("calls", 9),))] * 2,
    ],
    "a hold of two grants": [
        terms(PAID, FREE, {}),
        ("grant", "a_few", 5, "USD", "", 0),
        *[asked("hold"), asked("release"), asked("hold"), asked("settle", (("calls", 2),))],
    ],
    "a price that came while it was held": [
        terms(FREE, FREE, {}),
        *[asked("consume"), asked("hold")],
        terms(PAID, FREE, {}),
        asked("settle"),
    ],
    "a price in another currency than promised": [
        terms(PAID, FREE, {}),
        asked("hold"),
        terms(EUROS, FREE, {}),
        asked("settle"),
    ],
    "a price on credit that was prepaid": [
        terms(PAID, FREE, {}),
        asked("hold"),
        terms(LATER, FREE, {}),
        asked("settle"),
    ],
    "a price of the same name, in another currency": [
        terms(PAID, FREE, {}),
        asked("hold"),
        terms(metered(tariff(7, window=AGE, currency="EUR"), guard=own("a")), FREE, {}),
        asked("settle"),
    ],
    "a price of the same name, on credit": [
        terms(PAID, FREE, {}),
        asked("hold"),
        terms(metered(tariff(7, window=AGE, prepaid=False), guard=own("a")), FREE, {}),
        asked("settle"),
    ],
    "a price that went while it was held": [
        terms(PAID, FREE, {}),
        asked("hold"),
        terms(metered(guard=own("a")), FREE, {}),
        asked("settle"),
    ],
    "a limit that came while it was held": [
        terms(EUROS, FREE, {}),
        asked("hold"),
        terms(msgspec.structs.replace(EUROS, guard=own("a")), FREE, {}),
        *[asked("consume"), asked("settle")],
    ],
    "a limit that went while it was held": [
        terms(PAID, FREE, {TEAM: under_cap()}),
        *[asked("consume", path=TEAM), asked("hold", path=TEAM)],
        terms(msgspec.structs.replace(PAID, guard=Guard()), FREE, {}),
        asked("settle"),
    ],
    "limits under other names than when it was held": [
        terms(PAID, FREE, {}),
        asked("hold"),
        terms(msgspec.structs.replace(PAID, guard=own("b")), FREE, {}),
        *[asked("consume"), asked("release")],
    ],
}


@pytest.mark.parametrize("name", NAMED)
def test_either_way_is_the_same(desk: Desk, name: str) -> None:
    """Cases in which a step too few would show, each by its name."""
    acts = [("grant", "dollars", 10**6, "USD", "", 0), ("grant", "euros", 10**6, "EUR", "", 0), *NAMED[name]]
    first = [act for act in acts if act[0] == "project"][:1]
    straight, long = both_ways(desk, [*first, *acts])
    assert straight == long
