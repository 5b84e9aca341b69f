"""Peers that break rules, flood, or send noise: each is told by the book, and nothing else breaks."""

from __future__ import annotations

from typing import Any

import hpack
import pytest
from hyperframe.frame import Frame
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.grpc.connection import Bounds, Connection
from gateway.edge.grpc.frame import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Code,
    frame,
)
from gateway.edge.grpc.header import MAX_LIST_BYTES

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 1, 4, 8, 32
FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo"),
    ("content-type", "application/grpc"),
]
HELLO = PREFACE + frame(SETTINGS, 0, stream_id=0, payload=b"")


def block(*more: tuple[str, str]) -> bytes:
    """A header block that leaves the table alone, so that it may be sent again."""
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in (*FIELDS, *more)])


def head(stream_id: int, *more: tuple[str, str], flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream_id=stream_id, payload=block(*more))


def data(stream_id: int, body: bytes = b"\0\0\0\0\1x", flags: int = END_STREAM) -> bytes:
    return frame(DATA, flags, stream_id=stream_id, payload=body)


def on(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return frame(kind, flags, stream_id=stream_id, payload=payload)


def frames_of(raw: bytes) -> list[Any]:
    found: list[Any] = []
    while raw:
        one, size = Frame.parse_frame_header(memoryview(raw[:9]))
        one.parse_body(memoryview(raw[9 : 9 + size]))
        found.append(one)
        raw = raw[9 + size :]
    return found


def code_of(raw: bytes) -> int | None:
    """The code of the GOAWAY that ends it; None where there is none."""
    last = frames_of(raw)[-1:]
    return last[0].error_code if last and last[0].type == GOAWAY else None


BREACHES = [
    ("another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Code.PROTOCOL_ERROR, False),
    ("half a preface that goes wrong", PREFACE[:20] + b"nope", Code.PROTOCOL_ERROR, False),
    ("no settings first", PREFACE + on(PING, payload=b"12345678"), Code.PROTOCOL_ERROR, False),
    ("an acknowledgement first", PREFACE + on(SETTINGS, ACK), Code.PROTOCOL_ERROR, False),
    ("headers first", PREFACE + head(1), Code.PROTOCOL_ERROR, False),
    ("a frame above the bound", b"\0\x40\x01" + bytes((DATA, 0)) + bytes(4), Code.FRAME_SIZE_ERROR, True),
    ("settings of a broken length", on(SETTINGS, payload=b"12345"), Code.FRAME_SIZE_ERROR, True),
    ("settings on a stream", on(SETTINGS, stream_id=1), Code.PROTOCOL_ERROR, True),
    ("an acknowledgement that says something", on(SETTINGS, ACK, payload=bytes(6)), Code.FRAME_SIZE_ERROR, True),
    ("push that is neither on nor off", on(SETTINGS, payload=b"\0\2\0\0\0\2"), Code.PROTOCOL_ERROR, True),
    ("a window above the most", on(SETTINGS, payload=b"\0\4\x80\0\0\0"), Code.FLOW_CONTROL_ERROR, True),
    ("frames below the least", on(SETTINGS, payload=b"\0\5\0\0\x10\0"), Code.PROTOCOL_ERROR, True),
    ("frames above the most", on(SETTINGS, payload=b"\0\5\1\0\0\0"), Code.PROTOCOL_ERROR, True),
    ("a ping of seven bytes", on(PING, payload=bytes(7)), Code.FRAME_SIZE_ERROR, True),
    ("a ping on a stream", on(PING, stream_id=1, payload=bytes(8)), Code.PROTOCOL_ERROR, True),
    ("a goaway on a stream", on(GOAWAY, stream_id=1, payload=bytes(8)), Code.PROTOCOL_ERROR, True),
    ("a push", on(PUSH_PROMISE, stream_id=1, payload=bytes(4)), Code.PROTOCOL_ERROR, True),
    ("an even stream", head(2), Code.PROTOCOL_ERROR, True),
    ("stream 0 with headers", head(0), Code.PROTOCOL_ERROR, True),
    ("stream 0 with data", data(0), Code.PROTOCOL_ERROR, True),
    ("data on a stream that never was", data(5), Code.PROTOCOL_ERROR, True),
    ("a reset of a stream that never was", on(RST_STREAM, 0, 5, bytes(4)), Code.PROTOCOL_ERROR, True),
    ("a reset of five bytes", head(1) + on(RST_STREAM, 0, 1, bytes(5)), Code.FRAME_SIZE_ERROR, True),
    ("room on a stream that never was", on(WINDOW_UPDATE, 0, 5, b"\0\0\0\1"), Code.PROTOCOL_ERROR, True),
    ("room of three bytes", on(WINDOW_UPDATE, payload=bytes(3)), Code.FRAME_SIZE_ERROR, True),
    ("room by nothing", on(WINDOW_UPDATE, payload=bytes(4)), Code.PROTOCOL_ERROR, True),
    ("too much room", on(WINDOW_UPDATE, payload=b"\x7f\xff\xff\xff"), Code.FLOW_CONTROL_ERROR, True),
    (
        "too much room by settings",
        head(1) + on(WINDOW_UPDATE, 0, 1, b"\x7f\xff\0\0") + on(SETTINGS, payload=b"\0\4\x7f\xff\xff\xff"),
        Code.FLOW_CONTROL_ERROR,
        True,
    ),
    ("a priority of no stream", on(PRIORITY, payload=bytes(5)), Code.PROTOCOL_ERROR, True),
    ("a priority of a broken length", on(PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR, True),
    ("headers with half a priority", on(HEADERS, 36, 1, bytes(4)), Code.FRAME_SIZE_ERROR, True),
    ("a stream that depends on itself", on(HEADERS, 36, 1, b"\0\0\0\1\0" + block()), Code.PROTOCOL_ERROR, True),
    ("padding longer than its frame", head(1) + data(1, b"\5abc", PADDED), Code.PROTOCOL_ERROR, True),
    ("padding of nothing", head(1) + data(1, b"", PADDED), Code.PROTOCOL_ERROR, True),
    ("headers all padding", on(HEADERS, 12, 1, b"\4abc"), Code.PROTOCOL_ERROR, True),
    ("a continuation of nothing", on(CONTINUATION, 4, 1, block()), Code.PROTOCOL_ERROR, True),
    ("an interrupted block", head(1, flags=0) + on(PING, payload=bytes(8)), Code.PROTOCOL_ERROR, True),
    ("a block that goes on elsewhere", head(1, flags=0) + on(CONTINUATION, 4, 3), Code.PROTOCOL_ERROR, True),
    ("a block without end", head(1, flags=0) + on(CONTINUATION, 0, 1) * 8, Code.ENHANCE_YOUR_CALM, True),
    (
        "a block too long",
        head(1, flags=0) + on(CONTINUATION, 0, 1, bytes(16_384)) * 2,
        Code.ENHANCE_YOUR_CALM,
        True,
    ),
    ("a block that is none", on(HEADERS, 4, 1, b"\xff\xff\xff\xff"), Code.COMPRESSION_ERROR, True),
    ("a table that is too large", on(HEADERS, 4, 1, b"\x3f\xe2\x1f"), Code.COMPRESSION_ERROR, True),
    ("a list too long", head(1, ("x", "y" * 16_000), ("z", "y" * 300)), Code.ENHANCE_YOUR_CALM, True),
    ("a second block on an ended stream", head(1) + data(1) + head(1), Code.STREAM_CLOSED, True),
    ("more on an ended stream", head(1) + data(1) + data(1), Code.STREAM_CLOSED, True),
    ("a stream below the last", head(5) + head(3), Code.STREAM_CLOSED, True),
]


@pytest.mark.parametrize(
    ("sent", "code", "is_greeted"), [row[1:] for row in BREACHES], ids=[row[0] for row in BREACHES]
)
def test_a_breach_ends_the_connection_with_its_code(house: Any, sent: bytes, code: Code, is_greeted: bool) -> None:
    """And what comes after it is not read."""
    made = house(is_greeted=False)
    if is_greeted:
        made.raw(HELLO)
    assert not made.server.is_over
    assert code_of(made.raw(sent)) == code
    assert made.server.is_over
    assert made.raw(head(101) + data(101)) == b""


RESETS = [
    ("no path", on(HEADERS, 4, 1, hpack.Encoder().encode(FIELDS[:2])), Code.PROTOCOL_ERROR),
    ("two paths", head(1, (":path", "/echo")), Code.PROTOCOL_ERROR),
    ("a line break", head(1, ("x", "a\r\nb: c")), Code.PROTOCOL_ERROR),
    ("two lengths", head(1, ("content-length", "6"), ("content-length", "7")), Code.PROTOCOL_ERROR),
    ("a second block that does not end", head(1) + head(1), Code.PROTOCOL_ERROR),
    ("room by nothing", head(1) + on(WINDOW_UPDATE, 0, 1, bytes(4)), Code.PROTOCOL_ERROR),
    ("too much room", head(1) + on(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), Code.FLOW_CONTROL_ERROR),
]


@pytest.mark.parametrize(("sent", "code"), [row[1:] for row in RESETS], ids=[row[0] for row in RESETS])
def test_a_broken_stream_is_reset_and_the_others_live(house: Any, sent: bytes, code: Code) -> None:
    """What still comes on it is passed over."""
    made = house(is_greeted=False)
    made.raw(HELLO)
    (reset,) = frames_of(made.raw(sent))
    assert (reset.type, reset.stream_id, reset.error_code) == (RST_STREAM, 1, code)
    assert made.server.call_count == 0
    assert DATA in [one.type for one in frames_of(made.raw(data(1) + head(3) + data(3)))]
    assert not made.server.is_over


@pytest.mark.parametrize(
    "nothing",
    [
        on(PING, payload=bytes(8)),
        on(SETTINGS),
        on(PRIORITY, 0, 1, b"\0\0\0\3\0"),
        on(WINDOW_UPDATE, payload=b"\0\0\0\1"),
        on(99, 0, 7, b"who knows"),
    ],
    ids=["ping", "settings", "priority", "room", "unknown"],
)
def test_frames_that_carry_nothing_are_bounded_by_the_second(house: Any, nothing: bytes) -> None:
    """A thousand in a second are borne, and again in the next; more are not."""
    made = house(is_greeted=False)
    made.raw(HELLO)
    for _ in range(3):
        assert code_of(made.raw(nothing * 999)) is None
        made.now_s += 1
    assert code_of(made.raw(nothing * 1_001)) == Code.ENHANCE_YOUR_CALM


def test_empty_data_is_bounded_too(house: Any) -> None:
    """A message that never grows."""
    made = house(is_greeted=False)
    made.raw(HELLO + head(1))
    assert code_of(made.raw(data(1, b"", 0) * 1_001)) == Code.ENHANCE_YOUR_CALM


def test_streams_that_are_opened_and_taken_back_are_bounded(house: Any) -> None:
    """The rapid reset: 5,000 streams that never become calls do not get through."""
    made = house(is_greeted=False)
    made.raw(HELLO)
    sent = b"".join(head(number) + on(RST_STREAM, 0, number, b"\0\0\0\x08") for number in range(1, 10_001, 2))
    assert code_of(made.raw(sent)) == Code.ENHANCE_YOUR_CALM


def test_calls_that_are_taken_back_do_not_run_in_greater_numbers_than_streams(house: Any) -> None:
    """The rapid reset of whole calls: a hundred places, a hundred calls, whatever is asked."""
    made = house(is_greeted=False, max_streams=100)
    made.raw(HELLO)
    fields = [(name, "/later" if name == ":path" else value) for name, value in FIELDS]
    for number in range(1, 1_001, 2):
        begun = frame(HEADERS, END_HEADERS, stream_id=number, payload=hpack.Encoder().encode(fields))
        made.raw(begun + data(number) + on(RST_STREAM, 0, number, b"\0\0\0\x08"))
    assert len(made.kept) == 100


def test_who_works_may_send_more_that_carries_nothing(house: Any) -> None:
    """Four for each call: a peer that gives room back after each answer is no attack."""
    made = house(is_greeted=False)
    made.raw(HELLO)
    room = on(WINDOW_UPDATE, payload=b"\0\0\0\x0a")
    for number in range(1, 4_001, 2):
        assert code_of(made.raw(head(number) + data(number) + room * 3)) is None


def test_messages_under_way_are_bounded_together(house: Any) -> None:
    """Eight whole ones may lie about; whoever brings more is refused, and the rest goes on."""
    made = house(is_greeted=False, max_message_bytes=10_000)
    made.raw(HELLO)
    piece = b"\0" + (10_000).to_bytes(4, "big") + bytes(9_990)
    for number in range(1, 17, 2):
        assert made.raw(head(number) + data(number, piece, 0)) == b""
    refused = frames_of(made.raw(head(17) + data(17, piece, 0)))
    assert [one.type for one in refused] == [HEADERS, RST_STREAM]
    answered = frames_of(made.raw(data(1, bytes(10), END_STREAM)))
    assert HEADERS in [one.type for one in answered]
    assert made.raw(head(19) + data(19, piece, 0)) == b""


def test_a_connection_that_is_too_full_is_not_read_on(house: Any) -> None:
    """More than the room that was given is a breach."""
    made = house(is_greeted=False, max_message_bytes=2**21)
    made.raw(HELLO)
    made.server._room = 10
    assert code_of(made.raw(head(1) + data(1, bytes(11), 0))) == Code.FLOW_CONTROL_ERROR


def conversation() -> bytes:
    """Much of what a well-behaved peer may say."""
    table = hpack.Encoder()
    told = HELLO
    for number in range(1, 12, 2):
        first = table.encode([*FIELDS, ("number", str(number)), ("te", "trailers")])
        priority = b"\0\0\0\0\x10"
        told += frame(HEADERS, PRIORITIZED, stream_id=number, payload=priority + first[:5])
        told += frame(CONTINUATION, END_HEADERS, stream_id=number, payload=first[5:])
        told += frame(DATA, PADDED, stream_id=number, payload=b"\3\0\0\0\0" + bytes(3))
        told += on(PING, payload=b"in truth")
        told += on(WINDOW_UPDATE, payload=b"\0\1\0\0")
        told += on(77, 255, number, b"unknown")
        told += frame(DATA, END_STREAM, stream_id=number, payload=b"\2ok")
    return told + on(SETTINGS, payload=b"\0\4\0\0\0\7") + on(SETTINGS, ACK)


def fresh() -> Connection:
    methods = {"/echo": lambda call: call.answer(call.message)}
    sinks = {"/sink": lambda stream, message: stream.taken(message)}
    return Connection(methods, Bounds(), sinks=sinks, since_s=lambda: 0.0, wake=lambda: None)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, len(conversation())), max_size=40))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    """The same answers, byte by byte."""
    told = conversation()
    whole = fresh()
    whole.feed(told)
    expected = whole.take_unsent()
    assert expected.count(b"ok") == 6
    parts, got, at = fresh(), b"", 0
    for cut in [*sorted(cuts), len(told)]:
        parts.feed(told[at:cut])
        got += parts.take_unsent()
        at = cut
    assert got == expected


kinds = st.integers(0, 12)
payloads = st.binary(max_size=60) | st.sampled_from([block(), block()[:9], bytes(5), b"\0\0\0\0\1x", bytes(4)])
wild = st.builds(
    on,
    kinds,
    st.integers(0, 255),
    st.integers(0, 9),
    payloads,
)


SINKING = [hpack.NeverIndexedHeaderTuple(name, value.replace("echo", "sink")) for name, value in FIELDS]
SINK = on(HEADERS, END_HEADERS, 5, hpack.Encoder().encode(SINKING)) + data(5, b"\0\0\0\0\1x\0", 0)


@settings(deadline=None)
@given(sent=st.lists(wild | st.sampled_from([head(1), data(1), head(3), data(3, b"\0\0\0", 0), SINK]), max_size=30))
def test_frames_at_random_break_nothing(sent: list[bytes]) -> None:
    """Whatever comes, what is said is well formed, at most one GOAWAY at the end, and no call is left over then."""
    server = fresh()
    server.feed(HELLO)
    for one in sent:
        server.feed(one)
    told = frames_of(server.take_unsent())
    ends = [place for place, one in enumerate(told) if one.type == GOAWAY]
    assert ends in ([], [len(told) - 1])
    assert server.is_over == bool(ends)
    if server.is_over:
        assert server.call_count == 0


@settings(deadline=None)
@given(noise=st.binary(max_size=300), is_greeted=st.booleans())
def test_noise_breaks_nothing(noise: bytes, is_greeted: bool) -> None:
    """Bytes at random, before and after the greeting."""
    server = fresh()
    if is_greeted:
        server.feed(HELLO)
    server.feed(noise)
    server.feed(noise)
    frames_of(server.take_unsent())


@settings(deadline=None)
@given(data=st.data())
def test_header_blocks_are_read_as_the_library_reads_them(data: st.DataObject) -> None:
    """What is remembered of a block is what decoding it anew would say, whatever the table went through between."""
    encoder, server, expected = hpack.Encoder(), fresh(), []
    server.feed(HELLO)
    paths: list[str] = []
    server._methods = {path: (lambda call: paths.append(call.head.path)) for path in ("/a", "/b", "/c")}
    encoder.header_table_size = data.draw(st.sampled_from([4_096, 100, 0]))
    for number in range(data.draw(st.integers(1, 12))):
        path = data.draw(st.sampled_from(["/a", "/b", "/c"]))
        fields: list[Any] = [(":method", "POST"), (":scheme", "http"), (":path", path), FIELDS[-1]]
        for name in data.draw(st.lists(st.sampled_from(["x", "y"]), max_size=2)):
            field = (name, data.draw(st.sampled_from(["1", "2"])))
            fields.append(hpack.NeverIndexedHeaderTuple(*field) if data.draw(st.booleans()) else field)
        stream_id = 2 * number + 1
        sent = encoder.encode(fields, huffman=data.draw(st.booleans()))
        server.feed(frame(HEADERS, END_HEADERS, stream_id=stream_id, payload=sent))
        server.feed(frame(DATA, END_STREAM, stream_id=stream_id, payload=b"\0\0\0\0\0"))
        expected.append(path)
    assert paths == expected


def test_what_is_remembered_of_blocks_is_bounded(house: Any) -> None:
    """A peer that never repeats itself does not fill our memory."""
    made = house(is_greeted=False)
    made.raw(HELLO)
    for number in range(1, 2_001, 2):
        made.raw(head(number, ("n", str(number))) + data(number))
    assert len(made.server._heads._known) <= 256
    assert MAX_LIST_BYTES == 16_384
