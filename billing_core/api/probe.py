"""Is it alive, is it ready, how is it doing: three answers that need no credential.

`/healthz` says that the process serves. `/readyz` asks Postgres, and Redis where this process has it, and names
the one that does not answer in time, or says that the relay has not built all shards there. `/metrics` is the
Prometheus text of what this process counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from http import HTTPStatus

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from redis.exceptions import RedisError

from billing_core.adapters.projection import Projection
from billing_core.adapters.redis_advice import advice
from billing_core.api.constraint import POSTGRES_FAULTS
from billing_core.api.route import HOUSE, House
from billing_core.contract.telemetry import EXPOSITION_TYPE, Distribution, Telemetry
from billing_core.errors import Unavailable
from billing_core.store.setup.tenant import tenant_of_token

PROBE_S = 1.0


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a probe; `warnings` are what Redis' own settings risk."""

    status: str = "ok"
    warnings: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class Tally:
    """Counts and times the answers of this process, by route and by status."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._answers: Counter[str] = Counter()
        self._seconds: Distribution = telemetry.distribution(
            "tallygate_control_seconds", "How long the control plane took to answer.", label="route"
        )
        telemetry.counter(
            "tallygate_control_answers", "Answers of the control plane.", read=lambda: self._answers, label="status"
        )

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Time the handler under its route's template."""
        resource = request.match_info.route.resource
        began_s, status = time.perf_counter(), HTTPStatus.INTERNAL_SERVER_ERROR.value
        try:
            answer = await handler(request)
            status = answer.status
        finally:
            self._seconds.record(resource.canonical if resource else "unknown", time.perf_counter() - began_s)
            self._answers[str(status)] += 1
        return answer


async def healthz(_: web.Request) -> web.Response:
    """The process serves."""
    return _alive()


async def readyz(request: web.Request) -> web.Response:
    """All that an act needs answers. Raises: Unavailable naming what does not."""
    warnings = await check_ready(request.app[HOUSE])
    return _alive(tuple(warnings))


async def check_ready(house: House) -> list[str]:
    """Raise Unavailable unless Postgres, with its schema, and Redis, with its shards, answer in time.

    What Redis' settings risk, in words.
    """
    try:
        async with asyncio.timeout(PROBE_S), house.database.transaction() as tx:
            await tenant_of_token(tx, "")
    except (TimeoutError, *POSTGRES_FAULTS):
        raise Unavailable("Postgres does not answer, or has not this version's schema") from None
    if house.redis is None:
        return []
    try:
        async with asyncio.timeout(PROBE_S):
            unbuilt = (await Projection(house.redis).epochs()).count(None)
            warnings = await advice(house.redis)
    except (TimeoutError, OSError, RedisError):
        raise Unavailable("Redis does not answer") from None
    if unbuilt:
        raise Unavailable(f"{unbuilt} shards are being built in Redis")
    return warnings


async def metrics(request: web.Request) -> web.Response:
    """What this process counts."""
    text = request.app[HOUSE].telemetry.exposition()
    return web.Response(body=text, headers={"Content-Type": EXPOSITION_TYPE})


def _alive(warnings: tuple[str, ...] = ()) -> web.Response:
    answer = Alive(warnings=warnings or msgspec.UNSET)
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


PROBES = (web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics))
