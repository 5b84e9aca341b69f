"""State: every object the double knows, and the journal that brings it back after a restart.

A commit is one line of the journal, written before the answer leaves: the objects that changed and the answer that
was kept under an idempotency key go together or not at all. A line that a kill tore in half is the last one and is
dropped; its request had no answer, so whoever asked will ask again.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from billing_core.adapters.stripe_double.answer import Answer, Change, Json

INTENTS, CUSTOMERS, METHODS = "payment_intent", "customer", "payment_method"
EVENTS, DELIVERIES, ANSWERS = "event", "delivery", "answer"


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an idempotency key stands for: the first request under it, and its answer."""

    digest: str
    answer: Answer


_ENCODER = msgspec.json.Encoder()
_LINE = msgspec.json.Decoder(tuple[Change, ...])


class State:
    """All collections, in the order in which their objects came."""

    def __init__(self, journal: Path | None) -> None:
        self._objects: dict[str, dict[str, Json]] = {}
        self._journal = None
        if journal is not None:
            self._read(journal)
            self._journal = journal.open("ab", buffering=0)

    def get(self, kind: str, name: str) -> Json | None:
        """The object of that name."""
        return self._objects.get(kind, {}).get(name)

    def all_of(self, kind: str) -> list[Json]:
        """Every object of the collection, the oldest first."""
        return list(self._objects.get(kind, {}).values())

    def answer_under(self, key: str) -> KeptAnswer | None:
        """What was answered under an idempotency key."""
        kept = self.get(ANSWERS, key)
        return None if kept is None else msgspec.convert(kept, KeptAnswer)

    def commit(self, changes: tuple[Change, ...]) -> None:
        """Write and apply changes that belong together."""
        if not changes:
            return
        if self._journal is not None:
            self._journal.write(_ENCODER.encode(changes) + b"\n")
        self._apply(changes)

    def close(self) -> None:
        """Give the journal's file back."""
        if self._journal is not None:
            self._journal.close()

    def _apply(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            self._objects.setdefault(change.kind, {})[change.id] = change.value

    def _read(self, journal: Path) -> None:
        """Apply what was committed; cut off a torn end, so that the next line does not grow on to it."""
        if not journal.exists():
            return
        data = journal.read_bytes()
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].splitlines():
            self._apply(_LINE.decode(line))
        if whole != len(data):
            with journal.open("r+b") as file:
                file.truncate(whole)


def kept_change(key: str, *, digest: str, answer: Answer) -> Change:
    """The change that keeps an answer under its key."""
    return Change(kind=ANSWERS, id=key, value=msgspec.to_builtins(KeptAnswer(digest=digest, answer=answer)))
