"""Schedules of fees at rest, and the marks up to which burn is booked.

A shard's mark moves in the transaction that books the stretch behind it, and only from the value that was read: of
two bookers one finds the mark moved and rolls back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.revenue.burn import Burn, Counted
from billing_core.revenue.schedule import Schedule
from billing_core.store.database import Transaction
from billing_core.store.query import Q

COLUMNS = Schedule.__struct_fields__


class EarningTenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant with something to earn, and its clock."""

    tenant_id: str
    clock_offset_ms: int


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """What is flushed of a shard's stream and not booked: behind the mark, up to the watermark."""

    shard: int
    recognized_ms: int
    recognized_seq: int
    watermark_ms: int
    watermark_seq: int

    @property
    def bounds(self) -> tuple[int, int, int, int, int]:
        """Shard, mark and watermark."""
        return (self.shard, self.recognized_ms, self.recognized_seq, self.watermark_ms, self.watermark_seq)


async def insert_all(tx: Transaction, schedules: Sequence[Schedule]) -> None:
    """New schedules."""
    if schedules:
        await tx.copy("revenue_schedule", COLUMNS, records=(msgspec.structs.astuple(one) for one in schedules))


async def earning_tenants(tx: Transaction, *, now: datetime) -> list[EarningTenant]:
    """Tenants with schedules of which another day is over. `now` is real time."""
    return await tx.many(Q["tenants_earning"], EarningTenant, now)


async def due(tx: Transaction, *, tenant_id: str, at: datetime, most: int) -> list[Schedule]:
    """Schedules of which another day is over, locked until the transaction ends."""
    return await tx.many(Q["schedules_due"], Schedule, tenant_id, at, most)


async def earn(tx: Transaction, schedules: Sequence[Schedule]) -> None:
    """Write schedules of one tenant after days were earned."""
    await tx.exactly(
        len(schedules),
        Q["schedules_earn"],
        schedules[0].tenant_id,
        [one.invoice_id for one in schedules],
        [one.line_no for one in schedules],
        [one.recognized_nanos for one in schedules],
        [one.days_recognized for one in schedules],
        [one.due_at for one in schedules],
        [one.state for one in schedules],
    )


async def void(tx: Transaction, *, tenant_id: str, invoice_id: str) -> list[Schedule]:
    """End the schedules of an invoice; as they stood."""
    return await tx.many(Q["schedules_void"], Schedule, tenant_id, invoice_id)


async def stretches(tx: Transaction, *, recognized_before_ms: int) -> list[Stretch]:
    """Stretches whose burn is not booked, of shards whose mark is not newer than the instant."""
    return await tx.many(Q["shards_unrecognized"], Stretch, recognized_before_ms)


async def burn_of(tx: Transaction, stretch: Stretch) -> list[Burn]:
    """What left grants that money pays for within the stretch."""
    return await tx.many(Q["burn_of_stretch"], Burn, *stretch.bounds)


async def counted(tx: Transaction, burns: Sequence[Burn]) -> list[Counted]:
    """How far the grants that are told apart in these are booked."""
    names = sorted({(one.tenant_id, one.grant_id) for one in burns if one.grant_id})
    if not names:
        return []
    return await tx.many(Q["grants_booked"], Counted, [name[0] for name in names], [name[1] for name in names])


async def count(tx: Transaction, grants: Sequence[Counted]) -> None:
    """Write how far these grants are booked; the mark of their shard is moved, so nobody else writes it."""
    if grants:
        columns = ([one.tenant_id for one in grants], [one.grant_id for one in grants])
        await tx.exactly(len(grants), Q["grants_book"], *columns, [one.booked_nanos for one in grants])


async def mark_recognized(tx: Transaction, stretch: Stretch) -> None:
    """Move the mark to the stretch's end.

    Raises: InvariantBroken where somebody else moved it; nothing of the transaction stays.
    """
    await tx.exactly(1, Q["shard_recognize"], *stretch.bounds)
