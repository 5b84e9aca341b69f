"""The siege: traffic, a fault, the wait until service is back by itself, quiet, and the judgement; again and again.

Service is back when a fresh debit of a customer whom nobody else uses is decided, and then told by the control
plane, for which gateway, Valkey, flusher, Postgres and the control plane must all work; and when as many decisions
are made again as half of what was usual before. The time is counted from the end of the injury: the kill, the
continuation, the moment when there is space again or the wire passes everything on.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import msgspec

from billing_core.contract.shipped import shipped
from billing_core.errors import Failure, Unavailable
from gateway.command.chaos.fault import FAULTS, Scene
from gateway.command.chaos.house import House
from gateway.command.chaos.traffic import CURRENCY, INPUT, Caller, Traffic
from gateway.command.chaos.verdict import Verdict
from gateway.command.client.account import ApiKey, Customer, Published, Subscription, Tenant
from gateway.command.client.bill import TopUp, Usage
from gateway.command.client.decision import Decision
from gateway.command.client.door import Planes, open_planes
from gateway.command.client.persistence import PatientPlane, Persistence, persist
from gateway.command.client.route import route
from gateway.command.terminal.document import read_toml

_CATALOG: Final = "catalogs/language_model.toml"
_PLAN: Final = "pay-as-you-go"
_RICH, _DRY = 6, 3
_RICH_CENTS, _DRY_CENTS = 100_000, 1
_NANOS_PER_CENT: Final = 10_000_000
_CONNECTIONS: Final = 32
_ANSWER_S: Final = 1.0
_CALM_S: Final = 1.5
_WINDOW_S: Final = 0.5
_LOOK_S: Final = 0.05
_PATIENCE_S: Final = 60.0


class Force(msgspec.Struct, frozen=True, kw_only=True):
    """How hard the house is used: lanes of acts, and how long each thinks between two (on average)."""

    lanes: int = 8
    think_s: float = 0.02
    stop_s: float = 1.6


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: what was decided while it lasted, what was wrong afterwards, how long service took to return."""

    fault: str
    decided: int
    allowed: int
    unanswered: int
    recovery_s: float
    verdict: Verdict


class Siege:
    """A house with a tenant in it, under traffic."""

    def __init__(self, house: House, planes: Planes, *, tenant_id: str, chance: random.Random) -> None:
        self._house = house
        self._planes = planes
        self._tenant_id = tenant_id
        self._chance = chance
        self._control = PatientPlane(planes.control, Persistence(patience_s=_PATIENCE_S))
        self._since_at = datetime.fromtimestamp(0, UTC)
        self._probe = Caller(customer_id="nobody", key="not seated yet", is_dry=False)
        self._probed = 0
        self._usual = 0.0
        self.traffic = Traffic(planes, run=tenant_id, chance=chance)

    async def prepare(self) -> None:
        """Publish a catalog, seat the customers and wait until the gate knows all of them."""
        await self._control.put("/v1/catalog", Published, body=read_toml(shipped(_CATALOG)))
        rich = [await self._seat(f"rich-{number}", cents=_RICH_CENTS) for number in range(_RICH)]
        dry = [await self._seat(f"dry-{number}", cents=_DRY_CENTS) for number in range(_DRY)]
        self._probe = await self._seat("probe", cents=_RICH_CENTS)
        self.traffic.callers += (*rich, *dry)
        for caller in (*rich, *dry, self._probe):
            await persist(lambda caller=caller: self._peek(caller), Persistence(patience_s=_PATIENCE_S))

    async def calm(self) -> None:
        """Learn how many decisions are made when nothing is wrong."""
        self.traffic.go()
        before = self.traffic.tally.decided
        await asyncio.sleep(_CALM_S)
        self._usual = (self.traffic.tally.decided - before) / _CALM_S

    async def endure(self, fault: str, *, stop_s: float) -> Outcome:
        """One fault from its beginning to the judgement. Raises: Unavailable where service does not return."""
        tally = self.traffic.tally
        before = tally.decided, tally.allowed, tally.retries
        self.traffic.go()
        await asyncio.sleep(self._chance.uniform(0.2, 0.8))
        scene = Scene(house=self._house, chance=self._chance, felt=lambda: tally.retries, wait_s=stop_s)
        healed_s = await FAULTS[fault](scene)
        recovery_s = await self._back_s() - healed_s
        await self.traffic.rest()
        return Outcome(
            fault=fault,
            decided=tally.decided - before[0],
            allowed=tally.allowed - before[1],
            unanswered=tally.retries - before[2],
            recovery_s=recovery_s,
            verdict=await self._judge(),
        )

    async def _back_s(self) -> float:
        """Since when service is back, on the loop's clock."""
        async with asyncio.timeout(_PATIENCE_S):
            return max(await asyncio.gather(self._all_work_s(), self._many_decide_s()))

    async def _all_work_s(self) -> float:
        """Since when one debit makes its way from the gate to what the control plane tells."""
        await self.traffic.consume(self._probe, 1)
        self._probed += 1
        path = route("/v1/customers/{}/usage", self._probe.customer_id)
        while True:
            usage = await self._control.get(path, Usage, query={"meter": INPUT})
            if sum(int(row.quantity) for row in usage.items) >= self._probed:
                return asyncio.get_running_loop().time()
            await asyncio.sleep(_LOOK_S)

    async def _many_decide_s(self) -> float:
        """Since when half of what is usual is decided, over half a second."""
        loop, seen = asyncio.get_running_loop(), deque[tuple[float, int]]()
        while True:
            seen.append((loop.time(), self.traffic.tally.decided))
            while seen[-1][0] - seen[0][0] > _WINDOW_S:
                (begun_s, before), (ended_s, after) = seen.popleft(), seen[-1]
                if after - before >= self._usual / 2 * (ended_s - begun_s):
                    return begun_s
            await asyncio.sleep(_LOOK_S)

    async def _judge(self) -> Verdict:
        try:
            evidence = await self._house.witness(self._tenant_id, self._since_at)
        except Unavailable as failure:
            return Verdict(broken=1, words=(failure.detail,))
        self._since_at = evidence.until_at
        return self.traffic.notes.judge(evidence)

    async def _seat(self, name: str, *, cents: int) -> Caller:
        control, run = self._control, self._tenant_id
        body: dict[str, object] = {"customer_id": name, "name": name, "collection": "offline"}
        await control.post("/v1/customers", Customer, body=body, idempotency_key=f"{run}-{name}-customer")
        body = {"customer_id": name, "plan": _PLAN}
        await control.post("/v1/subscriptions", Subscription, body=body, idempotency_key=f"{run}-{name}-plan")
        body = {"amount": f"{cents // 100}.{cents % 100:02}", "method": "wire", "reference": f"{run} {name}"}
        path = route("/v1/customers/{}/wallets/{}/top-ups", name, CURRENCY)
        await control.post(path, TopUp, body=body, idempotency_key=f"{run}-{name}-credit")
        self.traffic.notes.granted_nanos += cents * _NANOS_PER_CENT
        path = route("/v1/customers/{}/keys", name)
        key = await control.post(path, ApiKey, body={"label": "chaos"}, idempotency_key=f"{run}-{name}-key")
        return Caller(customer_id=name, key=key.key, is_dry=cents == _DRY_CENTS)

    async def _peek(self, caller: Caller) -> None:
        """Raise Unavailable, to be asked again, unless the gate would let the caller through."""
        body = {"key": caller.key, "feature": INPUT, "quantity": 1, "mode": "peek"}
        decision = (await self._planes.gateway.post("/v1/check", Decision, body=body)).value
        if not decision.allowed:
            raise Unavailable(f"the gate refuses {caller.customer_id}: {decision.reason}")


@asynccontextmanager
async def besieging(house: House, *, force: Force, chance: random.Random) -> AsyncGenerator[Siege]:
    """A siege of the house, with traffic until the block ends.

    Raises: Failure where a lane broke, or where the house could not be furnished.
    """
    name = f"chaos-{secrets.token_hex(4)}"
    async with open_planes(house.door) as planes:
        root = PatientPlane(planes.root, Persistence(patience_s=_PATIENCE_S))
        body = {"tenant_id": name, "name": "under attack"}
        tenant = await root.post("/v1/tenants", Tenant, body=body, idempotency_key=f"{name}-tenant")
    door = msgspec.structs.replace(house.door, operator_token=tenant.operator_token)
    async with open_planes(door, connections=_CONNECTIONS, timeout_s=_ANSWER_S) as planes:
        siege = Siege(house, planes, tenant_id=name, chance=chance)
        await siege.prepare()
        try:
            async with asyncio.TaskGroup() as group:
                lanes = [group.create_task(siege.traffic.lane(think_s=force.think_s)) for _ in range(force.lanes)]
                await siege.calm()
                yield siege
                for lane in lanes:
                    lane.cancel()
        except ExceptionGroup as faults:
            failures = faults.subgroup(Failure)
            if failures is None:
                raise
            raise failures.exceptions[0] from None
