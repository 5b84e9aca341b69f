"""Fair queueing: so many commands may be at the server at once, and no customer has them all.

A command takes a place until the server is done with it. Where all are taken, or a customer has as many as one may
have, its next command waits in that customer's own queue, and free places go round: one to each customer who waits,
and again. Who had nothing under way when its command came is new to the round and goes first, once; so whoever asks
now and then passes those who always ask, and cannot pass them twice. For a customer who has been alone for a minute
there are no bounds: there is nobody to be unfair to.

A place is free when the reply has been read. Where the process comes round to that late, because so much else is
asked of it, a few places would be few decisions: then a customer may have as many as it could have decided in the
time that it has worked meanwhile. Whoever else asks has to wait for such a process anyway.

What would not be reached in time is refused when it comes, which costs little and charges nothing: the commands
before it in its queue, times what each of them has taken lately. The first few are never refused so, and keep that
figure fresh. Nor is what would give up soon by itself: who is refused at once asks again at once, and a process
that does nothing but refuse has no time for anybody.

Worked example: 256 places, 6 for a customer. Quiet has asked a second ago, and Noisy sends 50 commands: 6 leave, 44
wait. Quiet's next one leaves at once. Each reply to Noisy frees one of its places, and its next command takes that.

Source: Demers, Keshav and Shenker, "Analysis and simulation of a fair queueing algorithm", 1989; RFC 8290, sections
4.1 and 4.2, for the two lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from gateway.state.pipe import Tell

_ALONE_S: Final = 60.0
_SAMPLES: Final = 8
"""So many of the last commands say how long one takes."""

_SOON_S: Final = 0.05
_LATE_S: Final = 0.002
_EACH_S: Final = 0.00004
"""What a decision takes this process, about."""

_FEW_SHARES: Final = 4_096


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How many commands may be under way, and how many may wait: in all, and of one customer."""

    places: int = 256
    customer_places: int = 6
    waiting: int = 8_192
    customer_waiting: int = 4_096


class Shed(StrEnum):
    """Why a command is not sent."""

    FULL = "full"
    CUSTOMER_FULL = "customer_full"
    SLOW = "slow"
    LATE = "late"


class Waiting:
    """A command that waits, as long as it has a share.

    `until_s`: it is of no use later; `rank`: which it was in its queue, from 1.
    """

    __slots__ = ("packed", "place", "rank", "share", "since_s", "tell", "until_s")

    def __init__(self, packed: bytes, *, place: str, tell: Tell, since_s: float, until_s: float) -> None:
        self.packed = packed
        self.place = place
        self.tell = tell
        self.since_s = since_s
        self.until_s = until_s
        self.share: Share | None = None
        self.rank = 0


class Share:
    """One customer's part: places taken, commands that wait, and what each of these has taken lately."""

    __slots__ = ("_queue", "each_s", "is_called", "taken", "waiting")

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self.taken = 0
        self.waiting: deque[Waiting] = deque()
        self.is_called = False
        """Whether it is in the round."""
        self.each_s = 0.0

    def leave(self) -> None:
        """Give one place back; whoever is next takes it."""
        queue = self._queue
        self.taken -= 1
        queue.taken -= 1
        if queue.waiting:
            queue.freed(self)


class FairQueue:
    """Gives places; `start` sends what has waited, with its place taken, and raises nothing."""

    def __init__(
        self,
        bounds: Bounds,
        start: Callable[[Waiting, Share], None],
        *,
        now_s: Callable[[], float],
        worked_s: Callable[[], float],
    ) -> None:
        """`now_s` is the same within a turn of the loop; `worked_s` is how long the process has worked so far."""
        self._bounds = bounds
        self._start = start
        self._now_s = now_s
        self._worked_s = worked_s
        self._shares: dict[str, Share] = {}
        self._sweep_at = _FEW_SHARES
        self._new: deque[Share] = deque()
        self._round: deque[Share] = deque()
        self._is_going = False
        self._latest: Share | None = None
        self._met_s = self._turned_s = self._until_turn_s = 0.0
        self._is_shared = False
        self._places = self._most = bounds.waiting
        self.taken = 0
        self.waiting = 0

    @property
    def share_count(self) -> int:
        """Customers that are remembered."""
        return len(self._shares)

    def take(self, name: str) -> Share | None:
        """A place at once; None where the command has to wait."""
        share = self._shares.get(name)
        if share is None:
            share = self._open(name)
        if share is not self._latest:
            self._meet(share)
        is_held_up = self.taken >= self._places or share.taken >= self._most or share.waiting
        if is_held_up and not self._is_alone_with_room(share):
            return None
        share.taken += 1
        self.taken += 1
        return share

    def wait(self, command: Waiting) -> Shed | None:
        """Let a command wait that got no place; where it may not, why."""
        bounds, share = self._bounds, self._shares[command.place]
        ahead = len(share.waiting)
        if self.waiting >= bounds.waiting:
            return Shed.FULL
        if ahead >= bounds.customer_waiting:
            return Shed.CUSTOMER_FULL
        command.share, command.rank = share, ahead + 1
        for_s = command.until_s - command.since_s
        if ahead >= bounds.customer_places and command.rank * share.each_s > for_s > _SOON_S:
            return Shed.SLOW
        if not self.waiting:
            self._turned_s, self._until_turn_s = command.since_s, self._worked_s()
        share.waiting.append(command)
        self.waiting += 1
        if not share.is_called and share.taken < self._most:
            share.is_called = True
            (self._round if share.taken else self._new).append(share)
        return None

    def withdraw(self, command: Waiting) -> bool:
        """Let a command wait no longer; False where it does not wait any more."""
        if command.share is None:
            return False
        command.share.waiting.remove(command)
        command.share = None
        self.waiting -= 1
        return True

    def freed(self, share: Share) -> None:
        """Send what may be sent now that this customer has a place less."""
        now_s = self._now_s()
        if now_s != self._turned_s:
            self._turn(now_s)
        if share.waiting and not share.is_called:
            share.is_called = True
            self._round.append(share)
        if not self._is_going:  # what cannot be sent frees its place in the midst of this
            self._is_going = True
            self._go_round()
            self._is_going = False

    def _go_round(self) -> None:
        while self.taken < self._places and (self._new or self._round):
            share = self._new.popleft() if self._new else self._round.popleft()
            if not share.waiting or share.taken >= self._most:
                share.is_called = False
                continue
            command = share.waiting.popleft()
            command.share = None
            self.waiting -= 1
            share.taken += 1
            self.taken += 1
            self._round.append(share)
            took_s = (self._now_s() - command.since_s) / command.rank
            share.each_s += (took_s - share.each_s) / _SAMPLES if share.each_s else took_s
            self._start(command, share)

    def _turn(self, now_s: float) -> None:
        """The first reply of another turn: more places, where much was done since that of the turn before."""
        worked_s, self._turned_s = self._worked_s(), now_s
        late_s, self._until_turn_s = worked_s - self._until_turn_s, worked_s
        most = int(late_s / _EACH_S) if late_s > _LATE_S else 0
        if self._is_shared:
            self._most = max(self._bounds.customer_places, min(most, self._places))

    def _meet(self, share: Share) -> None:
        """Another customer than the latest one."""
        if self._latest is not None:
            self._met_s = self._now_s()
            self._is_shared = True
            self._places, self._most = self._bounds.places, self._bounds.customer_places
        self._latest = share

    def _is_alone_with_room(self, share: Share) -> bool:
        """Whether nobody else has asked for long, and there is room."""
        if self._is_shared and self._now_s() - self._met_s > _ALONE_S:
            self._is_shared = False
            self._places = self._most = self._bounds.waiting
            self.freed(share)
        return not self._is_shared and self.taken < self._places

    def _open(self, name: str) -> Share:
        """A share for whoever has none; now and then those go that nobody has used since."""
        if len(self._shares) >= self._sweep_at:
            self._shares = {known: share for known, share in self._shares.items() if self._is_in_use(share)}
            self._sweep_at = max(_FEW_SHARES, 2 * len(self._shares))
        share = self._shares[name] = Share(self)
        return share

    def _is_in_use(self, share: Share) -> bool:
        return bool(share.taken or share.waiting or share.is_called) or share is self._latest
