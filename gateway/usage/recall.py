"""What this process has answered lately, for the case that a server loses it.

A replica that is promoted may lack the last entries that callers were granted. What Postgres has seen of them is
put back by the billing side; of the others nobody knows but the gateways that answered. So each remembers the
decisions and events of the last minutes by their ids, and when a server takes over tells each shard which ones
it had answered there. The billing side holds them against Postgres, and what is missing is lost, by name
(`flows/audit.py`).

Nothing is remembered of what leaves no entry: refusals, looks, replays, quantities of zero, holds until they are
settled. A settlement is known by its hold's decision where this process had placed the hold too.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Final

from billing_core.contract.keys import ANSWERED_KEY, answered_key
from billing_core.errors import Unavailable
from gateway.state.link import Link
from gateway.state.resp import ErrorReply

_MOST: Final = 100_000
_MEMORY_S: Final = 120.0
_RETRY_S: Final = 0.25
_TELLING_S: Final = 60.0
_KEPT_MS: Final = 86_400_000
_CHANCE: Final = random.SystemRandom()


class Recall:
    """The memory of one process, and the task that tells it (`keep`, until it is cancelled)."""

    def __init__(self, link: Link, *, deadline_ms: int) -> None:
        self._link = link
        self._deadline_ms = deadline_ms
        self._now_s = asyncio.get_running_loop().time
        self._lately: deque[tuple[float, int, str]] = deque(maxlen=_MOST)
        self._holds: OrderedDict[str, str] = OrderedDict()
        self.told = 0

    def note(self, shard: int, name: str) -> None:
        """An entry of this `tenant:event` was appended to the shard's stream, and somebody is told so."""
        self._lately.append((self._now_s(), shard, name))

    def note_hold(self, hold_id: str, name: str) -> None:
        """The hold's entries will have the name of its decision, `tenant:decision`."""
        self._holds[hold_id] = name
        if len(self._holds) > _MOST:
            self._holds.popitem(last=False)

    def note_settled(self, shard: int, hold_id: str) -> None:
        """The hold was settled."""
        name = self._holds.pop(hold_id, None)
        if name is not None:
            self.note(shard, name)

    async def keep(self) -> None:
        """Tell all that is remembered whenever a server process is met that was not there before."""
        while True:
            await self._link.met.wait()
            self._link.met.clear()
            await self._tell(self._by_shard())

    def _by_shard(self) -> dict[int, list[str]]:
        since_s = self._now_s() - _MEMORY_S
        found: dict[int, list[str]] = {}
        for at_s, shard, name in self._lately:
            if at_s >= since_s:
                found.setdefault(shard, []).append(name)
        return found

    async def _tell(self, waiting: Mapping[int, list[str]]) -> None:
        """Tell every shard; those that cannot be told now, again, for a while."""
        until_s = self._now_s() + _TELLING_S
        left: list[int] = list(waiting)
        while left and self._now_s() < until_s:
            is_told: list[bool] = await asyncio.gather(*(self._tell_one(shard, waiting[shard]) for shard in left))
            left = [shard for shard, is_done in zip(left, is_told, strict=True) if not is_done]
            await asyncio.sleep(_CHANCE.uniform(0, _RETRY_S))

    async def _tell_one(self, shard: int, ids: Iterable[str]) -> bool:
        name, listed = answered_key(shard), tuple(ids)
        try:
            await asyncio.gather(
                self._link.send(("RPUSH", name, *listed), deadline_ms=self._deadline_ms),
                self._link.send(("PEXPIRE", name, _KEPT_MS), deadline_ms=self._deadline_ms),
                self._link.send(("SADD", ANSWERED_KEY, shard), deadline_ms=self._deadline_ms),
            )
        except (Unavailable, ErrorReply):
            return False
        self.told += len(listed)
        return True
