"""Where calls are worked on: a coroutine each, and what becomes of it when it fails.

What is decided goes the same way as behind HTTP: key, order, gate. Failures become statuses in this one place. What
is not a Failure is a fault of ours: the peer hears no more than that, `fault` gets the rest.

A coroutine asks Redis and waits once, so it is run by hand, from the read that brought the call and on from the
read that brought the reply; a task for each would cost more than the work. Where there is a tracer there are
tasks, because a span needs its context.

The time that a call may take is what the proxy says (`grpc-timeout`, its own time-out), less a tenth for the way
back: an answer that comes as the proxy gives up is a charge for nothing. Worked example: Envoy waits for 20 ms, so
the decision has 18; where it says nothing, what the settings say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from billing_core.errors import Failure, InvariantBroken
from gateway.admission.deadline import Deadline, deadline_since
from gateway.edge.grpc.call import Call, Method
from gateway.edge.grpc.status import Status, told
from gateway.edge.wire import MAX_DEADLINE_MS

Handler = Callable[[Call], Coroutine[Any, Any, bytes]]
"""Answers a call with a message. Raises: Failure."""

Fault = Callable[[str, InvariantBroken], object]
"""Told where something broke that should not."""

_FOR_THE_WAY: Final = 0.9
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def deadline_of(call: Call, usual_ms: int) -> Deadline:
    """By when a call is to be answered.

    Raises: Unavailable where that is over.
    """
    asked_ms = call.head.timeout_ms
    if asked_ms is None:
        return deadline_since(call.since_s, usual_ms)
    return deadline_since(call.since_s, max(1, min(MAX_DEADLINE_MS, int(asked_ms * _FOR_THE_WAY))))


class Desk:
    """Makes methods of handlers."""

    def __init__(self, fault: Fault, tracer: Tracer | None = None) -> None:
        self._fault = fault
        self._tracer = tracer

    def method(self, path: str, handler: Handler) -> Method:
        """What answers the calls of that path."""
        if self._tracer is None:
            return lambda call: _Turn(call, self._worked(path, handler, call=call)).run()
        return lambda call: self._trace(path, handler, call=call)

    def _trace(self, path: str, handler: Handler, *, call: Call) -> None:
        task = asyncio.create_task(self._traced(path, handler, call=call))
        _kept.add(task)
        task.add_done_callback(_kept.discard)

    async def _traced(self, path: str, handler: Handler, *, call: Call) -> None:
        tracer = self._tracer
        if tracer is None:
            raise InvariantBroken("what is traced has a tracer")
        carrier = {"traceparent": call.head.metadata.get("traceparent", "")}
        context = _PROPAGATOR.extract(carrier)
        with tracer.start_as_current_span(path.lstrip("/"), context=context, kind=SpanKind.SERVER) as span:
            status = await self._worked(path, handler, call=call)
            span.set_attribute("rpc.system", "grpc")
            span.set_attribute("rpc.grpc.status_code", int(status))

    async def _worked(self, path: str, handler: Handler, *, call: Call) -> Status:
        """Answer the call, one way or the other; never raises."""
        try:
            try:
                message = await handler(call)
            except Failure:
                raise
            except Exception as error:  # handlers raise failures and nothing else: a law that does not hold
                raise InvariantBroken(f"{type(error).__name__}: {error}") from error
        except InvariantBroken as broken:
            self._fault(path, broken)
            call.fail(Status.INTERNAL, "an internal fault; it has been reported")
            return Status.INTERNAL
        except Failure as failure:
            status, text = told(failure)
            call.fail(status, text)
            return status
        call.answer(message)
        return Status.OK


_kept: set[asyncio.Task[None]] = set()
"""Tasks that run; the loop alone would forget them."""


class _Turn:
    """A coroutine that is run by hand."""

    __slots__ = ("_call", "_coroutine")

    def __init__(self, call: Call, coroutine: Coroutine[Any, Any, object]) -> None:
        self._call = call
        self._coroutine = coroutine

    def run(self, _: object = None) -> None:
        """Run on until the next wait, or to the end."""
        try:
            waited = self._coroutine.send(None)
        except StopIteration:
            return
        except BaseException:  # what it waited for was cancelled: nobody will go on with it
            self._call.fail(Status.UNAVAILABLE, "it was given up")
            raise
        if waited is None:  # `asyncio.sleep(0)`: the others first
            asyncio.get_running_loop().call_soon(self.run)
            return
        waited._asyncio_future_blocking = False  # noqa: SLF001 - as a task does that has seen what it waits for
        waited.add_done_callback(self.run)
