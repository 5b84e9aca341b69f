"""A relay dies between Postgres and Redis, on either side of the telling; a grant is given once all the same."""

from __future__ import annotations

import pytest

from billing_core.flows.reconcile import reconcile
from tests.chaos.stream.conftest import Hands, dies, in_time
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works

TOKENS = 40


@pytest.mark.parametrize("point", ["grant-taken-not-told", "grant-told-not-noted"])
async def test_a_grant_whose_relay_died_is_given_once(works: Works, hands: Hands, point: str) -> None:
    """It is spent to its end between the two tellings, where the first one came through."""
    await works.customer("c")
    grant = await works.grant("c", TOKENS * NANOS_PER_TOKEN)
    await dies(await hands.start("relay", struck=(point, "SIGKILL")))
    assert await works.raw.fetchval("SELECT applied_at IS NULL FROM credit_grant"), "the telling is not noted"
    assert await works.count("outbox") == 1
    was_told = point == "grant-told-not-noted"
    assert (await works.consume("c", TOKENS))[0] == ("allowed" if was_told else "insufficient_balance")

    async def nothing_waits() -> bool:
        return await works.count("outbox") == 0

    await hands.start("relay,flush")
    await in_time(nothing_waits)
    replies = [(await works.consume("c", 1))[0] for _ in range(TOKENS + 2)]
    assert replies.count("allowed") == (0 if was_told else TOKENS)
    await in_time(works.drained)
    assert await works.spent(grant) == TOKENS * NANOS_PER_TOKEN
    report = await reconcile(works.db, works.stream)
    assert (report.findings, report.pending_nanos) == ((), 0)


async def test_a_lapse_whose_relay_died_takes_what_remains_once(works: Works, hands: Hands) -> None:
    """The second telling finds nothing left to take."""
    (grant,) = await works.customer("c", nanos=[TOKENS * NANOS_PER_TOKEN])
    await works.consume("c", 3)
    await works.raw.execute("UPDATE credit_grant SET voided_at = now()")
    await works.raw.execute("INSERT INTO outbox (kind, tenant_id, subject) VALUES ('lapse', 't', $1)", grant)
    await dies(await hands.start("relay", struck=("lapse-told-not-noted", "SIGKILL")))

    async def is_used_up() -> bool:
        told = await works.count("outbox") == 0
        return told and await works.raw.fetchval("SELECT ended_at IS NOT NULL FROM credit_grant")

    await hands.start("relay,flush")
    await in_time(is_used_up)
    assert await works.raw.fetchval("SELECT count(*) FROM movement WHERE kind = 'lapse'") == 1
    assert await works.raw.fetchval("SELECT lapsed_nanos FROM credit_grant") == (TOKENS - 3) * NANOS_PER_TOKEN
    assert (await reconcile(works.db, works.stream)).findings == ()
