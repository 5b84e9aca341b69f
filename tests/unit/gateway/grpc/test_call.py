"""Calls over a connection, as the library `h2` sees them."""

from __future__ import annotations

from typing import Any

import h2.events
import h2.settings
import pytest
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, SettingsFrame

from gateway.edge.grpc.status import Status


def frames_of(data: bytes) -> list[Any]:
    """What frames some bytes are."""
    found: list[Any] = []
    while data:
        one, size = Frame.parse_frame_header(memoryview(data[:9]))
        one.parse_body(memoryview(data[9 : 9 + size]))
        found.append(one)
        data = data[9 + size :]
    return found


def test_a_call_is_answered_with_its_message_and_a_good_end(house: Any) -> None:
    """Headers, data, trailers."""
    told = house().call(b"hello")
    assert (told.headers[b":status"], told.headers[b"content-type"]) == (b"200", b"application/grpc")
    assert (told.message, told.status, told.is_ended) == (b"hello", 0, True)


def test_a_thousand_calls_on_one_connection_and_nothing_is_left_behind(house: Any) -> None:
    """Streams are forgotten once they are answered."""
    made = house()
    assert [made.call(b"%d" % number).message for number in range(1_000)] == [
        b"%d" % number for number in range(1_000)
    ]
    assert made.server.call_count == 0


def test_a_failure_has_no_message_and_tells_its_text(house: Any) -> None:
    """One block; text that HTTP cannot carry is escaped."""
    told = house().call(b"x", "/fail")
    assert (told.data, told.trailers, told.is_ended) == (b"", {}, True)
    assert told.status == Status.UNAVAILABLE
    assert told.headers[b"grpc-message"] == b"not now: 100 %25 busy%0A"


def test_answers_may_come_later_and_in_any_order(house: Any) -> None:
    """Each finds its stream, and whoever sends is woken."""
    made = house()
    for number in range(3):
        made.call(b"%d" % number, "/later")
    for call in reversed(made.kept):
        call.answer(b"to " + call.message)
    assert made.wakes == 3
    made.exchange()
    assert [made.told[stream_id].message for stream_id in (1, 3, 5)] == [b"to 0", b"to 1", b"to 2"]


@pytest.mark.parametrize(
    ("path", "more", "message", "status"),
    [
        ("/nothing", {}, b"x", Status.UNIMPLEMENTED),
        ("/echo", {"grpc_timeout": "20x"}, b"x", Status.INVALID_ARGUMENT),
        ("/echo", {"grpc_timeout": "123456789m"}, b"x", Status.INVALID_ARGUMENT),
        ("/echo", {"grpc_encoding": "identity"}, b"x", Status.OK),
        ("/echo", {"grpc_encoding": "gzip"}, b"x", Status.OK),
        ("/echo", {"grpc_timeout": "20m"}, b"x" * 65_536, Status.OK),
        ("/echo", {}, b"x" * 65_537, Status.RESOURCE_EXHAUSTED),
    ],
)
def test_what_a_call_gets_wrong_is_told_by_its_status(
    house: Any, path: str, more: dict[str, str], message: bytes, status: Status
) -> None:
    """Sizes are bounded; an encoding that is named and not used is no fault."""
    made = house(max_message_bytes=65_536)
    stream_id = made.begin(path, **more)
    data = made.prefixed(message)
    while data and not made.told.get(stream_id):
        made.peer.send_data(stream_id, data[:16_384], end_stream=len(data) <= 16_384)
        data = data[16_384:]
        made.exchange()
    assert made.told[stream_id].status == status
    assert made.call(b"and on").message == b"and on"


@pytest.mark.parametrize(("encoding", "status"), [("gzip", Status.UNIMPLEMENTED), ("identity", Status.INTERNAL)])
def test_a_compressed_message_is_refused(house: Any, encoding: str, status: Status) -> None:
    """And the peer hears what is spoken here."""
    made = house()
    stream_id = made.begin(grpc_encoding=encoding)
    made.peer.send_data(stream_id, made.prefixed(b"x", flag=1), end_stream=True)
    made.exchange()
    told = made.told[stream_id]
    assert told.status == status
    assert (told.headers.get(b"grpc-accept-encoding") == b"identity") == (status is Status.UNIMPLEMENTED)


@pytest.mark.parametrize("body", [b"", b"\0\0\0", b"\0\0\0\0\5abc", b"\0\0\0\0\1ab"])
def test_a_call_has_one_whole_message(house: Any, body: bytes) -> None:
    """None, half of one, and more than one are all refused."""
    made = house()
    stream_id = made.begin()
    made.peer.send_data(stream_id, body, end_stream=True)
    made.exchange()
    assert made.told[stream_id].status == Status.INVALID_ARGUMENT


def test_a_call_without_a_body_is_refused(house: Any) -> None:
    """Its headers end the stream."""
    made = house()
    made.peer.send_headers(1, made.headers, end_stream=True)
    made.exchange()
    assert made.told[1].status == Status.INVALID_ARGUMENT


def test_what_stands_behind_the_message_is_refused_as_it_comes(house: Any) -> None:
    """Not only at the end, which may never come."""
    made = house()
    stream_id = made.begin()
    made.peer.send_data(stream_id, made.prefixed(b"x") + b"more")
    made.exchange()
    assert (made.told[stream_id].status, made.server.call_count) == (Status.INVALID_ARGUMENT, 0)


def test_a_message_may_come_in_pieces_with_padding_and_trailers(house: Any) -> None:
    """Padding counts as room that is given back, and a client may end its side by a second block."""
    made = house(max_message_bytes=100)
    stream_id = made.begin()
    for byte in made.prefixed(b"piece by piece"):
        made.peer.send_data(stream_id, bytes((byte,)), pad_length=200)
        made.exchange()
    made.peer.send_headers(stream_id, [("late", "1")], end_stream=True)
    made.exchange()
    assert made.told[stream_id].message == b"piece by piece"


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [(":method", "GET", b"405"), ("content-type", "application/json", b"415"), ("content-type", "", b"415")],
)
def test_what_is_no_grpc_call_is_answered_in_http(house: Any, field: str, value: str, status: bytes) -> None:
    """A browser or a health probe that lost its way gets a word that it knows."""
    made = house()
    made.peer.send_headers(1, [(name, value if name == field else old) for name, old in made.headers])
    made.peer.send_data(1, b"{}", end_stream=True)
    made.exchange()
    assert made.told[1].headers[b":status"] == status
    assert made.call(b"x").message == b"x"


@pytest.mark.parametrize(
    "field",
    [
        ("connection", "close"),
        ("te", "gzip"),
        ("Upper", "case"),
        (":unknown", "x"),
        ("content-length", "7"),
        ("content-length", "ten"),
    ],
)
def test_a_malformed_request_costs_its_stream_and_no_more(house: Any, field: tuple[str, str]) -> None:
    """PROTOCOL_ERROR on the stream; the next call is served."""
    made = house()
    made.peer.config.validate_outbound_headers = made.peer.config.normalize_outbound_headers = False
    fields = [*made.headers, field] if field[0][0] != ":" else [field, *made.headers]
    made.peer.send_headers(1, fields)
    made.peer.send_data(1, made.prefixed(b"x"), end_stream=True)
    made.exchange()
    assert made.told[1].reset == 1
    assert made.call(b"x").message == b"x"


def test_an_answer_waits_for_the_room_that_the_peer_gives(house: Any) -> None:
    """Nothing is sent above the window; all of it comes once there is room, in pieces."""
    made = house()
    made.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
    made.exchange()
    made.gives_back = False
    stream_id = made.begin("/later")
    made.peer.send_data(stream_id, made.prefixed(b""), end_stream=True)
    made.exchange()
    made.kept[0].answer(b"x" * 60_000)
    made.exchange()
    assert (len(made.told[stream_id].data), made.server.call_count) == (10, 1)
    made.peer.increment_flow_control_window(50_000, stream_id)
    made.exchange()
    assert len(made.told[stream_id].data) == 50_010
    made.peer.increment_flow_control_window(50_000, stream_id)
    made.exchange()
    assert (made.told[stream_id].message, made.told[stream_id].status) == (b"x" * 60_000, 0)
    assert made.server.call_count == 0


def test_small_answers_keep_to_the_windows_too(house: Any) -> None:
    """Of their stream, and of the connection; they go out whole as a rule, and in pieces where they must."""
    made = house()
    made.call(b"")
    made.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
    made.exchange()
    made.gives_back = False
    assert made.call(b"a" * 100).data == b"\0\0\0\0\x64" + b"a" * 5
    made.peer.increment_flow_control_window(95, 3)
    made.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 20_000})
    made.exchange()
    assert made.told[3].message == b"a" * 100
    told = [made.call(b"b" * 9_995) for _ in range(10)]
    assert sum(len(one.data) for one in told) == 65_535 - 5 - 105
    made.peer.increment_flow_control_window(100_000)
    made.exchange()
    assert [one.message for one in told] == [b"b" * 9_995] * 10


def test_a_peer_without_a_table_understands_us(house: Any) -> None:
    """Our blocks need none, and say so where its size is lowered."""
    made = house()
    made.peer.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0})
    made.exchange()
    assert [made.call(b"x").message for _ in range(2)] == [b"x", b"x"]


def test_the_room_of_the_whole_connection_is_shared(house: Any) -> None:
    """Streams with room of their own wait for it too, and go on in their order."""
    made = house()
    made.gives_back = False
    made.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**20})
    for _ in range(3):
        made.call(b"", "/later")
    for call in made.kept:
        call.answer(b"y" * 30_000)
    made.exchange()
    assert [len(made.told[stream_id].data) for stream_id in (1, 3, 5)] == [30_005, 30_005, 65_535 - 60_010]
    made.peer.increment_flow_control_window(2**20)
    made.exchange()
    assert [made.told[stream_id].status for stream_id in (1, 3, 5)] == [0, 0, 0]


def test_a_smaller_window_may_leave_a_stream_in_debt(house: Any) -> None:
    """A peer may lower it while an answer waits; then room has to grow above nothing first."""
    made = house()
    made.gives_back = False
    made.call(b"", "/later")
    made.kept[0].answer(b"z" * 70_000)
    made.exchange()
    assert len(made.told[1].data) == 65_535
    made.peer.increment_flow_control_window(10**6)
    made.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    made.exchange()
    made.peer.increment_flow_control_window(65_535, 1)
    made.exchange()
    assert len(made.told[1].data) == 65_535
    made.peer.increment_flow_control_window(5_000, 1)
    made.exchange()
    assert made.told[1].message == b"z" * 70_000


def test_a_sender_never_stands_still(house: Any) -> None:
    """Far more than any window passes, because room is given back as messages are read."""
    made = house()
    big = b"m" * 300_000
    for _ in range(20):
        stream_id = made.begin()
        data = made.prefixed(big)
        while data:
            room = min(made.peer.local_flow_control_window(stream_id), 16_384)
            assert room > 0
            made.peer.send_data(stream_id, data[:room], end_stream=len(data) <= room)
            data = data[room:]
            made.exchange()
        assert made.told[stream_id].message == big


def test_streams_above_the_bound_are_refused_and_may_be_tried_again(house: Any) -> None:
    """REFUSED_STREAM says that nothing was done."""
    made = house(max_streams=2)
    for _ in range(2):
        made.call(b"", "/later")
    made.peer.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100
    made.peer.remote_settings.acknowledge()
    assert made.call(b"one more").reset == 7
    made.kept[0].answer(b"")
    assert made.call(b"again").message == b"again"


def test_a_call_that_was_taken_back_keeps_its_place_until_it_has_run(house: Any) -> None:
    """Who asks and takes back has no more under way than its streams; the answer is not sent."""
    made = house(max_streams=2)
    for stream_id in (1, 3):
        made.call(b"", "/later")
        made.peer.reset_stream(stream_id, 8)
    assert made.call(b"third").reset == 7
    for call in made.kept:
        call.answer(b"nobody hears this")
    made.exchange()
    assert made.told[1].data == b""
    assert made.call(b"fourth").message == b"fourth"


def test_pings_are_answered_and_settings_acknowledged(house: Any) -> None:
    """With the same eight bytes."""
    made = house()
    made.peer.ping(b"12345678")
    made.peer.update_settings({h2.settings.SettingCodes.MAX_FRAME_SIZE: 2**20})
    made.exchange()
    kinds = [type(event) for event in made.events]
    assert h2.events.PingAckReceived in kinds
    assert kinds.count(h2.events.SettingsAcknowledged) == 2


def test_who_leaves_finishes_what_was_begun(house: Any) -> None:
    """GOAWAY twice, as the book has it: what the peer opens until it hears of it is served; then it is over."""
    made = house()
    made.call(b"open", "/later")
    made.server.leave()
    first, ping = frames_of(made.server.take_unsent())
    assert (type(first), first.last_stream_id, type(ping)) == (GoAwayFrame, 2**31 - 1, PingFrame)
    crossing = made.begin("/later")
    made.peer.send_data(crossing, made.prefixed(b"crossing"), end_stream=True)
    made.server.feed(made.peer.data_to_send())
    (last,) = frames_of(made.raw(PingFrame(0, ping.opaque_data, flags=["ACK"]).serialize()))
    assert (type(last), last.last_stream_id, last.error_code) == (GoAwayFrame, crossing, 0)
    made.begin("/later")
    assert made.raw(made.peer.data_to_send()) == b""
    assert not made.server.is_over
    for call in made.kept:
        call.answer(call.message)
    back = made.server.take_unsent()
    assert back.count(b"open") == back.count(b"crossing") == 1
    assert made.server.is_over


def test_who_leaves_without_calls_is_over_once_the_peer_has_heard(house: Any) -> None:
    """Not before, because a call may be on its way; whoever greets later hears it then."""
    made = house()
    made.server.leave()
    made.server.leave()
    _, ping = frames_of(made.server.take_unsent())
    assert not made.server.is_over
    made.raw(PingFrame(0, b"another!", flags=["ACK"]).serialize())
    assert not made.server.is_over
    made.raw(PingFrame(0, ping.opaque_data, flags=["ACK"]).serialize())
    assert made.server.is_over
    late = house(is_greeted=False)
    late.server.take_unsent()
    late.server.leave()
    assert late.server.take_unsent() == b""
    late.peer.initiate_connection()
    kinds = [type(one) for one in frames_of(late.raw(late.peer.data_to_send()))]
    assert kinds == [SettingsFrame, GoAwayFrame, PingFrame]


def test_who_lost_its_socket_is_not_heard_and_breaks_nothing(house: Any) -> None:
    """Answers to calls of a connection that is gone go nowhere."""
    made = house()
    made.call(b"", "/later")
    made.call(b"", "/later")
    made.server.lose()
    made.kept[0].answer(b"late")
    made.kept[1].fail(Status.INTERNAL, "late")
    assert made.server.take_unsent() == b""
