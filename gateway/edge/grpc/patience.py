"""How many frames that carry nothing a peer may send.

Each of them costs us as much as one that asks for something, so a peer that sends nothing else is an attack (floods
of PING, SETTINGS and empty DATA, streams that are opened and taken back). A peer that works sends some too.

Worked example: in one second a peer makes 500 calls and sends 500 WINDOW_UPDATE and 20 PING: 520 of the 3,000 that
it may. Another opens 5,000 streams and takes each back: it makes no call, so the thousand-and-first ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.edge.grpc.frame import Breach, Code

_PER_SECOND: Final = 1_000
_PER_CALL: Final = 4


class Patience:
    """Counts what one peer sends, by the second."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._second_s = now_s()
        self._idle_count = 0
        self._call_count = 0

    def called(self) -> None:
        """A call was made."""
        self._call_count += 1

    def idle(self) -> None:
        """A frame carried nothing. Raises: Breach where there are too many."""
        now_s = self._now_s()
        if now_s - self._second_s >= 1:
            self._second_s, self._idle_count, self._call_count = now_s, 0, 0
        self._idle_count += 1
        if self._idle_count > _PER_SECOND + _PER_CALL * self._call_count:
            raise Breach(Code.ENHANCE_YOUR_CALM, "too many frames that carry nothing")
