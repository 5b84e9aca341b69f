"""Collect: charge what is due, and listen to the processor.

An attempt is claimed in Postgres before the processor is asked, and its outcome is written after. Between the
two lies everything that can go wrong, and one rule answers it: whoever finds a claimed attempt whose lease has
ended looks for it at the processor by its name, and asks again under the same name if it is not there. So a lost
answer, a crash and a kill -9 charge once.

After `KEY_LIFETIME` the processor may have forgotten the name; then an attempt that cannot be found counts as
declined and the next one gets a name of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from billing_core.errors import NotFound, Unavailable
from billing_core.flows.money.receive import News, hear
from billing_core.payments.processor import ChargeResult, Outcome, Processor
from billing_core.store.database import Database
from billing_core.store.money import payment as payments
from billing_core.store.money.payment import Claim

LEASE = timedelta(minutes=2)
"""How long one process may take for an attempt before another resumes it."""

KEY_LIFETIME = timedelta(hours=20)
"""How long an attempt is asked for under its name: Stripe keeps one for a day."""

LOOK_BACK = timedelta(hours=1)
"""How much earlier than an attempt its charge is looked for, should clocks disagree."""

CHARGED_TOGETHER = 16
ATTEMPTS = 4


async def collect_due(db: Database, processor: Processor | None, *, now: datetime, attempts: int = ATTEMPTS) -> int:
    """Make every attempt that is due; how many came to an outcome. `now` is real time.

    Without a processor nothing is charged. Where the processor does not answer, the rest waits for the next run.
    """
    settled = 0
    while processor is not None:
        async with db.transaction() as tx:
            claims = await payments.claim(
                tx, now=now, lease_ms=LEASE // timedelta(milliseconds=1), most=CHARGED_TOGETHER
            )
        heard = await _attempt_all(db, processor, claims=claims, attempts=attempts, now=now)
        settled += sum(heard)
        if not any(heard):
            break
    return settled


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """What the processor sent, byte by byte, and its signature."""

    payload: bytes
    signature: str


async def apply_webhook(
    db: Database, processor: Processor, *, webhook: Webhook, now: datetime, attempts: int = ATTEMPTS
) -> bool:
    """Verify a webhook and apply it, once per event id; whether it changed what is known. `now` is real time.

    Events about what is not ours are kept and change nothing.

    Raises: Unauthenticated; InvalidInput; Conflict for money that nobody asked for any more.
    """
    event = processor.event_of(webhook.payload, signature=webhook.signature)
    async with db.transaction() as tx:
        if not await payments.keep_webhook(tx, event, now=now) or event.result is None:
            return False
        news = News(
            tenant_id=event.tenant_id,
            payment_id=event.payment_id,
            attempt=event.attempt,
            result=event.result,
        )
        try:
            before = await payments.by_id(tx, tenant_id=event.tenant_id, payment_id=event.payment_id)
        except NotFound:
            return False
        return await hear(tx, news, attempts=attempts, now=now) != before


async def _attempt_all(
    db: Database, processor: Processor, *, claims: Sequence[Claim], attempts: int, now: datetime
) -> list[bool]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(attempt(db, processor, claim=claim, attempts=attempts, now=now)) for claim in claims
        ]
    return [task.result() for task in tasks]


async def attempt(db: Database, processor: Processor, *, claim: Claim, attempts: int, now: datetime) -> bool:
    """Make or resume one attempt and write what became of it; False where that is not known."""
    try:
        result = await _ask(processor, claim, now=now)
    except Unavailable:
        async with db.transaction() as tx:
            await payments.note_unknown(tx, claim, code="outcome_unknown")
        return False
    news = News(tenant_id=claim.tenant_id, payment_id=claim.payment_id, attempt=claim.attempt, result=result)
    async with db.transaction() as tx:
        await hear(tx, news, attempts=attempts, now=now)
    return True


async def _ask(processor: Processor, claim: Claim, *, now: datetime) -> ChargeResult:
    if claim.processor_id:
        return await processor.read(claim.processor_id)
    if claim.resumed:
        found = await processor.find(claim.order, since=claim.attempted_at - LOOK_BACK)
        if found is not None:
            return found
        if now - claim.attempted_at > KEY_LIFETIME:
            return ChargeResult(outcome=Outcome.DECLINED, failure_code="outcome_unknown")
    return await processor.charge(claim.order)
