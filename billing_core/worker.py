"""The billing process, wired: `python -m billing_core.worker`.

A process has one or more roles, and any number of processes may have the same one:

    api      the control plane over HTTP
    relay    tells Redis what changed in Postgres, builds shards that are not there, sweeps holds
    cycle    lapses, closes, collects, duns, recognizes and forgets what is due; one process at a time does it
    flush    brings usage from Redis to Postgres, lane by lane

Each role is a loop that does not end. A server that is away, or a failure that has a name, makes it begin again
after a pause that grows to a second, and is counted. Anything else that breaks, a broken law above all, ends
the whole process with its traceback: whoever supervises it starts a whole one, and what was not committed has not
happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import uvloop
from aiohttp import web
from redis.exceptions import RedisError

from billing_core.adapters.projection import Projection
from billing_core.adapters.redis_advice import advice
from billing_core.adapters.redis_client import REDIS_FAILURES, connect
from billing_core.adapters.stripe_processor import StripeAccess, open_stripe
from billing_core.adapters.usage_stream import UsageStream
from billing_core.api.app import make_app, make_runner
from billing_core.api.constraint import BUSY
from billing_core.api.route import House
from billing_core.contract.configuration import load
from billing_core.contract.keys import SHARD_COUNT
from billing_core.contract.telemetry import Telemetry, TelemetrySettings
from billing_core.errors import ConfigurationError, Failure, InvariantBroken, Unavailable
from billing_core.flows.audit import audit
from billing_core.flows.billing.close import close_due
from billing_core.flows.billing.recognize import recognize_due
from billing_core.flows.ingest import FlushPlan, FlushTally, ingest
from billing_core.flows.money.collect import collect_due
from billing_core.flows.money.dun import dun_due
from billing_core.flows.money.lapse import lapse_due
from billing_core.flows.project import Relay, RelayTally
from billing_core.flows.rebuild import Builder
from billing_core.flows.setup.forget import forget_due
from billing_core.flows.sweep import sweep
from billing_core.payments.processor import Processor
from billing_core.settings import BillingSettings
from billing_core.store.database import CONNECTION_FAILURES, Database
from billing_core.store.outbox import OUTBOX_CHANNEL

AWAY: Final = (
    *CONNECTION_FAILURES,
    *REDIS_FAILURES,
    *BUSY,
    asyncpg.OperatorInterventionError,
    RedisError,
    Failure,
)
"""What a server that is away, full or starting looks like, and failures with a name. A role begins again."""

FATAL: Final = (InvariantBroken, ConfigurationError)
"""Failures that no second try will mend."""

ROLES: Final = frozenset({"api", "relay", "cycle", "flush"})
_CYCLE_LOCK: Final = 7_265_110
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 1.0
_SETTLED_S: Final = 3.0
_ROWS_AT_ONCE: Final = 100
_LOOK_S: Final = 1.0
_BUILD_LOOK_S: Final = 0.25
_STOP_S: Final = 10.0
_CANCEL_AGAIN_S: Final = 1.0
_CONTAINERS_PER_LOOK: Final = 200_000

Role = Callable[[], Awaitable[None]]


class Worker:
    """Doors and roles of one process."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._settings = house.settings
        self._redis = Projection(house.redis)
        self._stream = UsageStream(house.redis)
        self._relay_tally, self._flush_tally = RelayTally(), FlushTally()
        self._relay = Relay(house.database, self._redis, tally=self._relay_tally)
        self._owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._unbuilt_shards = SHARD_COUNT
        self._lost_decisions = 0
        self.faults: Counter[str] = Counter()
        self._observe(house.telemetry)

    def roles(self) -> dict[str, tuple[Role, ...]]:
        """The loops of each role."""
        return {
            "api": (self._serve,),
            "relay": (self._tell, self._build, self._sweep),
            "cycle": (self._cycle,),
            "flush": (self._flush,),
        }

    async def keep(self, name: str, loop: Role) -> None:
        """Run a loop for ever; where a server is away, say so once and begin again.

        Raises: whatever another try will not mend.
        """
        pause_s, said = _FIRST_PAUSE_S, ""
        while True:
            began_s = asyncio.get_running_loop().time()
            try:
                await loop()
            except FATAL:
                raise
            except AWAY as fault:
                self.faults[name] += 1
                words = f"{name}: {type(fault).__name__}: {fault}".splitlines()[0]
                if words != said:
                    sys.stderr.write(f"{words}; trying again\n")
                    said = words
            if asyncio.get_running_loop().time() - began_s > _SETTLED_S:
                pause_s, said = _FIRST_PAUSE_S, ""
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _serve(self) -> None:
        async with serving(make_app(self._house), host=self._settings.host, port=self._settings.port):
            await asyncio.Event().wait()

    async def _tell(self) -> None:
        """Tell Redis what changed, as soon as Postgres says that something did."""
        told = asyncio.Event()

        def hear(*_: object) -> None:
            told.set()

        async with self._house.database.session() as session:
            await session.add_listener(OUTBOX_CHANNEL, hear)
            session.add_termination_listener(hear)
            try:
                while not session.is_closed():
                    told.clear()
                    while await self._relay.project(now=self._house.clock(), most=_ROWS_AT_ONCE):
                        pass
                    await self._relay.push_stale(now=self._house.clock(), most=_ROWS_AT_ONCE)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_S):
                            await told.wait()
            finally:
                session.remove_termination_listener(hear)
                if not session.is_closed():
                    await session.remove_listener(OUTBOX_CHANNEL, hear)
        raise Unavailable("the connection that listens is gone")

    async def _build(self) -> None:
        """Say what Redis' settings risk; open shards that it does not have; name what was lost with a server."""
        for risk in await advice(self._house.redis):
            sys.stderr.write(f"warning: {risk}\n")
        builder = Builder(self._house.database, self._redis, stream=self._stream, plans=self._relay.plans)
        while True:
            self._unbuilt_shards = (await builder.build()).waiting_shards
            lost = await audit(self._house.database, self._redis, stream=self._stream)
            self._lost_decisions = self._lost_decisions if lost is None else lost
            await asyncio.sleep(_BUILD_LOOK_S)

    async def _sweep(self) -> None:
        """End holds of customers who are silent."""
        while True:
            await sweep(self._redis, self._stream)
            await asyncio.sleep(self._settings.sweep_interval_ms / 1_000)

    async def _cycle(self) -> None:
        """Do what is due, while this process holds the lock of the cycle; else wait for it."""
        db, settings = self._house.database, self._settings
        async with db.session() as session:
            await session.execute("SELECT pg_advisory_lock($1)", _CYCLE_LOCK)
            while True:
                await session.execute("SELECT 1")  # the lock is lost with its connection
                now = self._house.clock()
                await lapse_due(db, now=now)
                await close_due(db, now=now)
                await collect_due(db, self._house.processor, now=now, attempts=settings.payment_attempts)
                await dun_due(db, now=now, overdue_days=settings.suspend_overdue_days)
                await recognize_due(db, now=now)
                await forget_due(db, now=now)
                await asyncio.sleep(settings.cycle_interval_ms / 1_000)

    async def _flush(self) -> None:
        plan = FlushPlan(
            owner=self._owner,
            lease_ms=self._settings.lease_ms,
            interval_ms=self._settings.flush_interval_ms,
            batch_entries=self._settings.flush_batch_entries,
        )
        await ingest(self._house.database, self._stream, plan=plan, tally=self._flush_tally)

    def _observe(self, telemetry: Telemetry) -> None:
        flush, relay = self._flush_tally, self._relay_tally
        counters: dict[str, tuple[str, Callable[[], int]]] = {
            "tallygate_flushed_events": ("Usage rows that reached Postgres.", lambda: flush.usage_rows),
            "tallygate_flushed_movements": ("Movements that reached Postgres.", lambda: flush.movement_rows),
            "tallygate_parked_entries": ("Stream entries that could not be written.", lambda: flush.parked_rows),
            "tallygate_flush_conflicts": ("Batches whose lane was another's.", lambda: flush.conflicts),
            "tallygate_relayed_rows": ("Changes that reached Redis.", lambda: relay.applied_rows),
        }
        for name, (words, read) in counters.items():
            telemetry.counter(name, words, read=_single(read))
        gauges: dict[str, tuple[str, Callable[[], int]]] = {
            "tallygate_flush_lag_ms": ("Age of the oldest entry of the last batch.", lambda: flush.lag_ms),
            "tallygate_flush_lanes": ("Lanes that this process flushes.", lambda: flush.lanes),
            "tallygate_unbuilt_shards": ("Shards that wait to be built.", lambda: self._unbuilt_shards),
            "tallygate_lost_decisions": (
                "Decisions that were answered and lost with a server, ever.",
                lambda: self._lost_decisions,
            ),
        }
        for name, (words, read) in gauges.items():
            telemetry.gauge(name, words, read=_single(read))
        telemetry.counter(
            "tallygate_role_faults", "Times a role began again.", read=lambda: self.faults, label="role"
        )
        telemetry.counter(
            "tallygate_relay_refusals", "What scripts refused.", read=lambda: relay.refused, label="words"
        )


def _single(read: Callable[[], int]) -> Callable[[], dict[str, int]]:
    return lambda: {"": read()}


@asynccontextmanager
async def serving(app: web.Application, *, host: str, port: int) -> AsyncGenerator[None]:
    """Serve an application for as long as the block runs.

    Raises: ConfigurationError where the port is taken.
    """
    runner = make_runner(app)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}", field="port") from None
        yield
    finally:
        await runner.cleanup()


def roles_of(settings: BillingSettings) -> tuple[str, ...]:
    """The roles that the settings name.

    Raises: ConfigurationError for a word that is no role, or none at all.
    """
    names = tuple(name.strip() for name in settings.roles.split(",") if name.strip())
    strangers = sorted(set(names) - ROLES)
    if strangers or not names:
        raise ConfigurationError(
            f"billing.roles: {', '.join(strangers) or 'none'}: roles are {', '.join(sorted(ROLES))}"
        )
    return names


async def run(settings: BillingSettings) -> None:
    """Open the doors, run the roles until a signal comes.

    Raises: ConfigurationError before anything runs; whatever broke, afterwards.
    """
    names = roles_of(settings)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as doors:
        house = await _open_house(settings, doors, stop=stop)
        if house is None:
            return
        await _run_until(stop, Worker(house), names=names)


async def _open_house(settings: BillingSettings, doors: AsyncExitStack, *, stop: asyncio.Event) -> House | None:
    """Everything that the roles are wired to; None where the signal came first."""
    database = await _patiently(lambda: Database.connect(settings.postgres_url, size=12), stop=stop)
    if database is None:
        return None
    doors.push_async_callback(database.close)
    redis = connect(settings.redis_url)
    doors.push_async_callback(redis.aclose)
    processor: Processor | None = None
    if settings.stripe_api_key:
        access = StripeAccess(
            api_key=settings.stripe_api_key,
            api_base=settings.stripe_api_base,
            webhook_secret=settings.stripe_webhook_secret,
        )
        processor = await doors.enter_async_context(open_stripe(access))
    telemetry = Telemetry(
        TelemetrySettings(
            service="tallygate-billing", instance=settings.roles, otlp_endpoint=settings.otlp_endpoint
        )
    )
    doors.callback(telemetry.stop)
    return House(database=database, settings=settings, telemetry=telemetry, redis=redis, processor=processor)


async def _patiently(open_one: Callable[[], Awaitable[Database]], *, stop: asyncio.Event) -> Database | None:
    """Try until the server is there, or the signal came."""
    while not stop.is_set():
        try:
            return await open_one()
        except Unavailable as fault:
            sys.stderr.write(f"{fault.detail}; trying again\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await stop.wait()
    return None


async def _run_until(stop: asyncio.Event, worker: Worker, *, names: tuple[str, ...]) -> None:
    """All loops of all roles, until the signal, or until one of them breaks."""
    loops = [(name, loop) for name in names for loop in worker.roles()[name]]
    tasks = [asyncio.create_task(worker.keep(name, loop), name=name) for name, loop in loops]
    ending = asyncio.create_task(stop.wait())
    await asyncio.wait([ending, *tasks], return_when=asyncio.FIRST_COMPLETED)
    running = {task for task in (ending, *tasks) if not task.done()}
    until_s = asyncio.get_running_loop().time() + _STOP_S
    while running and asyncio.get_running_loop().time() < until_s:
        for task in running:  # again and again: a library that waits with wait_for may swallow a cancellation
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()


def main() -> int:
    """Run one process; its settings come from the file that TALLYGATE_CONFIG names, and the environment."""
    file = os.environ.get("TALLYGATE_CONFIG")
    gc.freeze()
    gc.set_threshold(_CONTAINERS_PER_LOOK)  # looking for cycles that batches never make took a fifth of a flusher
    try:
        settings = load("billing", BillingSettings, file=Path(file) if file else None, environ=os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
