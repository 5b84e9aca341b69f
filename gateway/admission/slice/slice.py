"""A slice, and the book of all that this worker has.

Orders are alike where customer, budget path, key and feature are the same; a stand is where orders of one kind are
served: the slice that is in use, and the next one, which is taken ahead of need. Nothing here asks anybody.

    serve    an order out of the slice in use, where that covers it; else the stand looks for the next
    wants    once half of the slice in use is gone, or three quarters of its time while many orders come
    turn     a slice that cannot be used any more is closed; what is closed is settled, and never used again

Worked example: slices of 1,000 calls for a second each. An order of 3 leaves 997. At 500 the next slice is asked
for and is there 200 orders later; the order that finds 2 left is served from it, and the first is settled with 998.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.admission.caller import Caller
from gateway.admission.decision import ChargeOutcome, Decision
from gateway.admission.reason import Reason
from gateway.admission.slice.sheet import Cell, SliceRecord

Kind = tuple[str, str, str, str]
"""The customer (by the name of its snapshot), budget path, hint of the key, feature."""

_LAST_SHARE: Final = 4


class Slice:
    """One hold, and what is left of it. Units: seconds of this process' monotonic clock."""

    __slots__ = (
        "_place",
        "_used",
        "cell",
        "decision",
        "left",
        "order_count",
        "record",
        "since_s",
        "units",
        "until_s",
    )

    def __init__(self, record: SliceRecord, *, units: int, cell: Cell, since_s: float, until_s: float) -> None:
        self.record = record
        self.units = self.left = units
        self.cell = cell
        self._place, self._used = cell.place, cell.used
        self.since_s = since_s
        self.until_s = until_s
        self.order_count = 0
        self.decision = decision_out_of(record)

    def take(self, units: int) -> Decision:
        """Use what is there; the same answer for every order, for nothing else is known of any."""
        left = self.left = self.left - units
        self._used[self._place] = self.units - left
        self.order_count += 1
        return self.decision


def decision_out_of(record: SliceRecord) -> Decision:
    """What is answered: allowed, and by which usage event it will be charged."""
    charge = ChargeOutcome(
        feature=record.feature,
        limit_units=None,
        remaining_units=None,
        reset_at_ms=None,
        cost_nanos=0,
        static_value="",
    )
    return Decision(reason=Reason.ALLOWED, decision_id=record.decision_id, sliced=True, charges=(charge,))


class Stand:
    """Where orders of one kind are served. `is_asked`: the next slice is on its way."""

    __slots__ = ("caller", "feature", "following", "in_use", "is_asked", "low_units")

    def __init__(self, caller: Caller, feature: str) -> None:
        self.caller = caller
        self.feature = feature
        self.in_use: Slice | None = None
        self.following: Slice | None = None
        self.is_asked = False
        self.low_units = 0
        """With no more than this left, it is time to ask for the next."""

    def add(self, piece: Slice) -> None:
        """A slice has come."""
        if self.in_use is None:
            self._use(piece)
        else:
            self.following = piece

    def wants(self, *, now_s: float, busy_count: int) -> bool:
        """Whether the next slice should be asked for now; `busy_count` orders within a slice make it worth one."""
        piece = self.in_use
        if piece is None or self.following is not None or self.is_asked:
            return False
        if piece.left <= self.low_units:
            return True
        return (
            piece.order_count >= busy_count
            and (piece.until_s - now_s) * _LAST_SHARE <= piece.until_s - piece.since_s
        )

    def turn(self, units: int, *, now_s: float) -> Slice | None:
        """Close the slice in use, where it is over or the next one covers what it does not; what was closed."""
        piece, following = self.in_use, self.following
        if piece is None:
            return None
        covers_next = following is not None and units <= following.left and now_s < following.until_s
        if now_s < piece.until_s and piece.left and not covers_next:
            return None
        self.in_use = self.following = None
        if following is not None:
            self._use(following)
        return piece

    def close(self) -> list[Slice]:
        """Serve nothing any more; what there was."""
        closed = [piece for piece in (self.in_use, self.following) if piece is not None]
        self.in_use = self.following = None
        return closed

    def _use(self, piece: Slice) -> None:
        self.in_use, self.low_units = piece, piece.units // 2


class Stands:
    """All stands of this worker, by kind and by customer."""

    def __init__(self) -> None:
        self.of_kind: dict[Kind, Stand] = {}
        self._kinds: dict[str, list[Kind]] = {}

    def add(self, kind: Kind, stand: Stand) -> None:
        """A new one."""
        self.of_kind[kind] = stand
        self._kinds.setdefault(owner_of(stand.caller), []).append(kind)

    def remove(self, kind: Kind) -> list[Slice]:
        """Take it down; what it had."""
        stand = self.of_kind.pop(kind)
        owner = owner_of(stand.caller)
        self._kinds[owner].remove(kind)
        if not self._kinds[owner]:
            del self._kinds[owner]
        return stand.close()

    def of_owner(self, owner: str) -> list[Kind]:
        """The kinds of one customer."""
        return list(self._kinds.get(owner, ()))

    def left_units(self) -> int:
        """Units that could still be allowed out of slices."""
        pieces = [piece for stand in self.of_kind.values() for piece in (stand.in_use, stand.following)]
        return sum(piece.left for piece in pieces if piece is not None)


def owner_of(caller: Caller) -> str:
    """The customer, as push messages name it."""
    return f"{caller.tenant_id}:{caller.customer_id}"


class SliceTally(msgspec.Struct, kw_only=True):
    """What happened, for telemetry. `lost`: slices that can never be settled, kept apart for a person."""

    taken: int = 0
    refused: int = 0
    decided: int = 0
    settled_units: int = 0
    yielded: int = 0
    lost: int = 0
