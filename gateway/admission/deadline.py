"""Until when an answer is owed.

The clock starts when the request has come, and everything that the request needs draws on the same budget: reading
it, finding its key, and deciding. So a slow look-up leaves less for the decision instead of adding to it.

Worked example: 15 ms are allowed and the key was found after 4: the decision has 11 left. Where nothing is left one
millisecond is given all the same; the answer to whoever waits is then `unavailable`, a moment later. But one that
was over before anything was asked, because this process slept meanwhile, is not begun: whoever waited has asked
elsewhere by now, and what was refused there must not be done here.
"""

from __future__ import annotations

import time

import msgspec

from billing_core.errors import Unavailable


class Deadline(msgspec.Struct, frozen=True, kw_only=True):
    """A budget and when it began. Units: seconds of this process' monotonic clock, and milliseconds."""

    since_s: float
    budget_ms: int

    @property
    def at_s(self) -> float:
        """The moment itself."""
        return self.since_s + self.budget_ms / 1_000

    def spent_s(self) -> float:
        """How much time has passed since it began."""
        return time.perf_counter() - self.since_s

    def left_ms(self) -> int:
        """Whole milliseconds that are left, at least one."""
        return max(1, self.budget_ms - int(self.spent_s() * 1_000))


def deadline_in(budget_ms: int) -> Deadline:
    """The deadline of what begins now."""
    return Deadline(since_s=time.perf_counter(), budget_ms=budget_ms)


def deadline_since(since_s: float, budget_ms: int) -> Deadline:
    """The deadline of what came at that moment of the monotonic clock.

    Raises: Unavailable where it is over.
    """
    deadline = Deadline(since_s=since_s, budget_ms=budget_ms)
    if deadline.spent_s() * 1_000 > budget_ms:
        raise Unavailable("the deadline was over before this could be looked at; nothing was charged")
    return deadline
