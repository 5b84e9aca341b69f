"""Burn order: which grant pays first, as a pure function.

Overdrafts after all others; then priority, expiry (a grant that never expires comes last), promotional before paid,
effective, created, id. What a hold did not use goes back in the reverse order. A debit above what the grants hold
together is refused whole.

The scripts keep the sorted array in the wallet's hash and walk it; here the same order makes the wallets of a
rebuild and tells in tests what the scripts should have taken.

Worked example: 30 (priority 3), 40 (priority 1, never expires), 20 (priority 2), 60 (priority 1, expires). A debit
of 90 takes all 60 of the one that expires, then 30 of the 40; left are 30, 10, 20, 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """What the order looks at, and what is left. Units: ms on the tenant's clock; expires_ms 0 is never.

    No features are all. An overdraft says in `granted_nanos` how much it lends at most.
    """

    grant_id: str
    remaining_nanos: int
    priority: int
    effective_ms: int
    expires_ms: int
    is_paid: bool
    created_ms: int
    is_overdraft: bool = False
    granted_nanos: int = 0
    features: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[bool, int, bool, int, bool, int, int, str]:
        """Where the block stands in burn order: smaller burns sooner."""
        never = self.expires_ms == 0
        return (
            self.is_overdraft,
            self.priority,
            never,
            self.expires_ms,
            self.is_paid,
            self.effective_ms,
            self.created_ms,
            self.grant_id,
        )

    def is_usable_at(self, instant_ms: int) -> bool:
        """Whether the block may pay: it has taken effect and has not expired (expiry is exclusive)."""
        return self.effective_ms <= instant_ms and (self.expires_ms == 0 or instant_ms < self.expires_ms)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Nanos that one block pays."""

    grant_id: str
    nanos: int


def in_burn_order(blocks: Iterable[Block]) -> list[Block]:
    """The blocks, the first to burn first; the order in which they come does not matter."""
    return sorted(blocks, key=lambda block: block.place)


def balance_nanos(blocks: Iterable[Block], *, instant_ms: int) -> int:
    """What could be spent at the instant."""
    return sum(block.remaining_nanos for block in blocks if block.is_usable_at(instant_ms))


def debit(blocks: Iterable[Block], nanos: int, *, instant_ms: int) -> list[Part] | None:
    """Which block pays how much, in burn order; None where they cannot pay it all, and then none pays."""
    parts: list[Part] = []
    due = nanos
    for block in in_burn_order(blocks):
        if due and block.remaining_nanos and block.is_usable_at(instant_ms):
            taken = min(due, block.remaining_nanos)
            parts.append(Part(grant_id=block.grant_id, nanos=taken))
            due -= taken
    return None if due else parts


def give_back(parts: Sequence[Part], nanos: int) -> list[Part]:
    """Which blocks get back how much of what they set aside: the last to be taken from is the first to get.

    Example: a hold took 5 of an hourly block and 3 of a lifetime one. Giving back 5 returns 3 to the lifetime block
    and 2 to the hourly one.
    """
    returned: list[Part] = []
    due = nanos
    for part in reversed(parts):
        if due:
            back = min(due, part.nanos)
            returned.append(Part(grant_id=part.grant_id, nanos=back))
            due -= back
    return returned
