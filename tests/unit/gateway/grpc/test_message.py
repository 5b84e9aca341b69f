"""What Envoy asks and is answered, byte by byte, against the official messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.errors import InvalidInput
from gateway.edge.envoy import reply
from gateway.edge.envoy.ask import authorization_of, health_of, rate_limit_of
from gateway.edge.envoy.protobuf import fields_of
from gateway.edge.grpc.status import Status
from tests.envoy_schema import message

CHECK, CHECKED = message("envoy.service.auth.v3.CheckRequest"), message("envoy.service.auth.v3.CheckResponse")
LIMIT = message("envoy.service.ratelimit.v3.RateLimitRequest")
LIMITED = message("envoy.service.ratelimit.v3.RateLimitResponse")
HEALTH, HEALTHY = message("grpc.health.v1.HealthCheckRequest"), message("grpc.health.v1.HealthCheckResponse")
WANTED = frozenset({"authorization", "x-api-key", "x-request-id"})

texts = st.text(max_size=200)
names = st.sampled_from(["authorization", "x-api-key", "x-request-id", "accept", "x" * 300, ""])
headers = st.dictionaries(names | texts, texts, max_size=8)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
pairs = st.lists(st.tuples(words, words), max_size=4)
uint32, uint64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


def a_check(told: dict[str, str], extensions: dict[str, str], *, path: str) -> Any:
    check = CHECK()
    check.attributes.source.address.socket_address.address = "10.0.0.1"
    check.attributes.request.time.seconds = 1_700_000_000
    http = check.attributes.request.http
    http.id, http.method, http.path, http.size, http.raw_body = "7", "GET", path, -1, path.encode()
    http.headers.update(told)
    check.attributes.context_extensions.update(extensions)
    return check


def check_of(raw: bytes) -> Any:
    return authorization_of(raw, WANTED)


def outcome(read: Callable[[bytes], Any], raw: bytes) -> tuple[Any, InvalidInput | None]:
    """What was read, or why it was refused."""
    try:
        return read(raw), None
    except InvalidInput as refusal:
        return None, refusal


@settings(deadline=None)
@given(told=headers, extensions=headers, path=texts)
def test_a_check_says_what_envoy_wrote(told: dict[str, str], extensions: dict[str, str], path: str) -> None:
    """The wanted headers and all that stands beside the route; the rest is passed over, whatever its size."""
    asked = authorization_of(a_check(told, extensions, path=path).SerializeToString(), WANTED)
    assert asked.headers == {name: value for name, value in told.items() if name in WANTED}
    assert asked.extensions == extensions


@settings(deadline=None)
@given(told=st.lists(st.tuples(names, texts), max_size=6))
def test_headers_may_come_as_a_list(told: list[tuple[str, str]]) -> None:
    """Envoy sends them so where it is told to keep each; of several the first is taken."""
    check = CHECK()
    for number, (name, value) in enumerate(told):
        header = check.attributes.request.http.header_map.headers.add(key=name)
        if number % 2:
            header.raw_value = value.encode("latin-1", "replace")
        else:
            header.value = value
    expected: dict[str, str] = {}
    for number, (name, value) in enumerate(told):
        if name in WANTED:
            read = value.encode("latin-1", "replace").decode("latin-1") if number % 2 else value
            expected.setdefault(name, read)
    assert authorization_of(check.SerializeToString(), WANTED).headers == expected


@settings(deadline=None)
@given(domain=texts, hits=uint32, descriptors=st.lists(st.tuples(pairs, st.none() | uint64), max_size=5))
def test_a_rate_limit_request_says_what_envoy_wrote(domain: str, hits: int, descriptors: Any) -> None:
    """An explicit 0 of a descriptor is told from silence."""
    asked = LIMIT(domain=domain, hits_addend=hits)
    for entries, own in descriptors:
        descriptor = asked.descriptors.add()
        for key, value in entries:
            descriptor.entries.add(key=key, value=value)
        descriptor.limit.requests_per_unit = 5
        if own is not None:
            descriptor.hits_addend.value = own
    read = rate_limit_of(asked.SerializeToString())
    assert (read.domain, read.hits) == (domain, hits)
    assert [(list(one.entries), one.hits) for one in read.descriptors] == descriptors


def test_a_number_above_its_type_is_cut_as_the_official_reader_cuts_it() -> None:
    """To 32 bits."""
    raw = b"\x0a\x01d\x18\x85\x80\x80\x80\x10"
    assert rate_limit_of(raw).hits == LIMIT.FromString(raw).hits_addend == 5


def test_there_is_a_bound_on_descriptors() -> None:
    """One request is one step in Redis, and that has a size."""
    asked = LIMIT(domain="t1")
    for _ in range(17):
        asked.descriptors.add()
    with pytest.raises(InvalidInput, match="at most 16"):
        rate_limit_of(asked.SerializeToString())


@settings(deadline=None)
@given(name=texts)
def test_a_health_check_names_a_service(name: str) -> None:
    """Or all of them."""
    assert health_of(HEALTH(service=name).SerializeToString()) == name


def test_what_comes_in_pieces_is_one_message() -> None:
    """As the format wants it: a message that stands there twice is merged, a number or text is the last one."""
    first, second = a_check({"authorization": "a"}, {"feature": "f"}, path="/1"), CHECK()
    second.attributes.request.http.headers["x-api-key"] = "k"
    second.attributes.request.http.headers["authorization"] = "b"
    asked = authorization_of(first.SerializeToString() + second.SerializeToString(), WANTED)
    assert (asked.headers, asked.extensions) == ({"authorization": "b", "x-api-key": "k"}, {"feature": "f"})


@settings(deadline=None)
@given(base=st.sampled_from(["check", "limit", "health"]), data=st.data())
def test_damaged_messages_are_refused_or_read_as_the_official_reader_does(base: str, data: st.DataObject) -> None:
    """Nothing else is raised, and whatever the official reader takes is taken here, with the same words."""
    limit = LIMIT(domain="t1", hits_addend=300)
    limit.descriptors.add(hits_addend={"value": 7}).entries.add(key="key", value="tgk_x")
    kind, read, whole = {
        "check": (
            CHECK,
            lambda raw: authorization_of(raw, WANTED),
            a_check({"x-api-key": "k"}, {"f": "g"}, path="/"),
        ),
        "limit": (LIMIT, rate_limit_of, limit),
        "health": (HEALTH, health_of, HEALTH(service="all")),
    }[base]
    raw = bytearray(whole.SerializeToString())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        official = kind.FromString(cut)
    except DecodeError:
        official = None
    ours, refusal = outcome(read, cut)
    if refusal is not None:  # groups are long out of use: the official reader passes them over
        assert official is None or "a group" in refusal.detail
        return
    if official is None:
        return
    if base == "check":
        attributes = official.attributes
        assert ours.extensions == dict(attributes.context_extensions)
        told = attributes.request.http.headers
        assert ours.headers == {name: told[name] for name in WANTED if name in told}
    elif base == "limit":
        assert (ours.domain, ours.hits, len(ours.descriptors)) == (
            official.domain,
            official.hits_addend,
            len(official.descriptors),
        )
    else:
        assert ours == official.service


@settings(deadline=None)
@given(raw=st.binary(max_size=200))
def test_noise_is_refused_or_read(raw: bytes) -> None:
    """Never anything else."""
    for read in (check_of, rate_limit_of, health_of, fields_of):
        _, refusal = outcome(read, raw)
        assert refusal is None or refusal.field in ("message", "descriptors")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x08" + b"\xff" * 10,
        b"\x08" + b"\xff" * 10 + b"\x01",
        b"\x08\x80",
        b"\x00\x01",
        b"\x02\x00",
        b"\x0b\x0c",
        b"\x09\x01\x02",
        b"\xff\xff\xff\xff\xff\x01\x00",
        b"\x0a\x02\xff\xfe",
    ],
)
def test_what_is_not_well_formed_is_refused(raw: bytes) -> None:
    """Cut lengths, endless numbers, groups, field 0, tags above 32 bits, text that is no UTF-8."""
    with pytest.raises(InvalidInput):
        health_of(raw)


@settings(deadline=None)
@given(upstream=pairs, client=pairs, metadata=pairs)
def test_a_passing_answer_is_read_as_it_was_meant(upstream: Any, client: Any, metadata: Any) -> None:
    """Each header replaces what the client sent under its name; status is OK; metadata is text by name."""
    removed = [name for name, _ in client]
    read = CHECKED.FromString(reply.passed(upstream, client, removed=removed, metadata=metadata))
    assert read.ok_response.headers_to_remove == removed
    assert (read.status.code, read.WhichOneof("http_response")) == (0, "ok_response")
    added, told = read.ok_response.headers, read.ok_response.response_headers_to_add
    assert [(one.header.key, one.header.value) for one in added] == upstream
    assert [(one.header.key, one.header.value) for one in told] == client
    assert {one.append_action for one in (*added, *told)} <= {2}
    assert dict(read.dynamic_metadata) == dict(metadata)


@settings(deadline=None)
@given(status=st.sampled_from([401, 402, 403, 429]), told=pairs, body=st.text(max_size=300))
def test_a_refusing_answer_is_read_as_it_was_meant(status: int, told: Any, body: str) -> None:
    """Status, headers and body are those of HTTP; the code is not OK."""
    raw = reply.denied(status, told, body=body.encode(), status=Status.PERMISSION_DENIED)
    read = CHECKED.FromString(raw)
    assert (read.status.code, read.WhichOneof("http_response")) == (7, "denied_response")
    denied = read.denied_response
    assert (denied.status.code, denied.body) == (status, body)
    assert [(one.header.key, one.header.value) for one in denied.headers] == told


counts = st.none() | st.integers(0, 2**40)


@settings(deadline=None)
@given(
    counted=st.lists(
        st.builds(
            reply.Counted,
            is_over=st.booleans(),
            limit_units=counts,
            remaining_units=counts,
            reset_ms=st.none() | st.integers(-5, 10**12),
            name=words,
        ),
        min_size=1,
        max_size=4,
    ),
    told=pairs,
)
def test_a_rate_limit_answer_is_read_as_it_was_meant(counted: list[reply.Counted], told: Any) -> None:
    """A status for each descriptor in their order; numbers above 32 bits are told as the most that can be told."""
    read = LIMITED.FromString(reply.limited(counted, told))
    assert read.overall_code == (2 if any(one.is_over for one in counted) else 1)
    assert [(header.key, header.value) for header in read.response_headers_to_add] == told
    for one, status in zip(counted, read.statuses, strict=True):
        assert status.code == (2 if one.is_over else 1)
        assert status.HasField("current_limit") == (one.limit_units is not None)
        if one.limit_units is not None:
            limit = status.current_limit
            assert (limit.requests_per_unit, limit.name) == (min(one.limit_units, 2**32 - 1), one.name)
        assert status.limit_remaining == min(one.remaining_units or 0, 2**32 - 1)
        assert status.HasField("duration_until_reset") == (one.reset_ms is not None)
        reset = status.duration_until_reset
        assert reset.seconds * 1_000 + reset.nanos // 1_000_000 == max(0, one.reset_ms or 0)


@pytest.mark.parametrize("is_serving", [True, False])
def test_health_is_one_word(is_serving: bool) -> None:
    """Serving, or not."""
    assert HEALTHY.FromString(reply.health(is_serving=is_serving)).status == (1 if is_serving else 2)
