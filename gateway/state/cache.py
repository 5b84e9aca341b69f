"""A bounded memory that forgets the least recently used, and everything after its time.

What is read from Redis may be out of date before it is stored: the message that says so can overtake the reply. So
a reader notes the cache's `generation` before it asks and hands it back with the answer; if anything was forgotten
meanwhile, the answer is used once and not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from billing_core.values.invariant import invariant

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """At most `capacity` entries, each with its own end. Units: seconds of a monotonic clock."""

    def __init__(self, capacity: int) -> None:
        invariant(capacity > 0, "a cache has room for at least one entry")
        self._capacity = capacity
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self.generation = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, *, now_s: float) -> V | None:
        """The value, or None where there is none or its time is over."""
        entry = self._entries.get(key)
        if entry is None or entry[1] <= now_s:
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry[0]

    def at_hand(self, key: K, *, now_s: float) -> V | None:
        """The value where there is one; not missed where there is none, for whoever asks further."""
        entry = self._entries.get(key)
        if entry is None or entry[1] <= now_s:
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry[0]

    def keep(self, key: K, value: V, *, until_s: float, generation: int) -> None:
        """Remember the value, unless something was forgotten since `generation` was read."""
        if generation != self.generation:
            return
        self._entries[key] = (value, until_s)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def forget(self, key: K) -> None:
        """Drop one entry, and what is being read just now."""
        self.generation += 1
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Drop everything, and what is being read just now."""
        self.generation += 1
        self._entries.clear()
