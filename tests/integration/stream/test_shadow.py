"""Shadow mode on its way to Postgres: recorded, and neither usage nor money."""

from __future__ import annotations

from billing_core.flows.reconcile import reconcile
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works


async def test_what_would_have_been_refused_is_a_row_and_costs_nothing(works: Works) -> None:
    """The request that the wallet could not pay was let through; the one that it could was charged as always."""
    (grant,) = await works.customer("c", nanos=[10 * NANOS_PER_TOKEN])
    paid = await works.act("consume", "c", [("input_tokens", 4)], path="team:ml", is_shadow=True)
    spared = await works.act(
        "consume", "c", [("requests", 1), ("input_tokens", 7)], path="team:ml/key:k", is_shadow=True
    )
    assert (paid[0], paid[12]) == ("allowed", "")
    assert (spared[0], spared[12]) == ("allowed", "insufficient_balance")
    await works.flush()
    rows = await works.raw.fetch("SELECT * FROM shadow_decision ORDER BY part")
    assert [(row["feature"], row["quantity"], row["reason"], row["path"]) for row in rows] == [
        ("requests", 1, "insufficient_balance", "team:ml/key:k"),
        ("input_tokens", 7, "insufficient_balance", "team:ml/key:k"),
    ]
    event = await works.raw.fetchrow("SELECT * FROM usage_event")
    assert (event["quantity"], event["path"], event["currency"]) == (4, "team:ml", "USD")
    assert event["rated_nanos"] == event["charged_nanos"] == 4 * NANOS_PER_TOKEN
    assert await works.spent(grant) == 4 * NANOS_PER_TOKEN
    assert (await reconcile(works.db, works.stream)).findings == ()
