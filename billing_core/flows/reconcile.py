"""Reconcile: prove that no nano is lost and none is there twice, and say where if one is.

For every grant, at one moment of its shard:

    granted = spent and lapsed in Postgres + taken but not flushed + held + remaining (+ not yet applied)

Redis and Postgres cannot be read at one moment, so the moment is chosen in Redis and found again in Postgres. First
the customers and grants are noted; then each shard is captured in one step (wallets, whole stream, its last id L);
then Postgres is read. What has reached Postgres by then from behind L is taken off again, and what stood in the
captured stream but has not reached Postgres is added. So the difference is exact while decisions, flushes, top-ups
and lapses go on; it is zero, or it is real. Grants that are born meanwhile are the next reconcile's.

Worked example: granted 100. Captured: remaining 60, held 10, an entry of 5 at L = 7-0. Postgres says spent 28 with
watermark 8-0, and 3 of those came from 8-0, behind L. Spent at the capture were 25, and nothing of the captured
stream is missing: 25 + 0 + 10 + 60 = 95, so 5 nanos have vanished.

Also checked: the laws of the books (`sql/invariants`), and parked entries, which nobody has looked at yet. And
told: what was lost when a server took over that had less. That is no finding, for it all adds up without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from billing_core.adapters.usage_stream import Capture, UsageStream
from billing_core.contract.keys import LANE_COUNT, SHARD_COUNT, lane_of
from billing_core.contract.usage_event import StreamPosition, decode_entries
from billing_core.errors import InvariantBroken
from billing_core.store import reconciliation, usage
from billing_core.store import shard as shards
from billing_core.store.database import Database
from billing_core.store.reconciliation import Breach, GrantBalance, MovedAfter, WalletOwner
from billing_core.store.shard import Takeover
from billing_core.store.usage import ParkedEntry

WALLET_LAW = "what_is_granted_is_spent_held_or_remaining"
PARKED_LAW = "every_entry_is_written"

GrantKey: TypeAlias = tuple[str, str]
"""Tenant and grant."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not add up: by which law, whose, which grant (or other subject), and by how much."""

    law: str
    tenant_id: str
    customer_id: str
    grant_id: str
    currency: str
    difference_nanos: int


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that granted amounts are in, at the moment of their capture. Units: nanos."""

    granted_nanos: int = 0
    spent_nanos: int = 0
    lapsed_nanos: int = 0
    unflushed_nanos: int = 0
    held_nanos: int = 0
    remaining_nanos: int = 0
    pending_nanos: int = 0

    @property
    def difference_nanos(self) -> int:
        """What was granted and is nowhere; negative where more is there than was granted."""
        gone = self.spent_nanos + self.lapsed_nanos + self.unflushed_nanos
        return self.granted_nanos - gone - self.held_nanos - self.remaining_nanos - self.pending_nanos


class ReconcileReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. Sums add up amounts of all currencies; there are no findings if and only if all is well.

    The wallets of unbuilt shards are not there yet; what they will have counts as pending.
    """

    grants: int
    granted_nanos: int
    spent_nanos: int
    lapsed_nanos: int
    unflushed_nanos: int
    held_nanos: int
    remaining_nanos: int
    pending_nanos: int
    difference_nanos: int
    unbuilt_shards: int
    parked_entries: int
    findings: tuple[Finding, ...]
    losses: tuple[Loss, ...] = ()


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What a server that took over a shard did not have. Stream ids are text, as Redis writes them.

    It kept everything up to `kept`, and Postgres had everything up to `flushed`: what lies between is repaired, and
    so are the `missed_acts`. Beyond both, and before `noticed_at`, decisions are lost; `lost_ids` (`tenant:event`)
    are those that the gateways say they have answered, and which nobody has.
    """

    shard: int
    noticed_at: datetime
    kept: str
    flushed: str
    missed_acts: int
    lost_decisions: int
    lost_ids: tuple[str, ...]


class _Lane(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one lane."""

    sums: list[Sums]
    findings: list[Finding]
    unbuilt_shards: int


async def reconcile(db: Database, stream: UsageStream, *, tenant_id: str = "") -> ReconcileReport:
    """Compare the wallets of one tenant, or of all, with Postgres. Reads only."""
    lanes = [await _balance(db, stream, lane=lane, tenant_id=tenant_id) for lane in range(LANE_COUNT)]
    async with db.transaction(isolation="repeatable_read") as tx:
        breaches = await reconciliation.breaches(tx, tenant_id=tenant_id)
        parked = await usage.parked(tx, tenant_id=tenant_id)
        takeovers = await shards.takeovers_that_cost(tx)
    sums = [one for lane in lanes for one in lane.sums]
    return ReconcileReport(
        grants=len(sums),
        granted_nanos=sum(one.granted_nanos for one in sums),
        spent_nanos=sum(one.spent_nanos for one in sums),
        lapsed_nanos=sum(one.lapsed_nanos for one in sums),
        unflushed_nanos=sum(one.unflushed_nanos for one in sums),
        held_nanos=sum(one.held_nanos for one in sums),
        remaining_nanos=sum(one.remaining_nanos for one in sums),
        pending_nanos=sum(one.pending_nanos for one in sums),
        difference_nanos=sum(one.difference_nanos for one in sums),
        unbuilt_shards=sum(lane.unbuilt_shards for lane in lanes),
        parked_entries=len(parked),
        findings=(
            *(finding for lane in lanes for finding in lane.findings),
            *(_told(law, one) for law, rows in breaches.items() for one in rows),
            *(_parked(one) for one in parked),
        ),
        losses=tuple(
            loss for one in takeovers if (loss := _loss(one, tenant_id=tenant_id)).lost_decisions or one.is_behind
        ),
    )


async def _balance(db: Database, stream: UsageStream, *, lane: int, tenant_id: str) -> _Lane:
    numbers = [shard for shard in range(SHARD_COUNT) if lane_of(shard) == lane]
    async with db.transaction() as tx:
        owners = await reconciliation.owners(tx, numbers, tenant_id=tenant_id)
        before = {
            _key(one): one.is_applied for one in await reconciliation.balances(tx, numbers, tenant_id=tenant_id)
        }
    captures = await _capture(stream, owners)
    async with db.transaction(isolation="repeatable_read") as tx:
        marks = await shards.watermarks(tx, sorted(captures))
        after = {_key(one): one for one in await reconciliation.balances(tx, numbers, tenant_id=tenant_id)}
        lasts = {shard: capture.last for shard, capture in captures.items()}
        moved = {_key(one): one for one in await reconciliation.moved_after(tx, lasts, tenant_id=tenant_id)}
    wallets = _wallets(captures, owners)
    unflushed = _unflushed(captures, marks)
    found = _Lane(sums=[], findings=[], unbuilt_shards=sum(not one.is_built for one in captures.values()))
    for key in before.keys() & after.keys():
        grant, later = after[key], moved.get(key)
        wallet = wallets.get(key)
        parts = Sums(
            granted_nanos=grant.amount_nanos,
            spent_nanos=grant.spent_nanos - (later.spent_nanos if later else 0),
            lapsed_nanos=grant.lapsed_nanos - (later.lapsed_nanos if later else 0),
            unflushed_nanos=unflushed.get(key, 0),
            held_nanos=wallet.held_nanos if wallet else 0,
            remaining_nanos=wallet.remaining_nanos if wallet else 0,
        )
        if not captures[grant.shard].is_built or (wallet is None and not before[key]):
            parts = msgspec.structs.replace(parts, pending_nanos=parts.difference_nanos)
        found.sums.append(parts)
        if parts.difference_nanos:
            found.findings.append(_finding(grant, parts.difference_nanos))
    found.findings.extend(_stranger(key, wallets[key]) for key in wallets.keys() - after.keys())
    return found


class _Wallet(msgspec.Struct, kw_only=True):
    """What a wallet says of one grant."""

    customer_id: str
    remaining_nanos: int = 0
    held_nanos: int = 0


async def _capture(stream: UsageStream, owners: Sequence[WalletOwner]) -> dict[int, Capture]:
    names: dict[int, list[tuple[str, str]]] = {}
    for owner in owners:
        names.setdefault(owner.shard, []).append((owner.tenant_id, owner.customer_id))
    return {shard: await stream.capture(shard, listed) for shard, listed in names.items()}


def _wallets(captures: Mapping[int, Capture], owners: Sequence[WalletOwner]) -> dict[GrantKey, _Wallet]:
    wallets: dict[GrantKey, _Wallet] = {}
    places = {shard: iter(capture.wallets) for shard, capture in captures.items()}
    for owner in owners:
        for name, text in next(places[owner.shard]).items():
            field, _, grant_id = name.decode().partition(":")
            if field in {"r", "h"}:
                fresh = _Wallet(customer_id=owner.customer_id)
                wallet = wallets.setdefault((owner.tenant_id, grant_id), fresh)
                if field == "r":
                    wallet.remaining_nanos += int(text)
                else:
                    wallet.held_nanos += int(text)
    return wallets


def _unflushed(captures: Mapping[int, Capture], marks: Mapping[int, StreamPosition]) -> dict[GrantKey, int]:
    """What the captured streams held behind what Postgres has. An entry that nobody can read counts for nothing."""
    taken: dict[GrantKey, int] = {}
    for shard, capture in captures.items():
        for stream_id, fields in capture.entries:
            if StreamPosition.parse(stream_id.decode()) <= marks[shard]:
                continue
            try:
                entries = decode_entries(stream_id, dict(zip(fields[::2], fields[1::2], strict=True)))
            except (InvariantBroken, ValueError):
                continue
            for entry in entries:
                for movement in entry.movements:
                    key = entry.body.tenant_id, movement.grant_id
                    taken[key] = taken.get(key, 0) + movement.nanos
    return taken


def _key(row: GrantBalance | MovedAfter) -> GrantKey:
    return row.tenant_id, row.grant_id


def _finding(grant: GrantBalance, difference_nanos: int) -> Finding:
    return Finding(
        law=WALLET_LAW,
        tenant_id=grant.tenant_id,
        customer_id=grant.customer_id,
        grant_id=grant.grant_id,
        currency=grant.currency,
        difference_nanos=difference_nanos,
    )


def _stranger(key: GrantKey, wallet: _Wallet) -> Finding:
    """A grant that a wallet knows and nobody has ever granted."""
    return Finding(
        law=WALLET_LAW,
        tenant_id=key[0],
        customer_id=wallet.customer_id,
        grant_id=key[1],
        currency="",
        difference_nanos=-wallet.remaining_nanos - wallet.held_nanos,
    )


def _told(law: str, breach: Breach) -> Finding:
    return Finding(
        law=law,
        tenant_id=breach.tenant_id,
        customer_id=breach.customer_id,
        grant_id=breach.subject,
        currency=breach.currency,
        difference_nanos=breach.difference_nanos,
    )


def _loss(takeover: Takeover, *, tenant_id: str) -> Loss:
    """As the tenant may see it: of the decisions only its own."""
    names = tuple(name for name in takeover.lost_ids if not tenant_id or name.startswith(f"{tenant_id}:"))
    return Loss(
        shard=takeover.shard,
        noticed_at=takeover.noticed_at,
        kept=str(takeover.kept),
        flushed=str(takeover.flushed),
        missed_acts=takeover.missed_acts,
        lost_decisions=len(names),
        lost_ids=names,
    )


def _parked(entry: ParkedEntry) -> Finding:
    return Finding(
        law=PARKED_LAW,
        tenant_id=entry.tenant_id,
        customer_id="",
        grant_id=f"shard {entry.shard}, entry {entry.stream_ms}-{entry.stream_seq}: {entry.reason}",
        currency="",
        difference_nanos=0,
    )
