"""Entries of Envoy's access log: read as the official classes write them, and what they cost."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.contract.usage_event import EventBody
from billing_core.errors import InvalidInput
from billing_core.values.money import MAX_EXACT
from gateway.admission.order import Charge, Mode, Order
from gateway.edge.accesslog import desk
from gateway.edge.accesslog.cost import charge_of, evidence_of
from gateway.edge.accesslog.desk import AccessLogDesk
from gateway.edge.accesslog.entry import METADATA, LogEntry, entries_in, entry_of, may_settle
from gateway.edge.accesslog.terms import terms_beside, terms_in
from gateway.edge.proxy.settlement import Ending
from tests.envoy_schema import message

MESSAGE = message("envoy.service.accesslog.v3.StreamAccessLogsMessage")
HELD = Charge(feature="tokens", quantity=500)
HOLD = Order(charges=(HELD,), mode=Mode.HOLD, ttl_ms=1)
HOLD_ID = "hold_" + "0" * 32
WHOLE, GONE, LOST = Ending.WHOLE, Ending.CLIENT_LOST, Ending.UPSTREAM_LOST


def filled(entry: Any, **told: str) -> None:
    """What Envoy says of a request that our filter has let pass."""
    common, metadata = entry.common_properties, entry.common_properties.metadata.filter_metadata
    common.start_time.seconds, common.upstream_cluster, common.sample_rate = 1_700_000_000, "upstream", 1.0
    metadata["envoy.other"].update({"hold": "hold_of_another_filter", "settle": "held"})
    metadata[METADATA].update(
        {"hold": HOLD_ID, "settle": "held", "ext_authz_duration": 3, "more": {"a": [1]}} | told
    )
    common.duration.FromNanoseconds(1_250_000_000)
    entry.request.path, entry.request.request_body_bytes = "/x?hold=hold_1", 300
    entry.response.response_code.value, entry.response.response_body_bytes = 200, 70_000
    entry.response.response_headers["x-units-used"] = "77"
    entry.response.response_trailers["x-cost"] = "78"


def one(**told: str) -> Any:
    asked = MESSAGE()
    filled(asked.http_logs.log_entry.add(), **told)
    return asked


def read(asked: Any) -> LogEntry | None:
    (data,) = entries_in(asked.SerializeToString())
    assert may_settle(data)
    return entry_of(data)


def test_an_entry_is_read_as_envoy_writes_it() -> None:
    """All that is needed, and nothing of another filter."""
    assert read(one()) == LogEntry(
        hold_id=HOLD_ID,
        settle="held",
        status=200,
        request_bytes=300,
        response_bytes=70_000,
        duration_ns=1_250_000_000,
        headers={"x-units-used": "77"},
        trailers={"x-cost": "78"},
    )


def test_entries_without_a_hold_are_passed_over_unread() -> None:
    """A message may bring some of each, the name of the log first; logs of connections are none of ours."""
    asked = MESSAGE()
    asked.identifier.log_name, asked.identifier.node.id = "tallygate", "hold_envoy"
    asked.http_logs.log_entry.add().request.path = "/hold_1"
    filled(asked.http_logs.log_entry.add())
    asked.http_logs.log_entry.add().common_properties.metadata.filter_metadata[METADATA].update({"x": "y"})
    assert [may_settle(entry) for entry in entries_in(asked.SerializeToString())] == [False, True, False]
    connections = MESSAGE()
    connections.tcp_logs.log_entry.add().connection_properties.sent_bytes = 1
    assert entries_in(connections.SerializeToString()) == entries_in(b"") == []


@pytest.mark.parametrize("told", [{"hold": ""}, {"settle": ""}])
def test_what_another_way_settles_is_left_to_it(told: dict[str, str]) -> None:
    """A hold without terms is for whoever asked for it."""
    assert read(one(**told, x=HOLD_ID)) is None


@pytest.mark.parametrize(("kind", "counts"), [(0, True), (6, True), (4, False), (5, False), (9, False)])
def test_only_the_last_word_of_a_request_counts(kind: int, counts: bool) -> None:
    """Not that it begins, goes on, or is over at one of several upstreams."""
    asked = one()
    asked.http_logs.log_entry[0].common_properties.access_log_type = kind
    assert (read(asked) is not None) == counts
    asked.http_logs.log_entry[0].common_properties.intermediate_log_entry = True
    assert read(asked) is None


FLAGS = {
    "downstream_connection_termination": GONE,
    "downstream_remote_reset": GONE,
    "downstream_protocol_error": GONE,
    "upstream_request_timeout": GONE,
    "stream_idle_timeout": GONE,
    "duration_timeout": GONE,
    "upstream_max_stream_duration_reached": GONE,
    "upstream_connection_termination": LOST,
    "upstream_remote_reset": LOST,
    "upstream_connection_failure": LOST,
    "upstream_protocol_error": LOST,
    "upstream_overflow": LOST,
    "no_healthy_upstream": LOST,
    "local_reset": LOST,
    "overload_manager": LOST,
    "upstream_retry_limit_exceeded": WHOLE,
    "delay_injected": WHOLE,
    "fault_injected": WHOLE,
    "response_from_cache_filter": WHOLE,
    "rate_limited": WHOLE,
}


@pytest.mark.parametrize(("flag", "ending"), FLAGS.items())
def test_response_flags_say_how_it_ended(flag: str, ending: Ending) -> None:
    """By their names; a flag that is not raised says nothing."""
    asked = one()
    flags = asked.http_logs.log_entry[0].common_properties.response_flags
    setattr(flags, flag, True)
    entry = read(asked)
    assert entry is not None
    assert entry.ending is ending


def test_a_client_that_went_is_told_before_an_upstream_that_was_left() -> None:
    """Envoy resets the upstream of a client that went, and raises both."""
    asked = one()
    flags = asked.http_logs.log_entry[0].common_properties.response_flags
    flags.downstream_connection_termination = flags.local_reset = True
    entry = read(asked)
    assert entry is not None
    assert entry.ending is GONE


@settings(deadline=None)
@given(data=st.data())
def test_noise_is_refused_or_passed_over(data: st.DataObject) -> None:
    """Whatever bytes come, nothing else happens."""
    whole = one().SerializeToString()
    at = data.draw(st.integers(0, len(whole)))
    noise = whole[:at] + data.draw(st.binary(max_size=40)) + whole[at + data.draw(st.integers(0, 40)) :]
    try:
        for entry in entries_in(noise):
            found = entry_of(entry)
            if found is not None:
                charge_of(terms_in(found.settle), found)
    except InvalidInput:
        return


def beside(**words: str) -> str:
    return terms_beside({"feature": "tokens", "quantity": "500", "mode": "hold"} | words, HOLD)


@pytest.mark.parametrize(
    ("settle", "units"),
    [
        ("held", 500),
        ("response_bytes", 70_000),
        ("response_bytes/1024", 69),
        ("request_bytes", 300),
        ("bytes", 70_300),
        ("bytes/1000", 71),
        ("seconds", 2),
        ("seconds/60", 1),
        ("header:x-units-used", 77),
        ("header:X-Units-Used", 77),
        ("trailer:x-cost", 78),
        ("header:x-cost", 500),
        ("trailer:x-nothing", 500),
    ],
)
def test_each_measure_counts_what_it_says(settle: str, units: int) -> None:
    """What was begun is a unit; what nobody has seen is as held."""
    entry = read(one(settle=beside(settle=settle)))
    assert entry is not None
    assert charge_of(terms_in(entry.settle), entry) == Charge(feature="tokens", quantity=units)


@pytest.mark.parametrize(
    ("words", "ending", "status", "units"),
    [
        ({}, WHOLE, 200, 70_000),
        ({}, WHOLE, 404, 70_000),
        ({}, WHOLE, 503, None),
        ({}, GONE, 200, 70_000),
        ({}, LOST, 200, 70_000),
        ({}, LOST, 503, None),
        ({}, GONE, 0, 70_000),
        ({"free": ""}, WHOLE, 503, 70_000),
        ({"free": "404,5xx"}, WHOLE, 404, None),
        ({"free": "404,5xx"}, WHOLE, 403, 70_000),
        ({"free": "0xx"}, GONE, 0, None),
        ({"on_disconnect": "held"}, GONE, 200, 500),
        ({"on_disconnect": "release"}, GONE, 200, None),
        ({"on_disconnect": "release"}, LOST, 200, 70_000),
        ({"on_upstream_loss": "held"}, LOST, 200, 500),
        ({"on_upstream_loss": "release"}, LOST, 200, None),
        ({"on_upstream_loss": "release"}, WHOLE, 200, 70_000),
    ],
)
def test_what_is_charged_by_status_and_ending(
    words: dict[str, str], ending: Ending, status: int, units: int | None
) -> None:
    """What is free, then the policy, then the measure."""
    terms = terms_in(beside(settle="response_bytes", **words))
    entry = LogEntry(hold_id=HOLD_ID, settle="", ending=ending, status=status, response_bytes=70_000)
    assert charge_of(terms, entry) == (None if units is None else Charge(feature="tokens", quantity=units))


def test_no_number_is_too_large_to_be_counted() -> None:
    """More than can be counted exactly is as much as can."""
    entry = LogEntry(hold_id=HOLD_ID, settle="", status=200, response_bytes=2**64 - 1)
    charge = charge_of(terms_in(beside(settle="response_bytes")), entry)
    assert charge is not None
    assert charge.quantity == MAX_EXACT


def test_the_evidence_is_added_to_the_body_of_the_hold() -> None:
    """Whose it is stays what it was."""
    placed = EventBody(event_id="dec_1", tenant_id="t1", customer_id="acme", features=("tokens",), path="team:ml")
    entry = LogEntry(hold_id=HOLD_ID, settle="", ending=GONE, status=200, response_bytes=12)
    body = msgspec.msgpack.decode(
        evidence_of(terms_in(beside(settle="bytes", on_disconnect="held")), entry, placed=placed), type=EventBody
    )
    assert msgspec.structs.replace(body, properties={}) == placed
    assert body.properties == {
        "ending": "client_lost",
        "policy": "held",
        "status": "200",
        "delivered_bytes": "12",
        "has_usage": "0",
    }


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"settle": ""}, "settle"),
        ({"settle": "bytes/0"}, "settle"),
        ({"settle": "held/2"}, "settle"),
        ({"settle": "header:"}, "settle"),
        ({"settle": "header:a b"}, "settle"),
        ({"settle": "tokens"}, "settle"),
        ({"free": "5xx"}, "settle"),
        ({"settle": "held", "free": "5"}, "free"),
        ({"settle": "held", "free": "5xx;4xx"}, "free"),
        ({"settle": "held", "on_disconnect": "drain"}, "on_disconnect"),
        ({"settle": "held", "on_upstream_loss": ""}, "on_upstream_loss"),
    ],
)
def test_terms_that_contradict_themselves_are_a_mistake(words: dict[str, str], field: str) -> None:
    """Told at the first request, which then does not pass."""
    with pytest.raises(InvalidInput) as caught:
        beside(**words)
    assert caught.value.field == field


def test_only_a_hold_has_terms() -> None:
    """And one without them has none."""
    assert beside() == ""
    with pytest.raises(InvalidInput):
        terms_beside({"settle": "held"}, msgspec.structs.replace(HOLD, mode=Mode.CONSUME))
    with pytest.raises(InvalidInput):
        terms_in("settle=held")


def test_terms_that_nobody_would_write_are_not_read() -> None:
    """What is read is remembered, and strangers may reach the port."""
    long = beside(settle="held") + "&x="
    assert terms_in(long.ljust(1_024, "x")).measure.value == "held"
    with pytest.raises(InvalidInput) as caught:
        terms_in(long.ljust(1_025, "x"))
    assert caught.value.field == "settle"


class Sent:
    """A stream, as far as a desk knows one."""

    def __init__(self) -> None:
        self.taken_bytes = 0

    def taken(self, data: bytes) -> None:
        self.taken_bytes += len(data)


async def test_more_than_can_wait_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that come and go are not bounded by the room of a stream; each message is taken in the end."""
    monkeypatch.setattr(desk, "_MOST_BYTES", 100)
    log, sent = AccessLogDesk(cast("Any", None), cast("Any", None), deadline_ms=1), Sent()
    for _ in range(5):
        log.take(cast("Any", sent), bytes(40))
    assert (sent.taken_bytes, log.read()) == (120, {"dropped": 3})
    keeper = asyncio.create_task(log.keep())
    await log.stop(30)
    assert (sent.taken_bytes, log.read()) == (200, {"dropped": 3, "unread": 2})
    keeper.cancel()
    log.take(cast("Any", sent), bytes(40))
    await log.stop(0)
    assert sent.taken_bytes == 200
