"""Burn order and holds with answers known from other systems, as far as a wallet of grants can say them.

What is not ours is not here: usage that runs into debt and is charged to a later grant, grants that recur or roll
over by themselves, and credits that fill invoice lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from billing_core.wallets.burn import Block, balance_nanos, debit, give_back

Agrees = Callable[[str, str], bool]
NOW, DAY = 1_000_000_000, 86_400_000


def block(name: str, amount: int, *, p: int = 0, expires: int = 0, paid: bool = True, born: int = 0) -> Block:
    """`expires` in days from now, 0 for never; `born` says which is older."""
    return Block(
        grant_id=name,
        remaining_nanos=amount,
        priority=p,
        effective_ms=born,
        expires_ms=NOW + expires * DAY if expires else 0,
        is_paid=paid,
        created_ms=born,
    )


class Case(NamedTuple):
    """What is left of each block after the debit."""

    blocks: list[Block]
    debit: int
    left: list[int]
    says: str


CASES = {
    "WC-01": Case(
        [block("bought", 7000, p=10), block("given", 3000, p=10, paid=False)],
        5000,
        [5000, 0],
        "granted 0, purchased 5000 (consumed 3000 + 2000)",
    ),
    "WC-03": Case(
        [block("newer", 5000, p=10, paid=False, born=2), block("older", 5000, p=10, paid=False, born=1)],
        6000,
        [4000, 0],
        "older 0, newer 4000",
    ),
    "WC-05": Case([block("a", 30, born=1), block("b", 50, born=2)], 60, [0, 20], "0 / 20"),
    "WC-07": Case(
        [block("bought", 70), block("given", 30, paid=False)],
        80,
        [20, 0],
        "granted consumed 30, paid consumed 50, left 20",
    ),
    "WC-13": Case([block("a", 100, p=1), block("b", 100, p=2)], 120, [0, 80], "0 / 80"),
    "WC-37": Case(
        [block("a", 30, p=3), block("b", 40, p=1), block("c", 20, p=2), block("d", 60, p=1, expires=3650)],
        90,
        [30, 10, 20, 0],
        "60 (p1 expiring) then 30 of 40 (p1) -> left 30, 10, 20",
    ),
    "WC-39": Case([block("lifetime", 200), block("monthly", 500, expires=30)], 400, [200, 100], "100 / 200"),
    "WC-43": Case(
        [
            block("A", 50, p=1, expires=31),
            block("B", 20, p=1, expires=31, paid=False),
            block("C", 100, p=2, expires=14, paid=False),
        ],
        60,
        [10, 0, 100],
        "B 20, then A 40 -> left A 10, B 0, C 100 (C expires sooner but has lower priority)",
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("turned", [False, True], ids=["as given", "turned around"])
def test_blocks_burn_in_the_published_order(name: str, turned: bool, agrees: Agrees) -> None:
    """However the blocks come."""
    case = CASES[name]
    blocks = case.blocks[::-1] if turned else case.blocks
    taken = {part.grant_id: part.nanos for part in debit(blocks, case.debit, instant_ms=NOW) or []}
    assert [one.remaining_nanos - taken.get(one.grant_id, 0) for one in case.blocks] == case.left
    assert agrees(name, case.says)


@pytest.mark.parametrize(
    ("name", "blocks", "amount", "says"),
    [
        (
            "WC-09",
            [block("one", 3000)],
            5000,
            "rejected (exceeds_available_amount); no consumption rows, balance unchanged",
        ),
        ("WC-11", [], 50, "overage 50"),
    ],
)
def test_a_debit_above_the_balance_is_refused_whole(
    name: str, blocks: list[Block], amount: int, says: str, agrees: Agrees
) -> None:
    """Nothing is taken. Where the source records overage, we refuse."""
    assert debit(blocks, amount, instant_ms=NOW) is None
    assert agrees(name, says)


def test_wc_15_one_of_many_blocks_expires_sooner(agrees: Agrees) -> None:
    """It burns first among a hundred thousand, wherever it stands."""
    blocks = [block(f"b{n:06d}", 100, expires=29 if n == 77_777 else 30) for n in range(100_000)]
    (part,) = debit(blocks, 99, instant_ms=NOW) or []
    assert (part.grant_id, part.nanos) == ("b077777", 99)
    assert agrees("WC-15", "that one has 1, every other one 100 (order independent of input order)")


def test_wc_47_what_expired_is_no_balance(agrees: Agrees) -> None:
    """1,200 were bought and 800 used: 400 are worth nothing from the instant of expiry on."""
    left = [block("bought", 400, expires=1)]
    assert balance_nanos(left, instant_ms=NOW + DAY - 1) == 400
    assert balance_nanos(left, instant_ms=NOW + DAY) == 0
    assert agrees("WC-47", "400 expired, balance 0, no invoice, no tax")


@pytest.mark.parametrize(
    ("name", "held", "real", "left", "says"),
    [("HL-01", 8, 5, [0, 20], "hourly 0, lifetime 20"), ("HL-03", 5, 3, [2, 20], "hourly 2, lifetime 20")],
)
def test_what_a_hold_did_not_use_goes_back_in_reverse(
    name: str, held: int, real: int, left: list[int], says: str, agrees: Agrees
) -> None:
    """Of 5 an hour and 20 for life: the lifetime block gets back first."""
    blocks = [block("hourly", 5, expires=1), block("lifetime", 20)]
    parts = debit(blocks, held, instant_ms=NOW) or []
    kept = {part.grant_id: part.nanos for part in parts}
    for part in give_back(parts, held - real):
        kept[part.grant_id] -= part.nanos
    assert [one.remaining_nanos - kept.get(one.grant_id, 0) for one in blocks] == left
    assert agrees(name, says)
