"""The door: every request passes here, whatever protocol carried it.

Failures become problems in this one place. What is not a Failure is a fault of ours and treated as a broken
invariant: the client gets a problem that says no more than that, the loop's exception handler gets the traceback,
and a counter says how often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from billing_core.errors import Failure, InvariantBroken
from gateway.edge.message import Answer, Request, Route
from gateway.edge.reply import failed
from gateway.edge.scrape.trace import Trace

_PROPAGATOR = TraceContextTextMapPropagator()


class Door:
    """Runs handlers; `faults` counts what should not have happened."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer
        self._loop = asyncio.get_running_loop()
        self.faults = 0

    @property
    def is_traced(self) -> bool:
        """Whether answers are spans: then each must be waited for in a task, which keeps its context."""
        return self._tracer is not None

    def trace(self, name: str, traceparent: str) -> Trace | None:
        """The span of a request that is passed on; None where nobody collects them."""
        return Trace(self._tracer, name, traceparent=traceparent) if self._tracer is not None else None

    def answer(self, route: Route, request: Request) -> Coroutine[Any, Any, Answer]:
        """The answer to a request; never raises, whatever the handler does."""
        if self._tracer is None:
            return self._plain(route, request)
        return self._traced(self._tracer, route, request=request)

    async def _traced(self, tracer: Tracer, route: Route, *, request: Request) -> Answer:
        carrier = {"traceparent": request.headers.get("traceparent", "")}
        context = _PROPAGATOR.extract(carrier)
        with tracer.start_as_current_span(route.path, context=context, kind=SpanKind.SERVER) as span:
            answer = await self._plain(route, request)
            span.set_attribute("http.route", route.path)
            span.set_attribute("http.response.status_code", answer.status)
        return answer

    async def _plain(self, route: Route, request: Request) -> Answer:
        try:
            try:
                return await route.handler(request)
            except Failure:
                raise
            except Exception as error:  # handlers raise failures and nothing else: a law that does not hold
                raise InvariantBroken(f"{type(error).__name__}: {error}") from error
        except Failure as failure:
            return self.failure(route.path, failure)

    def failure(self, place: str, failure: Failure) -> Answer:
        """The answer to a failure."""
        return self.fault(place, failure) if isinstance(failure, InvariantBroken) else failed(failure)

    def fault(self, place: str, broken: InvariantBroken) -> Answer:
        """Count and report a fault of ours; the answer says no more than that."""
        self.faults += 1
        self._loop.call_exception_handler({"message": f"{place} failed", "exception": broken})
        return failed(InvariantBroken("an internal fault; it has been reported"))
