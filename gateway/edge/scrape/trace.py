"""The span of a request that is passed on: a child of the caller's, and the parent of the upstream's.

Source: W3C Trace Context, section 3.2 (traceparent).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from opentelemetry.trace import Span, SpanKind, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TOLD: Final = re.compile(rb"(?<=\r\n)traceparent:[^\r\n]*\r\n", re.IGNORECASE)


class Trace:
    """Of one request; `end` it once."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: Tracer, name: str, *, traceparent: str) -> None:
        context = _PROPAGATOR.extract({"traceparent": traceparent})
        self._tracer = tracer
        self._span = tracer.start_span(name, context=context, kind=SpanKind.SERVER)

    def step(self, name: str) -> Span:
        """A part of it, to be ended by whoever asked."""
        return self._tracer.start_span(name, context=set_span_in_context(self._span))

    def passed_on(self, start: bytes) -> bytes:
        """The lines of a request's head, in which this span is the parent now."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, context=set_span_in_context(self._span))
        return _TOLD.sub(b"", start) + f"traceparent: {carrier['traceparent']}\r\n".encode("ascii")

    def end(self, told: Mapping[str, str | int]) -> None:
        """It is over."""
        for name, value in told.items():
            self._span.set_attribute(name, value)
        self._span.end()
