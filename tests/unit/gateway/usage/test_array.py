"""Arrays read at one go: what is taken there is what is taken one by one, as the same bytes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing_core.errors import InvalidInput
from gateway.usage.array import Press, read_lines_plainly, read_plainly
from gateway.usage.batch import lines_of
from gateway.usage.event import Bounds, check_meters, check_time, read_event, record_of

NOW_MS = 1_772_000_000_000
BOUNDS = Bounds(max_age_ms=1_000_000, max_skew_ms=5_000)
METERS = {"llm": {"input": 0, "cost": 2}, "ping": {}, "host": {"name": -1}}
OFFSETS_MS = {"acme": 0, "sandbox": 7_000_000}
GOOD: dict[str, Any] = {
    "id": "e1",
    "event": "llm",
    "time": NOW_MS,
    "customer": "acme",
    "fields": {"input": 374, "cost": 1.25, "model": "small"},
}
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])

TEXTS = st.sampled_from(["", "a", "small", "a b", "ü", "x\x00y", "\\", '"', ":", '":"', "x" * 1_024, "x" * 1_025])
VALUES = st.one_of(
    st.integers(-2, 400),
    st.sampled_from(
        [2**53 - 1, 2**53, 2**70, -(2**70), 1.0, 1.5, 1.25, 1.125, 0.1, -0.0, -1.5, 1e-13, 1e300, 2.0**60]
    ),
    TEXTS,
    st.none(),
    st.booleans(),
    st.just([1]),
    st.just({"a": 1}),
)
NAMES = st.sampled_from(["input", "cost", "model", "name", "quantity", "a b", "", "-x", "x" * 64, "x" * 65, "ü"])
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["e2", "e" * 255, "e" * 256, "", "a b", "ü", "\x7f", "~", 7, None, 'a"b', "a\\b"]),
        "event": st.sampled_from(["llm", "ping", "host", "nothing", "a:b", "", 7]),
        "time": st.one_of(
            st.sampled_from([0, -1, 1.5, True, "yesterday", "2026-02-25T06:13:20Z", "2026-02-25T07:13:20+01:00"]),
            st.sampled_from(["2026-02-25T06:13:20", "0001-01-01T00:00:00Z", 10**12, 10**15]),
            st.sampled_from([-1_000_001, -1_000_000, 5_000, 5_001, 7_000_000]).map(lambda ms: NOW_MS + ms),
        ),
        "customer": st.sampled_from(["acme", "sandbox", "nobody", "a b", ""]),
        "fields": st.one_of(st.dictionaries(NAMES, VALUES, max_size=4), st.just([1]), st.none()),
        "spare": st.just(1),
    },
)


def closely(raw: bytes) -> bytes | None:
    """The record of an event that is read by itself, None where it breaks a rule."""
    try:
        event = read_event(raw)
        check_meters(event, METERS)
        if event.customer_id not in OFFSETS_MS:
            return None
        check_time(event, now_ms=NOW_MS + OFFSETS_MS[event.customer_id], bounds=BOUNDS)
    except InvalidInput:
        return None
    return record_of(event)


def plainly(body: bytes) -> list[bytes | None] | None:
    """The records of an array that is read at one go."""
    events = read_plainly(body)
    press = Press(METERS, OFFSETS_MS, now_ms=NOW_MS, bounds=BOUNDS)
    return None if events is None else [press.record(one) for one in events]


@given(
    changes=st.lists(EVENTS, max_size=4),
    dropped=st.sampled_from([None, None, None, "fields", "id", "time"]),
    layout=st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 2}, {"separators": (" ,", " : ")}]),
    is_ascii=st.booleans(),
)
@example(changes=[{}], dropped=None, layout={}, is_ascii=True)
def test_what_is_taken_at_one_go_is_what_is_taken_one_by_one(
    changes: list[dict[str, Any]], dropped: str | None, layout: dict[str, Any], *, is_ascii: bool
) -> None:
    """As the same bytes; it may leave to the other way what it likes, but takes nothing that the other refuses."""
    sent = [{name: value for name, value in (GOOD | one).items() if name != dropped} for one in changes]
    body = json.dumps(sent, ensure_ascii=is_ascii, **layout).encode()
    taken = plainly(body)
    if taken is None:
        return
    raws = [bytes(raw) for raw in _RAWS.decode(body)]
    assert len(taken) == len(raws)
    for record, raw in zip(taken, raws, strict=True):
        assert record in (None, closely(raw))


@pytest.mark.parametrize("layout", [{}, {"separators": (",", ":")}, {"indent": 2}, {"separators": (", ", " : ")}])
def test_sound_events_are_taken_at_one_go(layout: dict[str, Any]) -> None:
    """However they are spaced; else all of this would be for nothing."""
    sent: list[dict[str, Any]] = [
        GOOD,
        GOOD | {"id": "e2", "fields": {"cost": 2, "input": 1, "host": "a:b"}},
        {"id": "e3", "event": "ping", "time": "2026-02-25T06:13:20Z", "customer": "acme"},
        {"id": "e4", "event": "ping", "time": NOW_MS + 7_000_000, "customer": "sandbox", "fields": {}},
        {"id": "e5", "event": "host", "time": NOW_MS, "customer": "acme", "fields": {"name": "zoë", "n": 1e2}},
        {"id": "e6", "event": "host", "time": NOW_MS, "customer": "acme", "fields": {"name": 0.000000000001}},
    ]
    body = json.dumps(sent, ensure_ascii=False, **layout).encode()
    taken = plainly(body)
    assert taken is not None
    assert None not in taken
    assert taken == [closely(bytes(raw)) for raw in _RAWS.decode(body)]


TWIN = b'[{"id":"e1","event":"ping","time":%d,"customer":"acme"%s}]'


@pytest.mark.parametrize(
    "more",
    [
        b',"id":"e2"',
        b',"id" :"e2"',
        b',"id"\n:"e2"',
        b',"fields":{"n":1,"n":2}',
        b',"fields":{"n" : 1,"n":2}',
        b',"fields":{"n":":","n":2}',
        b',"fields":{},"fields":{}',
        b',"fields":{"n":1,"\\u006e":2}',
    ],
)
def test_a_document_that_names_a_field_twice_is_not_read_at_one_go(more: bytes) -> None:
    """The other way says so."""
    body = TWIN % (NOW_MS, more)
    assert read_plainly(body) is None
    with pytest.raises(InvalidInput, match="twice"):
        read_event(body[1:-1])


@pytest.mark.parametrize("spaced", [b'"id" :', b'"id"\t:', b'"id"\r:', b'"id"\n:', b'"id"  :'])
def test_spaces_before_a_colon_hide_no_twin(spaced: bytes) -> None:
    """A text that looks like one more name makes up for none that was not counted."""
    sound = TWIN.replace(b'"id":', spaced) % (NOW_MS, b"")
    assert read_plainly(sound) is not None
    assert read_plainly(sound[:-2] + b',"id":"e2"}]') is None
    assert read_plainly(sound[:-2] + b',"fields":{"n":":x"}}]') is None


@pytest.mark.parametrize(
    "body", [b"", b"[", b"[1]", b"{}", b"\xff", b"[" * 50_000, b'[{"id":"a\x01"}]', b"[null]", b"[] []"]
)
def test_what_is_no_array_of_events_is_left_to_the_other_way(body: bytes) -> None:
    """Which says what is wrong with it."""
    assert read_plainly(body) is None


def test_no_events_are_no_events() -> None:
    """An empty array is sound."""
    assert read_plainly(b" [ ] ") == []


def pressed_lines(body: bytes) -> list[bytes | None] | None:
    """The records of lines that are read at one go."""
    events = read_lines_plainly(body)
    press = Press(METERS, OFFSETS_MS, now_ms=NOW_MS, bounds=BOUNDS)
    return None if events is None else [press.record(one) for one in events]


@given(
    changes=st.lists(EVENTS, max_size=4),
    ends=st.lists(
        st.sampled_from([b"\n", b"\r\n", b" \n", b"\n\n", b"\n \t\n", b"", b" "]), min_size=4, max_size=4
    ),
    layout=st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 2}, {"separators": (" ,", " : ")}]),
)
def test_lines_taken_at_one_go_are_lines_taken_one_by_one(
    changes: list[dict[str, Any]], ends: list[bytes], layout: dict[str, Any]
) -> None:
    """However they end, and where one that has none is two events, or half of one."""
    texts = [json.dumps(GOOD | one, **layout).encode() for one in changes]
    body = b"".join(text + end for text, end in zip(texts, ends, strict=False))
    taken = pressed_lines(body)
    if taken is None:
        return
    raws = lines_of(body).cut()
    assert len(taken) == len(raws)
    for record, raw in zip(taken, raws, strict=True):
        assert record in (None, closely(raw))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n", b"\n\n"])
def test_sound_lines_are_taken_at_one_go(end: bytes, last: bytes) -> None:
    """With or without an end of the last line."""
    sent = [GOOD | {"id": f"e{number}"} for number in range(3)]
    body = end.join(json.dumps(one).encode() for one in sent) + last
    assert pressed_lines(body) == [closely(json.dumps(one).encode()) for one in sent]


PING = b'{"id":"%b","event":"ping","time":%d,"customer":"acme","fields":{}}'


@pytest.mark.parametrize("place", [b":{", b"{}", b"}}", b',"', b'":"'])
def test_an_event_over_two_lines_beside_two_in_one_is_not_read_at_one_go(place: bytes) -> None:
    """There are as many lines as events, and yet not one in each."""
    first, second, third = (PING % (name, NOW_MS) for name in (b"a", b"b", b"c"))
    broken = third.replace(place, place[:1] + b"\n" + place[1:], 1)
    body = first + second + b"\n" + broken
    assert body.count(b"\n") == 2
    assert read_lines_plainly(body) is None
    assert read_lines_plainly(first + b"\n" + second + b"\n" + third) is not None


def test_no_lines_are_no_events() -> None:
    """Nor are empty ones."""
    assert [read_lines_plainly(body) for body in (b"", b"\n", b" \r\n\t")] == [[], [], []]
    assert [lines_of(body).cut() for body in (b"", b"\n", b" \r\n\t")] == [[], [], []]
