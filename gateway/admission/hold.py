"""What can be done with a hold that stands: settle it, settle a part, extend it, release it.

A hold's id is all that is needed: it says in which shard it lives, and the hold itself knows whose it is. So what
is done with holds takes turns by their shards, as decisions do by their customers, where nobody says whose it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from billing_core.contract.keys import epoch_key, hold_key, shard_holds_key, shard_of_hold, stream_key, tag
from billing_core.contract.usage_event import EventBody
from billing_core.errors import NotFound
from gateway.admission.deadline import Deadline
from gateway.admission.decision import Decision, decision_of, words_of
from gateway.admission.order import Charge, Mode, Order, digest_of_charges, pairs_of
from gateway.admission.outcome import HoldEnd, Outcome, PartOutcome, not_open, outcome_of, part_of
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply, Reply, Word

_SETTLED = frozenset({HoldEnd.SETTLED, HoldEnd.LATE})
_ENDS = frozenset(end.value for end in HoldEnd)
_RELEASED = frozenset({HoldEnd.RELEASED})


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a part or an extension does to a hold. `ttl_ms` 0 keeps its deadline.

    `body` of a part's usage event, which names the charges given here; else the hold's own.
    """

    charges: tuple[Charge, ...]
    ttl_ms: int
    idempotency_key: str = ""
    body: bytes = b""


class Memory(Protocol):
    """Who remembers, for the case that a server loses it, what this process has answered."""

    def note(self, shard: int, name: str) -> None: ...

    def note_hold(self, hold_id: str, name: str) -> None: ...

    def note_settled(self, shard: int, hold_id: str) -> None: ...


class Holds:
    """Holds that stand."""

    def __init__(self, link: Link, *, window_ms: int, refusal_ms: int = 0, recall: Memory | None = None) -> None:
        """`window_ms` is how long an answer is kept for retries; `refusal_ms` how long a refusal, at most."""
        self._link = link
        self._recall = recall
        self._window_ms = window_ms
        self._refusal_ms = refusal_ms

    async def settle(
        self, hold_id: str, charges: tuple[Charge, ...], *, deadline: Deadline, body: bytes = b"", place: str = ""
    ) -> Outcome:
        """End a hold by what was really used; features that are not named settle as held.

        `body` of its usage event, which names all charges of the hold; else the hold's own. `place` of whoever
        takes turns for it, where that is known: the customer's snapshot.

        Raises: NotFound, Conflict, IdempotencyConflict, Unprocessable, Unavailable.
        """
        shard = _shard(hold_id)
        keys = (epoch_key(shard), hold_key(hold_id, shard), shard_holds_key(shard), stream_key(shard))
        args: list[Word] = [digest_of_charges(charges), self._window_ms, body, *pairs_of(charges)]
        reply = await self._run("settle", keys, args=args, deadline=deadline, place=place)
        outcome = outcome_of(reply, wanted=_SETTLED)
        if self._recall is not None and (not charges or any(charge.quantity for charge in charges)):
            self._recall.note_settled(shard, hold_id)
        return outcome

    async def part(self, hold_id: str, change: Change, *, deadline: Deadline) -> PartOutcome:
        """Charge so much of a hold now; the rest stays held.

        Raises: as `settle`.
        """
        shard = _shard(hold_id)
        keys = (
            *(epoch_key(shard), hold_key(hold_id, shard), shard_holds_key(shard), stream_key(shard)),
            answer_key(hold_id, shard, key=change.idempotency_key),
        )
        args: list[Word] = [*self._memory(change), change.body, change.ttl_ms, *pairs_of(change.charges)]
        return part_of(await self._run("part", keys, args=args, deadline=deadline))

    async def extend(self, hold_id: str, change: Change, *, deadline: Deadline) -> Decision:
        """Keep a hold for longer, and set more aside on it where more is named; all or nothing.

        Raises: NotFound, Conflict, IdempotencyConflict, Unprocessable, Unavailable.
        """
        shard = _shard(hold_id)
        keys = (
            *(epoch_key(shard), hold_key(hold_id, shard), shard_holds_key(shard)),
            answer_key(hold_id, shard, key=change.idempotency_key),
        )
        args: list[Word] = [*self._memory(change), self._refusal_ms, change.ttl_ms, *pairs_of(change.charges)]
        reply = await self._run("extend", keys, args=args, deadline=deadline)
        said = words_of(reply, len(change.charges))[0]
        if said in _ENDS:
            raise not_open(said)
        return decision_of(reply, Order(charges=change.charges, mode=Mode.HOLD), decision_id="")

    async def placed(self, hold_id: str, *, deadline: Deadline) -> EventBody | None:
        """The body of the entry that the end of an open hold appends; None where it is not open any more.

        Raises: NotFound, Unavailable.
        """
        shard = _shard(hold_id)
        try:
            words = ("GET", hold_key(hold_id, shard))
            reply = await self._link.send(words, deadline_ms=deadline.left_ms())
        except ErrorReply as error:
            raise failure_of(error) from None
        if not isinstance(reply, bytes):
            raise NotFound("no such hold", field="hold")
        return _body_in(reply)

    async def release(self, hold_id: str, *, deadline: Deadline, place: str = "") -> Outcome:
        """End a hold without a charge; `place` as for `settle`.

        Raises: NotFound, Conflict, Unavailable.
        """
        shard = _shard(hold_id)
        keys = (epoch_key(shard), hold_key(hold_id, shard), shard_holds_key(shard))
        reply = await self._run("release", keys, args=[self._window_ms], deadline=deadline, place=place)
        return outcome_of(reply, wanted=_RELEASED)

    def _memory(self, change: Change) -> tuple[Word, Word]:
        """Digest and window of the answer; a change without a key is kept for nobody."""
        if not change.idempotency_key:
            return ("", 0)
        return (f"{digest_of_charges(change.charges)} {change.ttl_ms}", self._window_ms)

    async def _run(
        self, name: str, keys: Sequence[Word], *, args: Sequence[Word], deadline: Deadline, place: str = ""
    ) -> Reply:
        try:
            left_ms = deadline.left_ms()
            return await self._link.run(name, keys, args=args, deadline_ms=left_ms, place=place or str(keys[0]))
        except ErrorReply as error:
            raise failure_of(error) from None


class _Kept(msgspec.Struct, frozen=True):
    """A hold as the scripts keep it, as far as it is read here."""

    body: msgspec.Raw = msgspec.Raw()
    would: str = ""


_KEPT = msgspec.msgpack.Decoder(_Kept)
_BODY = msgspec.msgpack.Decoder(EventBody)
_TEXT_HEAD_BYTES = {0xD9: 2, 0xDA: 3, 0xDB: 5}
"""How long the head of a text is, which is how Lua packs bytes; of a short one it is one byte."""


def _body_in(packed: bytes) -> EventBody | None:
    kept = _KEPT.decode(packed)
    text = bytes(kept.body)
    if not text:
        return None
    body = _BODY.decode(text[_TEXT_HEAD_BYTES.get(text[0], 1) :])
    return msgspec.structs.replace(body, event_id=f"{body.event_id}.1") if kept.would else body


def answer_key(hold_id: str, shard: int, *, key: str) -> str:
    """Where the answer to a change of a hold is kept for retries."""
    return f"{tag(shard)}:idem:{hold_id}:{key}"


def _shard(hold_id: str) -> int:
    shard = shard_of_hold(hold_id)
    if shard is None:
        raise NotFound("no such hold", field="hold")
    return shard
