"""One worker process, wired: links, memory, gate, intake, handlers, telemetry.

This is the only place where the parts meet. It knows no port and no server: `server.py` puts it behind aiohttp.
"""

from __future__ import annotations

import asyncio

from billing_core.contract.cluster import is_cluster
from billing_core.contract.openapi.document import OPENAPI_PATH
from billing_core.contract.telemetry import Distribution, Telemetry, TelemetrySettings
from billing_core.values.clock import Clock, system_now
from gateway.admission.account import AccountReader
from gateway.admission.degraded.outage import Outage
from gateway.admission.gate import Beside, Gate
from gateway.admission.hold import Holds
from gateway.admission.order import Terms
from gateway.admission.slice.local import LocalDecisions
from gateway.admission.slice.slicer import Slicer
from gateway.admission.slice.truce import Truce
from gateway.edge.accesslog.desk import AccessLogDesk
from gateway.edge.authorize.dialect import envoy_dialect, forward_dialect, nginx_dialect
from gateway.edge.authorize.route import AuthorizeRoute
from gateway.edge.authorize.settle import SettleRoute
from gateway.edge.door import Door
from gateway.edge.envoy.desk import Desk
from gateway.edge.envoy.port import methods_of, sinks_of
from gateway.edge.grpc.call import Methods
from gateway.edge.grpc.stream import Sinks
from gateway.edge.message import Route
from gateway.edge.proxy.port import ProxyPort
from gateway.edge.proxy.settlement import Settlements
from gateway.edge.refusal.answer import open_notices
from gateway.edge.route.account import AccountRoute
from gateway.edge.route.check import CheckRoute
from gateway.edge.route.description import tell_description
from gateway.edge.route.event import EventRoute
from gateway.edge.route.hold import HoldRoute
from gateway.edge.route.probe import ProbeRoute
from gateway.edge.scrape.instrument import (
    observe_directory,
    observe_links,
    observe_outage,
    observe_settlements,
    observe_slices,
)
from gateway.edge.slumber import Slumber
from gateway.edge.wire import MAX_BATCH
from gateway.receipt import JWKS_PATH, NO_KEYS, open_signer
from gateway.settings import GatewaySettings
from gateway.state.clock import ServerClock
from gateway.state.cluster import ClusterLink
from gateway.state.directory import Directory
from gateway.state.endpoint import endpoints_of
from gateway.state.fair.queue import Bounds
from gateway.state.invalidation import InvalidationListener
from gateway.state.link import Link, LinkSettings
from gateway.state.pipe import PipeLimits
from gateway.usage.intake import Intake
from gateway.usage.recall import Recall
from lua.loader import LIBRARY

_PUSH_AT = 4
"""Decisions in one write: fewer cost more writes than their overlap gains, more leave Redis idle meanwhile."""


class Worker:
    """Everything that a gateway process is, but for its sockets. `start` once, `stop` once."""

    def __init__(self, settings: GatewaySettings, clock: Clock = system_now) -> None:
        self.settings = settings
        self.signer = open_signer(settings.receipt_key_file)
        self.notices = open_notices(settings)
        self.telemetry = Telemetry(
            TelemetrySettings(
                service="tallygate-gateway",
                instance=str(settings.worker_index),
                otlp_endpoint=settings.otlp_endpoint,
            )
        )
        self.links = {name: _link(settings, name) for name in ("decision", "bulk")}
        link, bulk = self.links["decision"], self.links["bulk"]
        self.directory = Directory(link, settings)
        self.listener = InvalidationListener(bulk, self.directory, also=self._hear)
        latency = self.telemetry.distribution(
            "tallygate_decision_seconds", "From order to decision, by reason or failure.", label="reason"
        )
        self.clock = ServerClock(link, is_cluster=is_cluster(settings.redis_url))
        recalls = is_cluster(settings.redis_url)
        self.recall = Recall(bulk, deadline_ms=settings.bulk_deadline_ms) if recalls else None
        self.outage = (
            Outage(bulk, settings=settings, clock=clock, recall=self.recall) if settings.journal_dir else None
        )
        self.local = self._local(bulk, clock=clock) if settings.journal_dir and settings.slice_count else None
        self.gate = Gate(
            (link, bulk),
            clock=self.clock,
            beside=Beside(outage=self.outage, local=self.local, recall=self.recall),
            terms=Terms(window_ms=settings.idempotency_window_ms, refusal_ms=settings.idempotency_refusal_ms),
            latency=latency,
        )
        self.holds = Holds(
            link,
            window_ms=settings.idempotency_window_ms,
            refusal_ms=settings.idempotency_refusal_ms,
            recall=self.recall,
        )
        self.settlements = Settlements(self.holds, deadline_ms=settings.bulk_deadline_ms)
        self.access_log = AccessLogDesk(self.holds, self.settlements, deadline_ms=settings.bulk_deadline_ms)
        self.intake = Intake(bulk, self.directory, settings=settings, clock=clock, recall=self.recall)
        self.door = Door(self.telemetry.tracer)
        self.slumber = Slumber(turn_s=asyncio.get_running_loop().time)
        self.proxy = self._proxy() if settings.proxy_port else None
        self._observe(latency)
        self._tasks: list[asyncio.Task[None]] = []

    def _observe(self, latency: Distribution) -> None:
        """Tell what can be counted."""
        observe_links(self.telemetry, self.links)
        observe_directory(self.telemetry, self.directory)
        observe_settlements(self.telemetry, self.settlements)
        if self.outage is not None:
            observe_outage(self.telemetry, self.outage)
        if self.local is not None:
            observe_slices(self.telemetry, self.local)
        self.telemetry.counter(
            "tallygate_decisions", "Decisions by reason or failure.", read=latency.totals, label="reason"
        )
        self.telemetry.counter(
            "tallygate_events", "Client-sent events.", read=self.intake.receipts.copy, label="status"
        )
        self.telemetry.counter("tallygate_faults", "Internal faults.", read=lambda: {"": self.door.faults})
        self.telemetry.counter(
            "tallygate_sleeps", "Times that this process stood still.", read=lambda: {"": self.slumber.sleeps}
        )
        self.telemetry.counter(
            "tallygate_overslept",
            "Requests that waited in their socket meanwhile; past their deadline they are not decided.",
            read=lambda: {"": self.slumber.overslept},
        )
        self.telemetry.counter(
            "tallygate_access_log",
            "Entries of Envoy's access log, by what became of them.",
            read=self.access_log.read,
            label="outcome",
        )
        self.telemetry.gauge(
            "tallygate_push_up", "Whether invalidations arrive.", read=lambda: {"": int(self.listener.is_up)}
        )

    async def start(self) -> None:
        """Begin to connect; waits for Redis a moment, and goes on without it."""
        for link in self.links.values():
            link.start()
        keepers = (self.slumber.keep, self.listener.listen, self.clock.keep)
        parts = (self.recall, self.outage, self.local, self.proxy, self.settlements, self.access_log)
        keepers += tuple(part.keep for part in parts if part is not None)
        self._tasks = [asyncio.create_task(keep()) for keep in keepers]
        waiting = [asyncio.create_task(link.up()) for link in self.links.values()]
        _, late = await asyncio.wait(waiting, timeout=1)
        for task in late:
            task.cancel()

    async def broken(self) -> None:
        """Wait for what never happens: the end, with its exception, of a part that lives as long as the process."""
        parts = [asyncio.create_task(link.broken()) for link in self.links.values()]
        parts += [asyncio.create_task(_ended(task)) for task in self._tasks]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()

    async def stop(self) -> None:
        """Close every connection and send what telemetry is left."""
        await self.access_log.stop(self.settings.bulk_deadline_ms / 1_000)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.settlements.retry()
        if self.local is not None:
            await self.local.stop()
        if self.outage is not None:
            await self.outage.stop()
        for link in self.links.values():
            await link.stop()
        await asyncio.to_thread(self.telemetry.stop)

    def _local(self, bulk: Link, *, clock: Clock) -> LocalDecisions:
        """Decisions out of slices, which need a folder for what they write down."""
        settings, listener = self.settings, self.listener
        slicer = Slicer(bulk, clock=clock, server_clock=self.clock, recall=self.recall, settings=settings)
        truce = Truce(bulk, slicer, settings=settings)
        return LocalDecisions(slicer, truce, settings=settings, is_told=lambda: listener.is_up)

    def _hear(self, payload: str) -> None:
        """What was pushed, to whoever else wants to know."""
        if self.local is not None:
            self.local.hear(payload)

    def routes(self) -> list[Route]:
        """Everything that can be asked of a gateway."""
        settings, directory = self.settings, self.directory
        check = CheckRoute(self.gate, directory, settings=settings, signer=self.signer)
        hold = HoldRoute(self.holds, deadline_ms=settings.decision_deadline_ms)
        event = EventRoute(self.intake, directory)
        reader = AccountReader(self.links["bulk"], deadline_ms=settings.bulk_deadline_ms)
        account = AccountRoute(reader, directory)
        probe = self.probe()
        return [
            Route(method="POST", path="/v1/check", handler=check.check, is_hot=True, straight=check.straight),
            Route(method="POST", path="/v1/check/batch", handler=check.check_batch),
            Route(method="POST", path="/v1/holds/{subject}/settle", handler=hold.settle, is_hot=True),
            Route(method="POST", path="/v1/holds/{subject}/extend", handler=hold.extend, is_hot=True),
            Route(method="POST", path="/v1/holds/{subject}/release", handler=hold.release, is_hot=True),
            Route(method="POST", path="/v1/events", handler=event.take),
            *self._authorize(),
            Route(method="GET", path="/v1/customers/{subject}/usage", handler=account.usage),
            Route(method="GET", path="/v1/customers/{subject}/wallets", handler=account.wallets),
            Route(method="GET", path=JWKS_PATH, handler=probe.keys),
            Route(method="GET", path="/healthz", handler=probe.health),
            Route(method="GET", path="/readyz", handler=probe.ready),
            Route(method="GET", path="/metrics", handler=probe.metrics),
            Route(method="GET", path=OPENAPI_PATH, handler=tell_description),
        ]

    def _authorize(self) -> list[Route]:
        """What proxies ask, each in its dialect, and how they settle."""
        settle = SettleRoute(self.settlements)
        routes = [Route(method="*", path="/v1/authorize/settle", handler=settle.settle, is_hot=True)]
        for path, make in (
            ("/v1/authorize/forward", forward_dialect),
            ("/v1/authorize/nginx", nginx_dialect),
            ("/v1/authorize/envoy/{feature}/{quantity}/{path}", envoy_dialect),
        ):
            dialect = make(self.settings, self.notices)
            route = AuthorizeRoute(self.gate, self.directory, dialect=dialect, settings=self.settings)
            routes.append(Route(method="*", path=path, handler=route.answer, is_hot=True, straight=route.straight))
        return routes

    def calls(self) -> Methods:
        """What Envoy may call on the gRPC port."""
        link, desk = self.links["decision"], Desk(self.door.fault, self.telemetry.tracer)
        return methods_of(
            self.gate,
            self.holds,
            directory=self.directory,
            settings=self.settings,
            notices=self.notices,
            desk=desk,
            is_serving=lambda: link.is_up,
        )

    def sinks(self) -> Sinks:
        """What Envoy may send to the gRPC port without waiting for an answer."""
        return sinks_of(self.access_log)

    def _proxy(self) -> ProxyPort:
        """The reverse proxy of our own. Raises: ConfigurationError."""
        proxy = ProxyPort(
            self.gate,
            self.settlements,
            directory=self.directory,
            door=self.door,
            slumber=self.slumber,
            settings=self.settings,
            notices=self.notices,
        )
        self.telemetry.counter(
            "tallygate_proxied", "Requests to upstreams, by how they ended.", read=proxy.tally.read, label="ending"
        )
        return proxy

    def sibling_routes(self) -> list[Route]:
        """What a worker tells the other workers of its port."""
        return [Route(method="GET", path="/metrics", handler=self.probe().own_metrics)]

    def probe(self) -> ProbeRoute:
        """The health probes of this process."""
        jwks = self.signer.jwks if self.signer else NO_KEYS
        return ProbeRoute(self.links["bulk"], self.telemetry, settings=self.settings, jwks=jwks)


def _link(settings: GatewaySettings, name: str) -> Link:
    limits = PipeLimits(
        max_in_flight=settings.max_in_flight,
        push_at=_PUSH_AT if name == "decision" else 0,
        stall_ms=settings.link_stall_ms,
        hang_ms=settings.link_hang_ms,
    )
    endpoints = endpoints_of(settings.redis_url)
    told = LinkSettings(
        endpoint=endpoints[0],
        name=f"tallygate-gateway-{settings.worker_index}-{name}",
        only_vouched=True,
        limits=limits,
        bounds=_bounds(settings, name),
        retry_ms=settings.link_retry_ms,
    )
    return ClusterLink(told, LIBRARY, seeds=endpoints) if is_cluster(settings.redis_url) else Link(told, LIBRARY)


def _bounds(settings: GatewaySettings, name: str) -> Bounds:
    """How many decisions may be under way; on the bulk link a batch, and another's beside it, leave as one."""
    places, of_customer = settings.decisions_in_flight, settings.customer_in_flight
    if name == "bulk":
        places, of_customer = 2 * MAX_BATCH, MAX_BATCH
    return Bounds(
        places=places,
        customer_places=of_customer,
        waiting=settings.max_in_flight,
        customer_waiting=settings.customer_waiting,
    )


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.shield(task)
