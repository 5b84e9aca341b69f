"""Who takes slices, and settles them.

A slice stands in the sheet before it is asked for, and until it is settled for good, so that whoever finds a dead
worker's sheet finishes what it began. A settlement whose outcome is unknown is asked for again, with the same
quantity: it is done once. Where the hold is not there any more (nobody could settle it in time, or Redis lost it),
what was used is charged all the same: as far as the wallet goes, and the rest is uncollected.

Whether a feature may be sliced is read again with every slice, ahead of it on the same connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

from billing_core.contract.keys import customer_keys, is_slice, new_slice_id
from billing_core.contract.snapshot import Entitlement
from billing_core.contract.usage_event import EventBody, encode_body
from billing_core.errors import Conflict, Failure, IdempotencyConflict, NotFound, Unavailable
from billing_core.values.clock import Clock, to_ms
from gateway.admission.caller import Caller
from gateway.admission.deadline import deadline_in
from gateway.admission.decision import decision_of
from gateway.admission.degraded.record import Entry
from gateway.admission.degraded.replay import Replay, keep_lost
from gateway.admission.hold import Holds, Memory
from gateway.admission.order import Act, Charge, Mode, Order, Terms, digest_of_charges, plan
from gateway.admission.slice.sheet import SliceRecord, left_sheets, new_sheet
from gateway.admission.slice.slice import Slice, SliceTally
from gateway.settings import GatewaySettings
from gateway.state.clock import ServerClock
from gateway.state.link import Link
from gateway.state.resp import ErrorReply, Reply

SLICE_MARK: Final = "slice"
_ENTITLEMENT: Final = msgspec.msgpack.Decoder(Entitlement)


class Slicer:
    """Slices on Redis' side. `close` once."""

    def __init__(
        self,
        bulk: Link,
        *,
        clock: Clock,
        server_clock: ServerClock,
        recall: Memory | None,
        settings: GatewaySettings,
    ) -> None:
        """Make a sheet. Raises: ConfigurationError."""
        self._bulk = bulk
        self._clock = clock
        self._server_clock = server_clock
        self._recall = recall
        self._settings = settings
        self._folder = Path(settings.journal_dir)
        self._sheet = new_sheet(self._folder, count=settings.slice_count)
        self._holds = Holds(bulk, window_ms=settings.idempotency_window_ms, recall=recall)
        self._replay = Replay(bulk, settings=settings)
        self._owed: deque[Slice] = deque()
        self.tally = SliceTally()

    async def units_of(self, caller: Caller) -> dict[str, int]:
        """The features of this customer that are sliced, and in how many units. Raises: Unavailable."""
        fields = await self._read(("HGETALL", caller.keys.snapshot))
        if not isinstance(fields, list):
            return {}
        told = dict(zip(fields[::2], fields[1::2], strict=True))
        units = {name: _units_in(value) for name, value in told.items() if isinstance(name, bytes)}
        return {name[2:].decode(): n for name, n in units.items() if name.startswith(b"f:") and n}

    async def slices_of(self, caller: Caller) -> set[str]:
        """The slices of this customer's that stand, whoever has them. Raises: Unavailable."""
        found = await self._read(("ZRANGE", caller.keys.holds, 0, -1))
        hold_ids = (
            {one.decode() for one in found if isinstance(one, bytes)} if isinstance(found, list) else set[str]()
        )
        return {hold_id for hold_id in hold_ids if is_slice(hold_id)}

    async def standing(self, caller: Caller, hold_ids: set[str]) -> set[str]:
        """Those of these that still stand. Raises: Unavailable."""
        named = sorted(hold_ids)
        found = await self._read(("ZMSCORE", caller.keys.holds, *named))
        deadlines = found if isinstance(found, list) else []
        return {hold_id for hold_id, deadline in zip(named, deadlines, strict=True) if deadline is not None}

    async def take(self, caller: Caller, feature: str, *, units: int) -> Slice | None:
        """A slice of so many units; None where Redis refuses it, there is no cell, or it is not to be sliced so.

        Raises: Unavailable.
        """
        order = Order(
            charges=(Charge(feature=feature, quantity=units),), mode=Mode.HOLD, ttl_ms=self._settings.slice_ttl_ms
        )
        deadline, keys = deadline_in(self._settings.bulk_deadline_ms), caller.keys
        not_after_ms = self._server_clock.at_ms(deadline.at_s, shard=keys.shard)
        terms = Terms(window_ms=0, not_after_ms=not_after_ms, mark=SLICE_MARK, hold_id=new_slice_id(keys.shard))
        act = plan(order, caller, terms=terms)
        record = _record(caller, act, feature=feature)
        cell = self._sheet.write(record)
        if cell is None:
            return None
        since_s = time.perf_counter()
        until_s = since_s + slice_seconds(self._settings)
        piece = Slice(record, units=units, cell=cell, since_s=since_s, until_s=until_s)
        try:
            plan_code = await self._asked(caller, act, order=order, deadline_ms=deadline.left_ms())
        except Failure:
            self._owed.append(piece)  # it may be there
            raise
        if plan_code is None:
            self.tally.refused += 1
            await self.end(piece)
            return None
        piece.decision = msgspec.structs.replace(piece.decision, plan=plan_code)
        self.tally.taken += 1
        if self._recall is not None:
            self._recall.note_hold(record.hold_id, f"{record.tenant_id}:{record.decision_id}")
        return piece

    async def end(self, piece: Slice) -> bool:
        """Settle a slice that is closed with what was used; whether that is done, or still owed."""
        try:
            await self._end(piece.record, piece.units - piece.left)
        except Unavailable:  # the link counts it
            self._owed.append(piece)
            return False
        self._sheet.clear(piece.cell.number)
        return True

    async def end_owed(self) -> None:
        """Settle what could not be settled before."""
        for _ in range(len(self._owed)):
            if not await self.end(self._owed.popleft()):
                return

    async def finish_legacies(self) -> None:
        """Settle what workers used that are dead. Raises: Unavailable."""
        found = await asyncio.to_thread(left_sheets, self._folder)
        try:
            for sheet in found:
                for cell, record, used in list(sheet.cells()):
                    await self._end(record, used)
                    sheet.clear(cell)
        finally:
            for sheet in found:
                sheet.close()

    def close(self) -> None:
        """Let go of the sheet; what is not settled stays in it, for whoever finds it."""
        self._sheet.close()

    async def _asked(self, caller: Caller, act: Act, *, order: Order, deadline_ms: int) -> str | None:
        """The customer's plan, if the hold was placed, for a feature that is sliced so now. Raises: Failure."""
        charge = order.charges[0]
        told = self._bulk.send(("HGET", caller.keys.snapshot, f"f:{charge.feature}"), deadline_ms=deadline_ms)
        asked = self._bulk.run(act.script, act.keys, args=act.args, deadline_ms=deadline_ms)
        await asyncio.wait((told, asked))
        for fault in (told.exception(), asked.exception()):
            if isinstance(fault, ErrorReply):
                return None  # whatever is wrong, orders learn it one by one
            if fault is not None:
                raise fault
        decision = decision_of(asked.result(), order, decision_id=act.decision_id)
        is_taken = decision.allowed and not decision.would and _units_in(told.result()) == charge.quantity
        return decision.plan if is_taken else None

    async def _end(self, record: SliceRecord, used: int) -> None:
        """Settle, or give back where nothing was used. Raises: Unavailable."""
        deadline = deadline_in(self._settings.bulk_deadline_ms)
        try:
            if used:
                charges = (Charge(feature=record.feature, quantity=used),)
                await self._holds.settle(record.hold_id, charges, deadline=deadline)
            else:
                await self._holds.release(record.hold_id, deadline=deadline)
        except Unavailable:
            raise
        except IdempotencyConflict:
            return  # settled before with what was used: the disk of a machine that died remembered less
        except (NotFound, Conflict):
            if used:
                await self._charge_without(record, used)
        except Failure:
            await self._keep_lost(record, used)
        self.tally.settled_units += used

    async def _charge_without(self, record: SliceRecord, used: int) -> None:
        """Charge what was used on a hold that is gone, once. Raises: Unavailable."""
        try:
            await self._replay.record(_entry(record, used, at_ms=to_ms(self._clock())))
        except Unavailable:
            raise
        except Failure:
            await self._keep_lost(record, used)

    async def _keep_lost(self, record: SliceRecord, used: int) -> None:
        self.tally.lost += 1
        await asyncio.to_thread(keep_lost, self._folder, _entry(record, used, at_ms=to_ms(self._clock())))

    async def _read(self, words: tuple[str | int, ...]) -> Reply:
        try:
            return await self._bulk.send(words, deadline_ms=self._settings.bulk_deadline_ms)
        except ErrorReply as error:
            raise Unavailable(f"Redis does not tell what may be sliced: {error.code.lower()}") from None


def slice_seconds(settings: GatewaySettings) -> float:
    """For how long a slice is used: never for more than half of the time that its hold stands."""
    return min(settings.slice_ms, settings.slice_ttl_ms // 2) / 1_000


def _units_in(raw: Reply) -> int:
    """In how many units a feature is sliced; 0 where it is not, or the snapshot is of another version."""
    try:
        return _ENTITLEMENT.decode(raw).slice_units if isinstance(raw, bytes) else 0
    except msgspec.MsgspecError:
        return 0


def _record(caller: Caller, act: Act, *, feature: str) -> SliceRecord:
    return SliceRecord(
        hold_id=act.hold_id,
        decision_id=act.decision_id,
        tenant_id=caller.tenant_id,
        customer_id=caller.customer_id,
        path=caller.path,
        key_hint=caller.key_hint,
        feature=feature,
    )


def _entry(record: SliceRecord, used: int, *, at_ms: int) -> Entry:
    """A slice as an order that was allowed, for the case that its hold is gone."""
    body = EventBody(
        event_id=record.decision_id,
        tenant_id=record.tenant_id,
        customer_id=record.customer_id,
        features=(record.feature,),
        key_hint=record.key_hint,
        path=record.path,
        reason=SLICE_MARK,
    )
    names = customer_keys(record.tenant_id, record.customer_id)
    return Entry(
        decision_id=record.decision_id,
        hold_id=record.hold_id,
        answer_key=names.idempotency_prefix + record.decision_id,
        digest=digest_of_charges((Charge(feature=record.feature, quantity=used),)),
        body=encode_body(body),
        at_ms=at_ms,
        tenant_id=record.tenant_id,
        customer_id=record.customer_id,
        path=record.path,
        features=(record.feature,),
        quantities=(used,),
    )
