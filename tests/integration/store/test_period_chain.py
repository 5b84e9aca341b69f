"""Periods of a subscription are a chain: no overlap and no gap can be written, whoever writes."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import pytest

from billing_core.store.query import Q

SETTING = """
INSERT INTO tenant (tenant_id, name, created_at) VALUES ('t', 't', now());
INSERT INTO customer (tenant_id, customer_id, name, shard, created_at) VALUES ('t', 'c', '', 0, now());
INSERT INTO plan_version VALUES ('t', 'plan', 1, '', '{}', now()), ('t', 'plan', 2, '', '{}', now());
INSERT INTO subscription (tenant_id, subscription_id, customer_id, plan_code, plan_version, state, started_at,
    anchor_at, time_zone, ended_at, created_at)
SELECT 't', name, 'c', 'plan', 1, 'ended', now(), now(), 'UTC', now(), now()
FROM unnest(ARRAY['one', 'two']) AS name;
"""
PERIOD = """
INSERT INTO billing_period (tenant_id, subscription_id, customer_id, start_at, end_at, follows_at, plan_code,
    plan_version, anchor_at, state, closed_at, recorded_until)
VALUES ('t', $1, 'c', $2, $3, $4, 'plan', 1, $2, 'closed', now(), now())
"""


def month(number: int) -> datetime:
    return datetime(2026, number, 1, tzinfo=UTC)


async def test_no_overlap_and_no_gap_can_be_written(postgres_url: str) -> None:
    """March follows January and February. What is wrong with a fourth period is said by the law that it breaks."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(SETTING)
        await connection.execute(PERIOD, "one", month(1), month(2), None)
        await connection.execute(PERIOD, "one", month(2), month(3), month(2))
        await connection.execute(PERIOD, "one", month(3), month(4), month(3))
        await connection.execute(PERIOD, "two", month(6), month(7), None)
        noon = month(2).replace(day=15)
        refused = {
            "a subscription has one first period": (month(5), month(6), None),
            "a period follows one of its subscription": (month(5), month(6), month(5)),
            "a period starts where the one that it follows ends": (month(5), month(6), month(4)),
            "no two periods end at one instant": (noon, month(3), None),
            "billing_period_pkey": (month(2), noon, month(2)),
            "a period ends after it starts": (month(4), month(4), month(4)),
        }
        for law, (start_at, end_at, follows_at) in refused.items():
            with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
                await connection.execute(PERIOD, "one", start_at, end_at, follows_at)
            assert refusal.value.as_dict()["constraint_name"] == law
        for change in ("end_at = '2026-02-20'", "end_at = '2026-04-20'"):
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await connection.execute(f"UPDATE billing_period SET {change} WHERE start_at = '2026-02-01Z'")
    finally:
        await connection.close()


async def test_a_period_that_is_opened_follows_the_one_that_ends_where_it_starts(postgres_url: str) -> None:
    """The query finds it; the first one of a subscription follows nothing."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(SETTING)
        await connection.execute(PERIOD, "one", month(1), month(2), None)
        names, starts, ends = ["one", "two"], [month(2), month(2)], [month(3), month(3)]
        rest = (["plan", "plan"], [1, 2], starts)
        await connection.execute(Q["periods_open"].sql, "t", names, ["c", "c"], starts, ends, *rest)
        rows = await connection.fetch(
            "SELECT subscription_id, follows_at, plan_version FROM billing_period WHERE state = 'open' ORDER BY 1"
        )
        assert [tuple(row) for row in rows] == [("one", month(2), 1), ("two", None, 2)]
    finally:
        await connection.close()
