"""CloudEvents: an event of our own in other words, in whichever mode; and each rule of theirs."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from billing_core.errors import InvalidInput
from gateway.usage.batch import CLOUD, OWN, Form, array_of, cloud_events_of, lines_of
from gateway.usage.cloudevent import cloud_id_in, is_binary, read_cloud_event, structured
from gateway.usage.event import read_event, record_of

TIME = "2026-05-01T12:00:00Z"
GOOD: dict[str, Any] = {
    "specversion": "1.0",
    "source": "/gpu/7",
    "id": "e1",
    "type": "llm.tokens",
    "subject": "acme",
    "time": TIME,
    "data": {"input": 374, "model": "small"},
}
SOURCES = st.sampled_from(
    ["/gpu/7", "urn:uuid:6e8bc430", "https://a.example/x?y=1&z=%20#top", "1-555-123", "a", "%7C"]
)
IDS = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=12)
NUMBERS = st.one_of(st.integers(0, 2**53 - 1), st.integers(0, 10**9).map(lambda number: number / 1_000))
FIELDS = st.dictionaries(
    st.sampled_from(["input", "cost", "model", "x.y"]), st.one_of(NUMBERS, st.text("aü \"'|", max_size=9))
)


def raw(**more: Any) -> bytes:
    """The good one with changes; what is told as `...` is left out."""
    return json.dumps({name: value for name, value in (GOOD | more).items() if value is not ...}).encode()


def written(cloud: dict[str, Any]) -> dict[str, Any]:
    """The same event in our own words, its id put together as the HTTP binding writes texts."""
    plain = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"')
    event_id = f"{cloud['source']}|{quote(cloud['id'], safe=plain)}"
    return {
        "id": event_id,
        "event": cloud["type"],
        "time": cloud["time"],
        "customer": cloud["subject"],
        "fields": cloud["data"],
    }


def in_headers(cloud: dict[str, Any]) -> tuple[CIMultiDict[str], bytes]:
    """The same in binary mode."""
    headers = CIMultiDict(
        {f"Ce-{name}": quote(value, safe="/:") for name, value in cloud.items() if name != "data"}
    )
    return headers, json.dumps(cloud["data"]).encode()


def records(raws: list[bytes], form: Form) -> list[bytes]:
    return [record_of(form.read(one)) for one in raws]


@given(
    events=st.lists(
        st.fixed_dictionaries({"source": SOURCES, "id": IDS, "data": FIELDS}).map(lambda one: GOOD | one),
        max_size=4,
    ),
    is_ascii=st.booleans(),
)
def test_the_same_events_are_the_same_in_all_five_forms(events: list[dict[str, Any]], *, is_ascii: bool) -> None:
    """As the same bytes in the stream, and so the same event if they come again in another form."""
    own = [written(one) for one in events]
    if any(len(one["id"]) > 255 for one in own):
        return
    told = [record_of(read_event(json.dumps(one).encode())) for one in own]
    body = json.dumps(own, ensure_ascii=is_ascii).encode()
    lines = b"".join(json.dumps(one, ensure_ascii=is_ascii).encode() + b"\r\n" for one in own)
    batch = cloud_events_of(json.dumps(events, ensure_ascii=is_ascii).encode())
    assert records(array_of(body).cut(), OWN) == told
    assert records(lines_of(lines).cut(), OWN) == told
    assert records(batch.cut(), batch.form) == told
    for one, record in zip(events, told, strict=True):
        headers, data = in_headers(one)
        assert is_binary(headers)
        assert records([structured(headers, data, content_type="application/json")], CLOUD) == [record]
        coded = {name: value for name, value in one.items() if name != "data"}
        coded["data_base64"] = base64.b64encode(data).decode()
        assert records([json.dumps(coded).encode()], CLOUD) == [record]


@given(first=st.tuples(SOURCES, IDS), second=st.tuples(SOURCES, IDS))
def test_two_events_have_one_id_only_if_source_and_id_are_the_same(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    """A source knows no other source's ids."""
    ids = [cloud_id_in(raw(source=source, id=cloud_id)) for source, cloud_id in (first, second)]
    assert None not in ids
    assert (ids[0] == ids[1]) == (first == second)


def test_an_event_in_our_own_words() -> None:
    """The worked example; attributes that are not ours are passed over, and those that are null are not there."""
    event = read_cloud_event(raw(dataschema="urn:x", traceparent="00-1", retries=3, urgent=True, sequence=None))
    assert (event.event_id, event.name, event.customer_id) == ("/gpu/7|e1", "llm.tokens", "acme")
    assert (event.event_at_ms, event.fields) == (1_777_636_800_000, {"input": 374, "model": "small"})
    assert read_cloud_event(raw(id="a b%|ü")).event_id == "/gpu/7|a%20b%25|%C3%BC"


@pytest.mark.parametrize(
    "more", [{"data": ...}, {"data": None}, {"data": {}}, {"data": ..., "data_base64": "e30="}]
)
def test_an_event_without_data_has_no_fields(more: dict[str, Any]) -> None:
    """There is nothing to read in it."""
    assert read_cloud_event(raw(**more)).fields == {}


def test_numbers_of_the_data_stay_exact() -> None:
    """No float touches them, in no mode."""
    data = b'{"n": 0.1, "m": 1e2}'
    sent = raw(data="here").replace(b'"here"', data)
    expected = {"n": b"0.1", "m": 100}
    assert read_cloud_event(sent).fields == expected
    headers, _ = in_headers(GOOD)
    assert read_cloud_event(structured(headers, data, content_type="")).fields == expected


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"specversion": ...}, "specversion"),
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": 1}, "specversion"),
        ({"id": ...}, "id"),
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"id": "x" * 249}, "id"),
        ({"source": ...}, "source"),
        ({"source": "a b"}, "source"),
        ({"source": "a|b"}, "source"),
        ({"source": "ü"}, "source"),
        ({"type": ""}, "type"),
        ({"type": "a b"}, "type"),
        ({"subject": ...}, "subject"),
        ({"subject": "partner/5"}, "subject"),
        ({"time": ...}, "time"),
        ({"time": 1_772_000_000_000}, "time"),
        ({"time": "2026-05-01T12:00:00"}, "time"),
        ({"time": "yesterday"}, "time"),
        ({"datacontenttype": "application/xml"}, "datacontenttype"),
        ({"datacontenttype": 1}, "datacontenttype"),
        ({"data": [1]}, "data"),
        ({"data": "text"}, "data"),
        ({"data": {"input": -1}}, "data.input"),
        ({"data": {"input": {}}}, "data.input"),
        ({"data": {"a b": 1}}, "data"),
        ({"data_base64": "e30="}, "data_base64"),
        ({"data": ..., "data_base64": "e30"}, "data_base64"),
        ({"data": ..., "data_base64": "eyI="}, "data_base64"),
        ({"data": ..., "data_base64": 7}, "data_base64"),
        ({"data": ..., "data_base64": base64.b64encode(b"[" * 60_000).decode()}, "data_base64"),
        ({"customer_id": "acme"}, "customer_id"),
        ({"Retries": 1}, "Retries"),
        ({"retries": 1.5}, "retries"),
        ({"retries": 2**31}, "retries"),
        ({"retries": [1]}, "retries"),
    ],
)
def test_an_event_that_breaks_a_rule_is_refused(more: dict[str, Any], field: str) -> None:
    """In the words of CloudEvents."""
    with pytest.raises(InvalidInput) as refused:
        read_cloud_event(raw(**more))
    assert CLOUD.failure(refused.value).field == field


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"[]",
        b"7",
        b"{",
        b"\xff",
        b'{"id":"\\ud800"}',
        b'{"id":"\xff"}',
        b"[" * 60_000,
        raw()[:-1] + b',"id":"e2"}',
    ],
)
def test_what_is_no_event_is_refused(sent: bytes) -> None:
    """Nor has it an id, but for the one that came twice."""
    with pytest.raises(InvalidInput):
        read_cloud_event(sent)
    assert cloud_id_in(sent) in (None, "/gpu/7|e2")


@pytest.mark.parametrize(
    ("headers", "body", "field"),
    [
        ({"ce-id": "%C0%A0"}, b"", "id"),
        ({"ce-id": "%ff"}, b"", "id"),
        ({"ce-data": "{}"}, b"", "data"),
        ({"ce-datacontenttype": "application/json"}, b"", "datacontenttype"),
        (CIMultiDict([("ce-id", "1"), ("CE-ID", "2")]), b"", "id"),
        ({"ce-id": "1"}, b"{} {}", "body"),
        ({"ce-id": "1"}, b'{},"subject":"other"', "body"),
    ],
)
def test_headers_that_break_a_rule_are_refused(headers: dict[str, str], body: bytes, field: str) -> None:
    """And no body is more than the data."""
    with pytest.raises(InvalidInput) as refused:
        structured(headers, body, content_type="application/json")
    assert refused.value.field == field


def test_a_header_may_be_in_quotation_marks() -> None:
    """As older senders write it; percents in them are decoded once."""
    headers, data = in_headers(GOOD)
    event = read_cloud_event(structured({**headers, "Ce-id": '"a \\"b\\" %2525"'}, data, content_type=""))
    assert event.event_id == "/gpu/7|a%20%22b%22%20%2525"


def test_headers_of_no_event_are_none() -> None:
    """What is only like them is nobody's business."""
    assert not is_binary({"ce-traceparent": "00-1", "cell": "x"})
