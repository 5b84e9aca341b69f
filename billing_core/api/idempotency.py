"""A retry gets the first answer back.

A POST may carry an `Idempotency-Key`. The first request claims the key; its answer is kept with the claim, and
every later request with the same key, route and content gets those bytes again, marked `Idempotency-Replayed:
true`. The same key with anything else is a conflict. A request that failed wrote nothing, so nothing is kept of
it and a retry is tried anew. Answers are kept for a week.

Where the act is one transaction, claim, act and answer commit together: a twin that comes meanwhile waits for that
transaction and then finds the answer, or the key free. Where it is not, the claim is committed first and a twin is
told to ask again; a claim whose process died is taken over after a minute (and where it was only slow, the act is
repeated under its key, which does no harm, and the second answer is kept).

Credentials are shown once and kept nowhere, and still a retry must show the same one. So such a secret is not drawn
but derived: HMAC of the request under the bearer token of who asks, of which only a digest is stored. The kept body
has a zero byte in the secret's place, which no JSON text contains.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import msgspec

from billing_core.errors import IdempotencyConflict, StillRunning
from billing_core.store.database import Database, Transaction
from billing_core.store.setup.tenant import Claim, KeptAnswer, claim_answer, keep_answer, release_answer
from billing_core.values.invariant import invariant

GIVEN_UP_AFTER = timedelta(minutes=1)
_HOLE = b"\0"
_SECRET_BYTES = 24


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request under its key. `status` is what a success answers; `secret_of` makes the secret of an instant."""

    claim: Claim
    now: datetime
    status: int
    secret_of: Callable[[datetime], str]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An answer's status and bytes, and whether they are those of an earlier request."""

    status: int
    body: bytes
    replayed: bool = False


def request_digest(*parts: bytes) -> str:
    """What must be the same in a retry."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def derived_secret(prefix: str, *, bearer: str, claim: Claim, at: datetime) -> str:
    """A credential of 192 bits that only who holds the bearer token can make again."""
    words = msgspec.json.encode((prefix, claim.tenant_id, claim.route, claim.key, at))
    mac = hmac.digest(bearer.encode(), words, hashlib.sha256)[:_SECRET_BYTES]
    return f"{prefix}_{base64.urlsafe_b64encode(mac).decode()}"


async def once_within(
    database: Database, attempt: Attempt, *, act: Callable[[Transaction], Awaitable[bytes]]
) -> Told:
    """Act and keep the answer in one transaction, or give the kept one.

    Raises: IdempotencyConflict; whatever the act raises, and then nothing is kept.
    """
    async with database.transaction() as tx:
        known = await _claim(tx, attempt)
        if known is not None:
            return _replay(known, attempt)
        body = await act(tx)
        invariant(await _keep(tx, attempt, body=body), "nobody takes over a claim that is not committed")
    return Told(status=attempt.status, body=body)


async def once_across(database: Database, attempt: Attempt, *, act: Callable[[], Awaitable[bytes]]) -> Told:
    """Claim, act through other transactions, and keep the answer, or give the kept one.

    Raises: IdempotencyConflict; StillRunning for a twin; whatever the act raises, and then the key is free again.
    """
    async with database.transaction() as tx:
        known = await _claim(tx, attempt)
    if known is not None:
        return _replay(known, attempt)
    try:
        body = await act()
    except BaseException:
        async with database.transaction() as tx:
            await release_answer(tx, attempt.claim, claimed_at=attempt.now)
        raise
    async with database.transaction() as tx:
        await _keep(tx, attempt, body=body)
    return Told(status=attempt.status, body=body)


async def _claim(tx: Transaction, attempt: Attempt) -> KeptAnswer | None:
    known = await claim_answer(tx, attempt.claim, now=attempt.now, given_up_at=attempt.now - GIVEN_UP_AFTER)
    if known is None:
        return None
    if (known.route, known.digest) != (attempt.claim.route, attempt.claim.digest):
        raise IdempotencyConflict("this key was used for another request", field="Idempotency-Key")
    if known.status == 0:
        raise StillRunning("the first request under this key is being worked on", field="Idempotency-Key")
    return known


async def _keep(tx: Transaction, attempt: Attempt, *, body: bytes) -> bool:
    secret = attempt.secret_of(attempt.now).encode()
    kept = body.replace(secret, _HOLE) if secret else body
    return await keep_answer(tx, attempt.claim, claimed_at=attempt.now, status=attempt.status, body=kept)


def _replay(known: KeptAnswer, attempt: Attempt) -> Told:
    secret = attempt.secret_of(known.created_at).encode()
    return Told(status=known.status, body=known.body.replace(_HOLE, secret), replayed=True)
