"""Laws of the burn order for all wallets; the published cases stand among the oracle's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from billing_core.wallets.burn import Block, balance_nanos, debit, give_back, in_burn_order

NOW = 1_000

blocks = st.lists(
    st.builds(
        Block,
        grant_id=st.text("abc", min_size=1, max_size=4),
        remaining_nanos=st.integers(0, 50),
        priority=st.integers(0, 2),
        effective_ms=st.integers(998, 1_002),
        expires_ms=st.sampled_from([0, 999, 1_000, 1_001, 2_000]),
        is_paid=st.booleans(),
        created_ms=st.integers(0, 2),
    ),
    unique_by=lambda block: block.grant_id,
    max_size=8,
)


@given(blocks, st.integers(0, 500))
def test_a_debit_is_paid_in_full_or_not_at_all(wallet: list[Block], nanos: int) -> None:
    """No overspend, and no refusal of what could be paid."""
    parts = debit(wallet, nanos, instant_ms=NOW)
    assert (parts is None) == (nanos > balance_nanos(wallet, instant_ms=NOW))
    if parts is not None:
        assert sum(part.nanos for part in parts) == nanos
        left = {block.grant_id: block.remaining_nanos for block in wallet}
        assert all(0 < part.nanos <= left[part.grant_id] for part in parts)


@given(blocks, st.integers(1, 500))
def test_nothing_burns_before_what_stands_before_it_is_empty(wallet: list[Block], nanos: int) -> None:
    """Every block that pays is emptied, but for the last."""
    parts = debit(wallet, nanos, instant_ms=NOW) or []
    usable = [block for block in in_burn_order(wallet) if block.is_usable_at(NOW) and block.remaining_nanos]
    assert [part.grant_id for part in parts] == [block.grant_id for block in usable[: len(parts)]]
    for part, block in zip(parts[:-1], usable, strict=False):
        assert part.nanos == block.remaining_nanos


@given(blocks, st.randoms())
def test_the_order_does_not_depend_on_how_the_blocks_come(wallet: list[Block], chance: object) -> None:
    """It is total."""
    turned = wallet[:]
    chance.shuffle(turned)  # type: ignore[attr-defined]
    assert in_burn_order(turned) == in_burn_order(wallet)


@given(blocks, st.integers(0, 500), st.integers(0, 500))
def test_a_hold_that_used_a_part_leaves_the_wallet_as_a_debit_of_that_part(
    wallet: list[Block], held: int, used: int
) -> None:
    """Giving back in the reverse order of taking is as if the rest had never been taken."""
    parts = debit(wallet, held, instant_ms=NOW)
    if parts is None or used > held:
        return
    returned = {part.grant_id: part.nanos for part in give_back(parts, held - used)}
    kept = [(part.grant_id, part.nanos - returned.get(part.grant_id, 0)) for part in parts]
    plain = [(part.grant_id, part.nanos) for part in debit(wallet, used, instant_ms=NOW) or []]
    assert [part for part in kept if part[1]] == plain
