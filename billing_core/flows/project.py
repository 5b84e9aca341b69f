"""Project: the relay. What changed in Postgres is told to Redis, and forgotten once it is told.

A row of the outbox only names what to look at. The relay locks the subject, reads what is true now, tells it, and
deletes the row in the same transaction; where it dies in between, the row is still there and the telling is
repeated without harm. Rows of a shard that is not built wait, and stand in nobody's way. Who must not be answered
before the gateway knows (a top-up) has the customer's rows told at once, by the same act.

A snapshot knows only so much of the future (edges of windows); `push_stale` has it told again before that ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from billing_core.adapters.projection import (
    Act,
    GrantFacts,
    Projection,
    Refused,
    apply_grant,
    lapse_grant,
    project_snapshot,
)
from billing_core.catalog.catalog import PlanTerms, PlanVersion
from billing_core.entitlements.resolution import CustomerFacts, Resolution, resolve
from billing_core.entitlements.source import NOTHING, Subscribed
from billing_core.store import outbox, projection
from billing_core.store import shard as shards
from billing_core.store.database import Database, Transaction
from billing_core.store.money import grant as grants
from billing_core.store.money.grant import GrantName, GrantRow
from billing_core.store.outbox import OutboxKind, OutboxRow
from billing_core.store.projection import Owner, PlanName, SnapshotFacts
from billing_core.values.clock import next_ms, to_ms
from billing_core.values.ids import new_id
from billing_core.wallets.grant import GrantKind, LapseReason

_UNBUILT_DELAY_MS = 200
_REFUSED_DELAY_MS = 5_000
_KNOWN_PLANS = 1_000
_AT_ONCE_S = 2
_SCRIPTED = frozenset({OutboxKind.SNAPSHOT, OutboxKind.GRANT, OutboxKind.LAPSE})


class RelayTally:
    """What a relay has done, for whoever collects metrics; all counts only grow."""

    def __init__(self) -> None:
        self.applied_rows = 0
        self.postponed_rows = 0
        self.refused: dict[str, int] = {}


class PlanMemory:
    """Terms of plan versions that were read before. A version never changes, so it is read once."""

    def __init__(self) -> None:
        self._terms: dict[PlanName, PlanTerms] = {}

    async def recall(self, tx: Transaction, facts: Sequence[SnapshotFacts]) -> dict[PlanName, PlanTerms]:
        """The terms of every plan that these customers are on."""
        wanted = {name for one in facts for name in plans_of(one)}
        missing = sorted(wanted - self._terms.keys(), key=str)
        if missing:
            self._terms |= await projection.terms_of(tx, missing)
        found = {name: self._terms[name] for name in wanted}
        if len(self._terms) > _KNOWN_PLANS:
            self._terms.clear()
        return found


def plans_of(facts: SnapshotFacts) -> list[PlanName]:
    """Which plan versions the customer is on, and comes to."""
    named = (facts.plan_code, facts.plan_version), (facts.next_plan_code, facts.next_plan_version)
    return [
        PlanName(tenant_id=facts.tenant_id, code=code, version=version)
        for code, version in named
        if code is not None and version is not None
    ]


class Resolver:
    """Snapshots of many customers at one instant.

    Those of one plan that began together and have nothing else are resolved once; who has add-ons, trials,
    overrides or budgets is resolved alone.
    """

    def __init__(self, plans: Mapping[PlanName, PlanTerms], *, now: datetime) -> None:
        self._plans = plans
        self._now = next_ms(now)
        self._known: dict[tuple[object, ...], Resolution] = {}

    def resolution_of(self, facts: SnapshotFacts) -> Resolution:
        """The customer's snapshot; a subscription that starts later entitles to nothing yet."""
        if facts.holdings is not None:
            return self._resolve(facts)
        calendar = facts.started_at, facts.anchor_at, facts.time_zone, facts.clock_offset_ms
        changes = facts.changed_at, facts.next_at, facts.next_anchor_at, facts.ends_at
        likeness = (facts.tenant_id, *plans_of(facts), *calendar, *changes)
        known = self._known.get(likeness)
        if known is None:
            known = self._known[likeness] = self._resolve(facts)
        own = msgspec.structs.replace(known.snapshot, version=facts.version, status=facts.status)
        return Resolution(snapshot=own, stale_at=known.stale_at)

    def subscribed_of(self, facts: SnapshotFacts) -> Subscribed | None:
        """The subscription as it is in force: on the plan that follows, where its instant has come.

        What is canceled ends with its period, also while the bill of that period is not written.
        """
        now, plans = self.now_of(facts), plans_of(facts)
        started_at, anchor_at, time_zone = facts.started_at, facts.anchor_at, facts.time_zone
        if not plans or started_at is None or anchor_at is None or time_zone is None or started_at > now:
            return None
        if facts.ends_at is not None and facts.ends_at <= now:
            return None
        plan, changed_at = plans[0], facts.changed_at
        if facts.next_at is not None and facts.next_at <= now and facts.next_anchor_at is not None:
            plan, changed_at, anchor_at = plans[1], facts.next_at, facts.next_anchor_at
        return Subscribed(
            plan=PlanVersion(version=plan.version, terms=self._plans[plan]),
            started_at=started_at,
            anchor_at=anchor_at,
            time_zone=time_zone,
            changed_at=changed_at,
        )

    def now_of(self, facts: SnapshotFacts) -> datetime:
        """What time it is for the customer's tenant, in whole milliseconds as decisions tell it."""
        return self._now + timedelta(milliseconds=facts.clock_offset_ms)

    def _resolve(self, facts: SnapshotFacts) -> Resolution:
        customer = CustomerFacts(
            version=facts.version,
            status=facts.status,
            clock_offset_ms=facts.clock_offset_ms,
            time_zone=facts.customer_zone,
            since_at=facts.customer_since,
        )
        now, subscribed = self.now_of(facts), self.subscribed_of(facts)
        resolved = resolve(customer, subscribed, holdings=facts.holdings or NOTHING, now=now)
        told = facts.started_at, facts.next_at, facts.ends_at, resolved.stale_at
        coming = [at for at in told if at is not None and at > now]
        return Resolution(snapshot=resolved.snapshot, stale_at=min(coming, default=None))


def grant_facts(row: GrantRow) -> GrantFacts:
    """The grant as the scripts want it."""
    return GrantFacts(
        tenant_id=row.tenant_id,
        customer_id=row.customer_id,
        grant_id=row.grant_id,
        currency=row.currency,
        amount_nanos=row.amount_nanos,
        priority=row.priority,
        effective_ms=to_ms(row.effective_at),
        expires_ms=0 if row.expires_at is None else to_ms(row.expires_at),
        is_paid=row.kind is GrantKind.PAID,
        created_ms=to_ms(row.created_at),
        is_overdraft=row.kind is GrantKind.OVERDRAFT,
        features=row.features,
    )


class Relay:
    """One relay: its doors, its memory of plans, its counts."""

    def __init__(self, db: Database, redis: Projection, *, tally: RelayTally) -> None:
        self._db = db
        self._redis = redis
        self._tally = tally
        self.plans = PlanMemory()

    async def project(self, *, now: datetime, most: int) -> int:
        """Tell the oldest changes, up to `most`; how many rows were taken. `now` is real time."""
        async with self._db.transaction() as tx:
            rows = await outbox.take(tx, most=most)
            if not rows:
                return 0
            return await self._settle(tx, rows, now=now)

    async def tell_customer(self, *, tenant_id: str, customer_id: str, now: datetime) -> bool:
        """Tell all that has changed of one customer before anybody is answered; whether the gateway knows it all.

        Raises: what Postgres and Redis raise where they do not answer in a moment; then the rows are told later.
        """
        async with asyncio.timeout(_AT_ONCE_S), self._db.transaction() as tx:
            rows = await outbox.take_of_customer(
                tx, tenant_id=tenant_id, customer_id=customer_id, wait_ms=_AT_ONCE_S * 1_000
            )
            return not rows or await self._settle(tx, rows, now=now) == len(rows)

    async def _settle(self, tx: Transaction, rows: Sequence[OutboxRow], *, now: datetime) -> int:
        """Tell rows that are locked, forget those that were told and postpone the others; how many were told."""
        waiting, refused = await self._tell(tx, rows, now=now)
        done = {row.outbox_id for row in rows} - waiting - refused
        await outbox.delete(tx, sorted(done))
        if waiting:
            await outbox.postpone(tx, sorted(waiting), delay_ms=_UNBUILT_DELAY_MS)
        if refused:
            await outbox.postpone(tx, sorted(refused), delay_ms=_REFUSED_DELAY_MS)
        self._tally.applied_rows += len(done)
        self._tally.postponed_rows += len(waiting) + len(refused)
        return len(done)

    async def push_stale(self, *, now: datetime, most: int) -> int:
        """Ask for snapshots whose future comes near its end to be told again; how many."""
        async with self._db.transaction() as tx:
            return await projection.push_stale(tx, now=now, most=most)

    async def _tell(
        self, tx: Transaction, rows: Sequence[OutboxRow], *, now: datetime
    ) -> tuple[set[int], set[int]]:
        """Tell all; the rows whose shard is not built, and the rows that a script refused."""
        digests = sorted({row.subject for row in rows if row.kind is OutboxKind.KEY})
        await self._redis.put_credentials(await projection.credentials(tx, digests) if digests else {})
        tenants = sorted({row.tenant_id for row in rows if row.kind is OutboxKind.METERS})
        for tenant_id, meters in (await projection.meters_of(tx, tenants) if tenants else {}).items():
            await self._redis.put_meters(tenant_id, meters)
        scripted = [row for row in rows if row.kind in _SCRIPTED]
        acts = await self._acts(tx, scripted, now=now)
        told = [(row, acts[_subject(row)]) for row in scripted if _subject(row) in acts]
        replies = await self._redis.run([act for _, act in told])
        await shards.tell(tx, self._redis.take_told())
        waiting, refused = set[int](), set[int]()
        applied: list[GrantName] = []
        for (row, _), reply in zip(told, replies, strict=True):
            if isinstance(reply, Refused):
                (waiting if reply.is_unbuilt else refused).add(row.outbox_id)
                self._tally.refused[reply.words] = self._tally.refused.get(reply.words, 0) + 1
            elif row.kind is OutboxKind.GRANT:
                applied.append(GrantName(tenant_id=row.tenant_id, grant_id=row.subject))
        if applied:
            await grants.mark_applied(tx, applied, at=now)
        return waiting, refused

    async def _acts(
        self, tx: Transaction, rows: Sequence[OutboxRow], *, now: datetime
    ) -> dict[tuple[str, str, str], Act]:
        """What is to be told of each subject; nothing for a subject that is gone or needs no telling."""
        acts = await self._snapshot_acts(tx, rows, now=now)
        names = {
            GrantName(tenant_id=row.tenant_id, grant_id=row.subject)
            for row in rows
            if row.kind is not OutboxKind.SNAPSHOT
        }
        for row in await grants.by_names(tx, sorted(names, key=str)) if names else []:
            facts = grant_facts(row)
            if row.applied_at is None:
                acts[OutboxKind.GRANT, row.tenant_id, row.grant_id] = apply_grant(facts)
            event_id, limit_nanos = new_id("lap", now=now), row.lowered_nanos or 0
            lapse = lapse_grant(facts, reason=_reason(row), event_id=event_id, limit_nanos=limit_nanos)
            acts[OutboxKind.LAPSE, row.tenant_id, row.grant_id] = lapse
        return acts

    async def _snapshot_acts(
        self, tx: Transaction, rows: Sequence[OutboxRow], *, now: datetime
    ) -> dict[tuple[str, str, str], Act]:
        owners = {
            Owner(tenant_id=row.tenant_id, customer_id=row.customer_id)
            for row in rows
            if row.kind is OutboxKind.SNAPSHOT
        }
        if not owners:
            return {}
        facts = await projection.facts_of(tx, sorted(owners))
        resolver = Resolver(await self.plans.recall(tx, facts), now=now)
        acts: dict[tuple[str, str, str], Act] = {}
        stale: list[tuple[Owner, datetime | None]] = []
        for one in facts:
            resolved = resolver.resolution_of(one)
            stale.append((Owner(tenant_id=one.tenant_id, customer_id=one.customer_id), resolved.stale_at))
            acts[OutboxKind.SNAPSHOT, one.tenant_id, one.customer_id] = project_snapshot(
                one.tenant_id, one.customer_id, snapshot=resolved.snapshot
            )
        await projection.note_staleness(tx, stale)
        return acts


def _reason(row: GrantRow) -> LapseReason:
    """Why something lapses now: an overdraft that is above its new limit is lowered before it may expire."""
    if row.voided_at is not None:
        return LapseReason.VOID
    if row.lowered_nanos is not None and row.amount_nanos - row.lapsed_nanos > row.lowered_nanos:
        return LapseReason.LOWER
    return LapseReason.EXPIRE


def _subject(row: OutboxRow) -> tuple[str, str, str]:
    return row.kind, row.tenant_id, row.customer_id if row.kind is OutboxKind.SNAPSHOT else row.subject
