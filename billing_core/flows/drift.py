"""Drift: whether the counters in Redis say what the rows of usage say.

Wallets are held to the nano by `reconcile`. Counters are not money, but a limit that drifts refuses or lets through
what it should not; so on demand every counter of every customer is recounted. A shard's hashes are captured at one
instant, with the last id that its stream had given. Once Postgres has everything up to that id, the rows up to
it are counted, under the snapshot that Redis had. Zero, or real: with the limits that `recount` names, such as a
limit that was added in the middle of its window. What is held, and carried, is not compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from billing_core.adapters.shard_image import node_keys
from billing_core.adapters.usage_stream import Hashes, UsageStream
from billing_core.contract.keys import LANE_COUNT, SHARD_COUNT, customer_keys, lane_of
from billing_core.contract.snapshot import Budget, Entitlement, Snapshot, Status
from billing_core.flows.reconcile import Finding
from billing_core.flows.recount import CUSTOMER, Recount, Subject, recounted
from billing_core.store import reconciliation
from billing_core.store import shard as shards
from billing_core.store.database import Database
from billing_core.store.projection import Owner
from billing_core.store.reconciliation import CountedOwner
from billing_core.values.clock import EPOCH, to_ms

COUNTER_LAW = "counters_say_what_was_used"

_DRAIN_WAIT_S = 5.0
_DRAIN_LOOK_S = 0.02
_ENTITLEMENT = msgspec.msgpack.Decoder(Entitlement)
_BUDGET = msgspec.msgpack.Decoder(Budget)


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; shards that are not built, or were not flushed in time, are not looked into."""

    customers: int
    unchecked_shards: int
    findings: tuple[Finding, ...]


async def drift(db: Database, client: Any, *, tenant_id: str = "") -> DriftReport:
    """Recount the counters of one tenant's customers, or of all. Reads only."""
    stream, nodes = UsageStream(client), dict[str, list[str]]()
    for name in await node_keys(client):
        counters, _, node = name.partition("/")
        nodes.setdefault(counters, []).append(node)
    customers = unchecked = 0
    findings: list[Finding] = []
    for lane in range(LANE_COUNT):
        numbers = [shard for shard in range(SHARD_COUNT) if lane_of(shard) == lane]
        async with db.transaction() as tx:
            owners = await reconciliation.counted_owners(tx, numbers, tenant_id=tenant_id)
        for shard in sorted({one.shard for one in owners}):
            listed = [one for one in owners if one.shard == shard]
            found = await _of_shard(db, stream, owners=listed, nodes=nodes)
            if found is None:
                unchecked += 1
            else:
                customers += len(listed)
                findings += found
    return DriftReport(customers=customers, unchecked_shards=unchecked, findings=tuple(findings))


async def _of_shard(
    db: Database, stream: UsageStream, *, owners: Sequence[CountedOwner], nodes: Mapping[str, Sequence[str]]
) -> list[Finding] | None:
    """What differs in one shard; None where it could not be compared."""
    shard, names = owners[0].shard, list[str]()
    for one in owners:
        keys = customer_keys(one.tenant_id, one.customer_id)
        names += [
            keys.snapshot,
            keys.counters,
            *(f"{keys.counters}/{node}" for node in nodes.get(keys.counters, ())),
        ]
    captured = await stream.capture_hashes(shard, names)
    if not captured.is_built or not await _is_flushed(db, shard, captured=captured):
        return None
    subjects = [subject for one in owners if (subject := _subject(one, captured)) is not None]
    async with db.transaction(isolation="repeatable_read") as tx:
        expected = await recounted(tx, subjects, upto=captured.last)
    findings: list[Finding] = []
    for subject in subjects:
        keys = customer_keys(subject.owner.tenant_id, subject.owner.customer_id)
        there = {
            name.removeprefix(keys.counters).lstrip("/"): {key.decode(): value for key, value in fields.items()}
            for name, fields in captured.by_name.items()
            if name == keys.counters or name.startswith(f"{keys.counters}/")
        }
        count, told = Recount(subject), expected[subject.owner]
        for node in sorted({*told, *there}):
            findings += _differences(
                subject,
                node,
                told=count.amounts(node, told.get(node, {})),
                there=count.amounts(node, there.get(node, {})),
            )
    return findings


async def _is_flushed(db: Database, shard: int, *, captured: Hashes) -> bool:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + _DRAIN_WAIT_S
    while True:
        async with db.transaction() as tx:
            mark = (await shards.watermarks(tx, [shard]))[shard]
        if mark >= captured.last or loop.time() >= until_s:
            return mark >= captured.last
        await asyncio.sleep(_DRAIN_LOOK_S)


def _subject(owner: CountedOwner, captured: Hashes) -> Subject | None:
    """The customer under the snapshot that Redis had; None where there was none."""
    fields = captured.by_name[customer_keys(owner.tenant_id, owner.customer_id).snapshot]
    if not fields:
        return None
    named = {name.decode(): value for name, value in fields.items()}
    offset_ms = int(named["off"])
    snapshot = Snapshot(
        version=int(named["v"]),
        status=Status(named["st"].decode()),
        clock_offset_ms=offset_ms,
        features={name[2:]: _ENTITLEMENT.decode(value) for name, value in named.items() if name[:2] == "f:"},
        budgets={name[2:]: _BUDGET.decode(value) for name, value in named.items() if name[:2] == "b:"},
    )
    return Subject(
        owner=Owner(tenant_id=owner.tenant_id, customer_id=owner.customer_id),
        snapshot=snapshot,
        instant_ms=to_ms(captured.at) + offset_ms,
        started_ms=to_ms(owner.started_at or EPOCH),
    )


def _differences(
    subject: Subject, node: str, *, told: Mapping[str, int], there: Mapping[str, int]
) -> list[Finding]:
    return [
        Finding(
            law=COUNTER_LAW,
            tenant_id=subject.owner.tenant_id,
            customer_id=subject.owner.customer_id,
            grant_id=f"{name} of {node if node != CUSTOMER else 'the customer'}",
            currency="",
            difference_nanos=told.get(name, 0) - there.get(name, 0),
        )
        for name in sorted({*told, *there})
        if told.get(name, 0) != there.get(name, 0)
    ]
