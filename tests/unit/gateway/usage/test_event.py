"""Client-sent events: what may pass, and the rule that everything else breaks."""

from __future__ import annotations

import json

import msgspec
import pytest

from billing_core.contract.usage_event import text_of_field
from billing_core.errors import InvalidInput, UnknownField
from gateway.usage.event import Bounds, check_meters, check_time, digest_of, id_in, read_event, record_of

GOOD: dict[str, object] = {"id": "e1", "event": "llm", "time": 1_000, "customer": "acme"}


def raw(**more: object) -> bytes:
    return json.dumps(GOOD | more).encode()


def numbered(text: str) -> bytes:
    return raw()[:-1] + b', "fields": {"n": ' + text.encode() + b"}}"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("0", "0"),
        ("-0.0", "0"),
        ("5", "5"),
        ("5.0", "5"),
        ("1.50", "1.5"),
        ("1e2", "100"),
        ("1.5E-3", "0.0015"),
        ("0.000000000001", "0.000000000001"),
        ("9007199254740991", "9007199254740991"),
        ("0.1", "0.1"),
        ("0.30000000000000004", None),
        ("0.0000000000001", None),
        ("1e-400", None),
        ("1e400", None),
        ("1e99999999999999999999", None),
        ("9007199254740992", None),
        ("9007199254740991.5", None),
        ("1" * 400, None),
        ("0.1234567890120000000000000000000000001", None),
        ("-1", None),
        ("-0.5", None),
        ("true", None),
        ("null", None),
        ("[1]", None),
        ("{}", None),
        ("NaN", None),
        ("Infinity", None),
        ('"x\\u0000y"', None),
        ('"' + "x" * 1_025 + '"', None),
    ],
)
def test_numbers_are_exact_decimal_text_or_refused(sent: str, kept: str | None) -> None:
    """No float touches them: 0.1 stays 0.1, and what has more than twelve digits after the point is refused."""
    if kept is None:
        with pytest.raises(InvalidInput):
            read_event(numbered(sent))
    else:
        number = read_event(numbered(sent)).fields["n"]
        assert text_of_field(number) == kept
        assert isinstance(number, bytes if "." in kept else int)


def test_text_stays_text_even_if_it_looks_like_a_number() -> None:
    """A meter that adds up would refuse it."""
    assert read_event(raw(fields={"n": "5", "host": "a-1"})).fields == {"n": "5", "host": "a-1"}


@pytest.mark.parametrize(
    ("time", "ms"),
    [
        (1_000, 1_000),
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:01.25+01:00", 1_250),
        ("1970-01-01T00:00:01", None),
        ("yesterday", None),
        (1.5, None),
        (-1, None),
        (253_402_300_800_000, None),
        (True, None),
        (None, None),
    ],
)
def test_time_is_rfc_3339_with_an_offset_or_whole_milliseconds(time: object, ms: int | None) -> None:
    """Never a local time, never a float."""
    if ms is None:
        with pytest.raises(InvalidInput) as caught:
            read_event(raw(time=time))
        assert caught.value.field == "time"
    else:
        assert read_event(raw(time=time)).event_at_ms == ms


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "a b"}, "id"),
        ({"id": "ü"}, "id"),
        ({"id": "x" * 256}, "id"),
        ({"id": 7}, "id"),
        ({"event": "a:b"}, "event"),
        ({"event": ""}, "event"),
        ({"customer": "-x"}, "customer"),
        ({"fields": {"a b": 1}}, "fields"),
        ({"fields": {f"f{n}": n for n in range(65)}}, "fields"),
        ({"fields": [1]}, "fields"),
        ({"quantity": 1}, "quantity"),
    ],
)
def test_a_rule_that_is_broken_is_named_with_its_field(change: dict[str, object], field: str) -> None:
    """One rule, one field."""
    with pytest.raises(InvalidInput) as caught:
        read_event(raw(**change))
    assert caught.value.field == field


@pytest.mark.parametrize("field", GOOD)
def test_every_field_but_fields_is_required(field: str) -> None:
    """An event without a time cannot be retried."""
    with pytest.raises(InvalidInput, match="is required") as caught:
        read_event(json.dumps({name: value for name, value in GOOD.items() if name != field}).encode())
    assert caught.value.field == field


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"7",
        b"null",
        b"{",
        b'{"id": "e1"',
        b"\xff",
        b"[" * 50_000,
        raw()[:-1] + b', "fields": {"n": ' + b"[" * 5_000 + b"]" * 5_000 + b"}}",
        raw()[:-1] + b', "id": "e2"}',
        raw()[:-1] + b', "fields": {"n": 1, "n": 2}}',
        raw()[:-1] + b', "fields": {"n": 1, "\\u006e": 2}}',
        raw() + b"x",
    ],
)
def test_what_is_no_sound_json_object_is_refused(body: bytes) -> None:
    """Cut off, too deep, not UTF-8, or naming something twice."""
    with pytest.raises(InvalidInput):
        read_event(body)


def test_an_unknown_field_is_called_so() -> None:
    """A misspelt field must not pass in silence."""
    with pytest.raises(UnknownField):
        read_event(raw(feilds={}))


@pytest.mark.parametrize(
    ("body", "event_id"),
    [(raw(time=-1), "e1"), (raw(id=7), None), (b"7", None), (b"{", None), (b'{"id": "\xff"}', None)],
)
def test_a_rejected_event_is_named_by_its_id_where_it_has_one(body: bytes, event_id: str | None) -> None:
    """So that its answer can be found."""
    assert id_in(body) == event_id


@pytest.mark.parametrize(
    ("now_ms", "sound"), [(1_100, True), (1_101, False), (1_000, True), (990, True), (989, False)]
)
def test_an_event_is_neither_too_old_nor_from_the_future(now_ms: int, sound: bool) -> None:
    """Event at 1,000; age up to 100, skew up to 10."""
    bounds = Bounds(max_age_ms=100, max_skew_ms=10)
    if sound:
        check_time(read_event(raw()), now_ms=now_ms, bounds=bounds)
    else:
        with pytest.raises(InvalidInput) as caught:
            check_time(read_event(raw()), now_ms=now_ms, bounds=bounds)
        assert caught.value.field == "time"


@pytest.mark.parametrize(
    ("fields", "meters", "field"),
    [
        ({}, {"llm": {}}, None),
        ({"n": 5}, {"llm": {"n": 0}}, None),
        ({"n": 1.25}, {"llm": {"n": 2}}, None),
        ({"n": "host-1"}, {"llm": {"n": -1}}, None),
        ({"n": 7}, {"llm": {"n": -1}}, None),
        ({}, {}, "event"),
        ({}, {"other": {}}, "event"),
        ({}, {"llm": {"n": 0}}, "fields.n"),
        ({}, {"llm": {"n": -1}}, "fields.n"),
        ({"n": 1.25}, {"llm": {"n": 0}}, "fields.n"),
        ({"n": 1.25}, {"llm": {"n": 1}}, "fields.n"),
        ({"n": "5"}, {"llm": {"n": 0}}, "fields.n"),
    ],
)
def test_an_event_fits_the_meters_that_read_it(
    fields: dict[str, object], meters: dict[str, dict[str, int]], field: str | None
) -> None:
    """A name that no meter reads is a misspelt name."""
    event = read_event(raw(fields=fields))
    if field is None:
        check_meters(event, meters)
    else:
        with pytest.raises(InvalidInput) as caught:
            check_meters(event, meters)
        assert caught.value.field == field


def test_the_same_event_has_the_same_digest_however_it_is_written() -> None:
    """Spaces, order of fields, 1.50 for 1.5, 2.0 for 2, +01:00 for Z."""
    one = read_event(raw(time="1970-01-01T01:00:01+01:00", fields={"a": 1.5, "b": "x", "c": 2}))
    other = read_event(raw()[:-1] + b', "fields" : {"b":"x","c":2.0,"a":1.50} }')
    assert digest_of(record_of(one)) == digest_of(record_of(other))
    for fields in ({"a": "1.5", "b": "x", "c": 2}, {"a": 1.5, "b": "x", "c": "2"}):
        assert digest_of(record_of(one)) != digest_of(record_of(read_event(raw(fields=fields))))


def test_the_record_says_all_that_the_worker_needs() -> None:
    """Whole numbers as numbers, others as decimal text."""
    event = read_event(raw(fields={"n": 1.5, "m": 7, "host": "a"}))
    assert msgspec.msgpack.decode(record_of(event)) == [
        "e1",
        "llm",
        1_000,
        "acme",
        {"host": "a", "m": 7, "n": b"1.5"},
    ]
