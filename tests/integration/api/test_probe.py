"""Alive, ready, measured: without a credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis.asyncio

from billing_core.adapters.projection import Projection
from billing_core.api.probe import check_ready
from billing_core.api.route import House
from billing_core.contract.keys import SHARD_COUNT
from billing_core.contract.telemetry import Telemetry, TelemetrySettings
from billing_core.errors import Unavailable
from billing_core.settings import BillingSettings
from billing_core.store.database import Database
from gateway.command.embedded.valkey import start_valkey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from tests.integration.api.conftest import Plane


async def test_a_process_that_serves_says_so(plane: Plane) -> None:
    """And counts what it answered, by the template of the route."""
    for path in ("/healthz", "/readyz"):
        answer = await plane.nobody.get(path)
        assert (answer.status, answer.body) == (200, {"status": "ok"})
    await plane.ours.get("/v1/customers/nobody")
    page = (await plane.nobody.get("/metrics")).raw.decode()
    assert 'tallygate_control_answers_total{status="404"} 1.0' in page
    assert 'tallygate_control_seconds_count{route="/v1/customers/{customer_id}"} 1.0' in page


async def test_a_database_that_is_away_is_named(plane: Plane, database: Database) -> None:
    """503, and a retry is safe."""
    await database.close()
    answer = await plane.nobody.get("/readyz")
    assert (answer.status, answer.body["code"], answer.headers["Retry-After"]) == (503, "unavailable", "1")
    assert "Postgres" in answer.body["detail"]
    answer = await plane.ours.get("/v1/clock")
    assert (answer.status, answer.body["retry_is_safe"]) == (503, True)


async def test_a_redis_that_is_away_or_not_built_is_named(
    database: Database, tmp_path: Path, started: Callable[[Any], Any]
) -> None:
    """Where this process has one."""
    server = started(start_valkey(tmp_path))
    telemetry = Telemetry(TelemetrySettings(service="billing"))
    async with redis.asyncio.Redis.from_url(server.url) as client:
        house = House(database=database, settings=BillingSettings(), telemetry=telemetry, redis=client)
        with pytest.raises(Unavailable, match="1024 shards are being built"):
            await check_ready(house)
        await Projection(client).open_fresh(dict.fromkeys(range(SHARD_COUNT), 1))
        await check_ready(house)
        server.kill()
        with pytest.raises(Unavailable, match="Redis"):
            await check_ready(house)
    telemetry.stop()
