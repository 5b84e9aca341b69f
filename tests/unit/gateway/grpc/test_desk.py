"""Where calls are worked on: deadlines, failures, faults, and spans where somebody collects them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from billing_core.errors import (
    Conflict,
    Failure,
    Forbidden,
    InvalidInput,
    InvariantBroken,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)
from gateway.edge.envoy import desk
from gateway.edge.envoy.desk import Desk, deadline_of
from gateway.edge.grpc.call import Call
from gateway.edge.grpc.header import CallHead
from gateway.edge.grpc.status import Status


class Ear:
    """Hears what calls are answered."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def answer(self, call: Call, message: bytes) -> None:
        self.told.append((call.stream_id, message))

    def fail(self, call: Call, status: Status, *, text: str) -> None:
        self.told.append((call.stream_id, status, text))


def a_call(ear: Ear, *, since_s: float = 0.0, **head: Any) -> Call:
    call = Call(ear, CallHead(path="/a/B", **head), stream_id=1, room=0, since_s=since_s or time.perf_counter())
    call.add(b"\0\0\0\0\2hi")
    return call


@pytest.mark.parametrize(
    ("timeout_ms", "budget_ms"), [(None, 15), (20.0, 18), (200.0, 180), (0.5, 1), (1.0, 1), (10**9, 60_000)]
)
def test_a_tenth_of_the_proxys_patience_is_left_for_the_way(timeout_ms: float | None, budget_ms: int) -> None:
    """And what the settings say where it tells none; never nothing, never more than a minute."""
    assert deadline_of(a_call(Ear(), timeout_ms=timeout_ms), 15).budget_ms == budget_ms


def test_a_call_that_lay_in_its_socket_past_its_deadline_is_not_begun() -> None:
    """Whoever asked has gone."""
    with pytest.raises(Unavailable):
        deadline_of(a_call(Ear(), since_s=time.perf_counter() - 1, timeout_ms=20.0), 15)


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (InvalidInput, Status.INVALID_ARGUMENT),
        (Unauthenticated, Status.UNAUTHENTICATED),
        (Forbidden, Status.PERMISSION_DENIED),
        (NotFound, Status.NOT_FOUND),
        (Conflict, Status.ABORTED),
        (TooLarge, Status.RESOURCE_EXHAUSTED),
        (Unprocessable, Status.FAILED_PRECONDITION),
        (Unavailable, Status.UNAVAILABLE),
    ],
)
async def test_each_failure_has_its_status(failure: type[Failure], status: Status) -> None:
    """With its field and its words; nothing is reported."""
    ear, faults = Ear(), list[Any]()

    async def handler(call: Call) -> bytes:
        raise failure("why", field="where")

    Desk(lambda *fault: faults.append(fault)).method("/a/B", handler)(a_call(ear))
    assert (ear.told, faults) == ([(1, status, "where: why")], [])


@pytest.mark.parametrize("broken", [InvariantBroken("a secret"), KeyError("a secret")])
async def test_a_fault_is_reported_and_its_words_are_kept(broken: Exception) -> None:
    """What was not foreseen is a broken law too."""
    ear, faults = Ear(), list[Any]()

    async def handler(call: Call) -> bytes:
        raise broken

    Desk(lambda *fault: faults.append(fault)).method("/a/B", handler)(a_call(ear))
    assert ear.told == [(1, Status.INTERNAL, "an internal fault; it has been reported")]
    ((place, fault),) = faults
    assert (place, type(fault), "a secret" in str(fault)) == ("/a/B", InvariantBroken, True)


async def test_a_handler_runs_where_its_call_is_read_and_on_when_it_has_what_it_waits_for() -> None:
    """At once where it waits for nothing; else when its future is done, also after giving way to others."""
    ear, reply = Ear(), asyncio.get_running_loop().create_future()

    async def handler(call: Call) -> bytes:
        if call.head.encoding:
            await asyncio.sleep(0)
            return call.message + await reply
        return call.message

    method = Desk(lambda *_: None).method("/a/B", handler)
    method(a_call(ear))
    assert ear.told == [(1, b"hi")]
    method(a_call(ear, encoding="identity"))
    assert ear.told == [(1, b"hi")]
    await asyncio.sleep(0)
    reply.set_result(b" there")
    await asyncio.sleep(0)
    assert ear.told == [(1, b"hi"), (1, b"hi there")]


async def test_a_call_whose_work_is_given_up_is_told_so() -> None:
    """It does not keep its place for ever; whoever gave it up hears of it too."""
    ear, reply, heard = Ear(), asyncio.get_running_loop().create_future(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))

    async def handler(call: Call) -> bytes:
        return await reply

    Desk(lambda *_: None).method("/a/B", handler)(a_call(ear))
    reply.cancel()
    await asyncio.sleep(0)
    assert (ear.told, len(heard)) == ([(1, Status.UNAVAILABLE, "it was given up")], 1)


async def test_a_span_tells_the_method_and_how_it_ended() -> None:
    """In the trace that the proxy began."""
    exporter, provider, ear = InMemorySpanExporter(), TracerProvider(), Ear()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def handler(call: Call) -> bytes:
        await asyncio.sleep(0)
        raise NotFound("nobody")

    method = Desk(lambda *_: None, provider.get_tracer("test")).method("/a/B", handler)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    method(a_call(ear, metadata={"traceparent": parent}))
    await asyncio.gather(*desk._kept)
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.attributes["rpc.grpc.status_code"]) == ("a/B", 5)
    assert f"{span.context.trace_id:032x}" in parent
    assert ear.told == [(1, Status.NOT_FOUND, "nobody")]
    provider.shutdown()
