"""What was allowed without Redis is charged when Redis is back, each order exactly once.

An order is charged out of the hold of its lease, under the same answer key as the attempt that failed: if that
ran after all, the answer is known already and nothing happens now. If the hold has ended meanwhile (the outage
was longer than the lease), the order is recorded like usage that already happened: charged as far as the wallet
goes, and the rest uncollected. A key that was used for something else meanwhile does not help its order to go
free: it is recorded under a name of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from billing_core.contract.keys import (
    customer_keys,
    epoch_key,
    hold_key,
    shard_holds_key,
    shard_of_hold,
    stream_key,
)
from billing_core.contract.usage_event import EventBody, encode_body
from billing_core.errors import IdempotencyConflict, InvariantBroken
from gateway.admission.decision import words_of
from gateway.admission.degraded.record import Entry, packed
from gateway.admission.outcome import CHARGED, DECIDED
from gateway.settings import GatewaySettings
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply, Reply, Word, flat, text_of

_LOST: Final = "lost"
_KEPT_TTL = 0
_BODY = msgspec.msgpack.Decoder(EventBody)


class Fate(StrEnum):
    """What became of an order that was allowed on a lease."""

    CHARGED = "charged"
    KNOWN = "known"
    RECORDED = "recorded"


class Replay:
    """Charges entries of a journal."""

    def __init__(self, bulk: Link, *, settings: GatewaySettings) -> None:
        self._bulk = bulk
        self._window_ms = settings.idempotency_window_ms
        self._deadline_ms = settings.bulk_deadline_ms

    async def charge(self, entry: Entry) -> Fate:
        """Charge one order.

        Raises: Unavailable where Redis cannot be asked now; another Failure where it can never be charged.
        """
        try:
            said = text_of(flat(await self._part(entry))[0])
            if said == CHARGED:
                return Fate.CHARGED
            if said == DECIDED:
                return Fate.KNOWN
            return await self.record(entry)
        except IdempotencyConflict:
            return await self._record_apart(entry)

    async def record(self, entry: Entry) -> Fate:
        """Charge one order of which no hold is left, as far as the wallet goes. Raises: as `charge`."""
        return await self._record(entry, entry.answer_key, body=entry.body)

    async def _part(self, entry: Entry) -> Reply:
        shard = shard_of_hold(entry.hold_id)
        if shard is None:
            raise InvariantBroken(f"{entry.hold_id} is no hold")
        keys = (
            *(epoch_key(shard), hold_key(entry.hold_id, shard), shard_holds_key(shard), stream_key(shard)),
            entry.answer_key,
        )
        args = (entry.digest, self._window_ms, entry.body, _KEPT_TTL, *_pairs(entry))
        return await self._run("part", keys, args=args)

    async def _record(self, entry: Entry, answer_key: str, *, body: bytes) -> Fate:
        names = customer_keys(entry.tenant_id, entry.customer_id)
        keys = (
            *(names.epoch, names.snapshot, names.counters, names.wallet, names.stream, names.holds),
            *(names.shard_holds, answer_key),
        )
        reply = await self._run(
            "record", keys, args=(entry.digest, self._window_ms, body, entry.path, *_pairs(entry))
        )
        return Fate.KNOWN if words_of(reply, len(entry.features))[1] == 1 else Fate.RECORDED

    async def _record_apart(self, entry: Entry) -> Fate:
        """Record it under a name that is made of its own, so that a second time finds the first."""
        names = customer_keys(entry.tenant_id, entry.customer_id)
        event_id = f"{entry.decision_id}.{entry.at_ms}"
        body = msgspec.structs.replace(_BODY.decode(entry.body), event_id=event_id)
        return await self._record(entry, f"{names.idempotency_prefix}{event_id}", body=encode_body(body))

    async def _run(self, name: str, keys: Sequence[Word], *, args: Sequence[Word]) -> Reply:
        try:
            return await self._bulk.run(name, keys, args=args, deadline_ms=self._deadline_ms)
        except ErrorReply as error:
            raise failure_of(error) from None


def _pairs(entry: Entry) -> list[Word]:
    pairs: list[Word] = [len(entry.features)]
    for feature, quantity in zip(entry.features, entry.quantities, strict=True):
        pairs += (feature, quantity)
    return pairs


def keep_lost(folder: Path, entry: Entry) -> None:
    """Keep an entry that can never be charged, in the form of the journal."""
    lost = os.open(folder / _LOST, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(lost, packed(entry))
        os.fsync(lost)
    finally:
        os.close(lost)
