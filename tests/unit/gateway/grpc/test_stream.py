"""Calls of many messages, as the library `h2` sees them; the test is the sink."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.grpc.frame import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD_BYTES,
    HEADERS,
    PADDED,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    frame,
)
from gateway.edge.grpc.status import Status
from tests.unit.gateway.grpc.conftest import House, prefixed

WINDOW = 2**20 + 5 + 1_024


def opened(made: House) -> int:
    stream_id = made.begin("/sink")
    made.exchange()
    return stream_id


def kinds_of(data: bytes) -> list[tuple[int, int]]:
    """Type and flags of each frame."""
    found: list[tuple[int, int]] = []
    while data:
        found.append((data[3], data[4]))
        data = data[HEAD_BYTES + int.from_bytes(data[:3], "big") :]
    return found


def room(made: House, stream_id: int) -> int:
    """What the peer may send on the stream; the connection has room of its own."""
    return made.peer.streams[stream_id].outbound_flow_control_window


def said(made: House) -> list[bytes]:
    return [message for _, message in made.taken]


def take_all(made: House) -> None:
    """The sink is done with what it has."""
    for stream, message in made.taken:
        stream.taken(message)
    made.taken.clear()
    made.exchange()


def test_each_message_is_handed_on_as_soon_as_it_is_whole(house: Any) -> None:
    """Several in one frame, one in several; the stream stays open, and nothing is answered."""
    made = house()
    stream_id = opened(made)
    data = prefixed(b"one") + prefixed(b"") + prefixed(b"three")
    for piece in (data[:4], data[4:10], data[10:]):
        made.peer.send_data(stream_id, piece)
        made.exchange()
    assert said(made) == [b"one", b"", b"three"]
    take_all(made)
    assert made.server.call_count == 1
    assert made.told[stream_id].headers == {}


def test_the_end_is_answered_once_all_is_taken(house: Any) -> None:
    """With an empty message."""
    made = house()
    stream_id = opened(made)
    made.peer.send_data(stream_id, prefixed(b"one"), end_stream=True)
    made.exchange()
    assert stream_id not in made.told
    take_all(made)
    told = made.told[stream_id]
    assert (told.message, told.status, told.is_ended) == (b"", 0, True)
    assert made.server.call_count == 0


def test_a_stream_without_a_message_is_answered_too(house: Any) -> None:
    """As the protocol has it: none is as good as many."""
    made = house()
    stream_id = made.begin("/sink")
    made.peer.end_stream(stream_id)
    made.exchange()
    assert (made.told[stream_id].message, made.told[stream_id].status) == (b"", 0)
    made = house()
    stream_id = opened(made)
    made.peer.send_headers(stream_id, [("trailing", "1")], end_stream=True)
    made.exchange()
    assert made.told[stream_id].status == 0


def test_room_comes_back_as_messages_are_taken(house: Any) -> None:
    """Who sends faster than the sink takes stands still; calls beside it do not, and decisions go on."""
    made = house()
    stream_id = opened(made)
    assert room(made, stream_id) == WINDOW
    message = bytes(250_000)
    for _ in range(4):
        data = prefixed(message)
        while data:
            made.peer.send_data(stream_id, data[:16_384])
            data = data[16_384:]
            made.exchange()
    assert room(made, stream_id) == WINDOW - 4 * 250_005
    for number in range(100):
        assert made.call(b"%d" % number).message == b"%d" % number
    stream, first = made.taken.pop(0)
    stream.taken(first)
    made.exchange()
    assert room(made, stream_id) == WINDOW - 3 * 250_005
    take_all(made)
    assert room(made, stream_id) == WINDOW


def test_who_takes_more_room_than_there_is_loses_the_stream(house: Any) -> None:
    """A peer that does not count; what was whole is the sink's all the same."""
    made = house()
    stream_id = opened(made)
    made.raw(frame(DATA, 0, stream_id=stream_id, payload=prefixed(b"whole")))
    big = b"\0" + (2**20).to_bytes(4, "big") + bytes(16_000)
    made.raw(frame(DATA, 0, stream_id=stream_id, payload=big))
    for _ in range(63):
        made.raw(frame(DATA, 0, stream_id=stream_id, payload=bytes(16_384)))
    made.raw(frame(DATA, 0, stream_id=stream_id, payload=bytes(16_384)))
    assert said(made)[0] == b"whole"
    assert made.server.call_count == 1
    take_all(made)
    assert made.server.call_count == 0
    assert not made.server.is_over


@pytest.mark.parametrize(
    ("bytes_sent", "status"),
    [
        (b"\1\0\0\0\1x", Status.UNIMPLEMENTED),
        (b"\0\xff\xff\xff\xff", Status.RESOURCE_EXHAUSTED),
        (prefixed(b"") * 5_000, Status.RESOURCE_EXHAUSTED),
    ],
)
def test_what_cannot_be_taken_ends_the_stream_and_not_the_connection(
    house: Any, bytes_sent: bytes, status: Status
) -> None:
    """Compressed, too long, too many; what came before is taken."""
    made = house()
    stream_id = opened(made)
    made.peer.send_data(stream_id, prefixed(b"before"))
    for at in range(0, len(bytes_sent), 16_384):
        made.peer.send_data(stream_id, bytes_sent[at : at + 16_384])
    made.exchange()
    told = made.told[stream_id]
    assert (told.status, told.is_ended, told.reset) == (status, True, 0)
    assert said(made)[0] == b"before"
    take_all(made)
    assert made.server.call_count == 0
    assert made.call(b"on").message == b"on"


def test_a_message_that_is_cut_short_is_told(house: Any) -> None:
    """At the end of the peer's side."""
    made = house()
    stream_id = opened(made)
    made.peer.send_data(stream_id, prefixed(b"one") + b"\0\0", end_stream=True)
    made.exchange()
    take_all(made)
    assert made.told[stream_id].status == Status.INVALID_ARGUMENT


@pytest.mark.parametrize("how", ["reset", "lost", "end"])
def test_what_was_received_outlives_its_stream(house: Any, how: str) -> None:
    """Reset, connection lost, or ended by us: the sink has it, and what is taken later finds nobody."""
    made = house()
    stream_id = opened(made)
    made.peer.send_data(stream_id, prefixed(b"one") + b"\0\0")
    made.exchange()
    if how == "reset":
        made.peer.reset_stream(stream_id)
        made.exchange()
        assert made.server.call_count == 1
    elif how == "lost":
        made.server.lose()
    else:
        made.server.end(0, "the process ends")
    assert said(made) == [b"one"]
    take_all(made)
    assert made.server.call_count == 0


def test_who_leaves_answers_its_streams_and_reads_what_is_on_its_way(house: Any) -> None:
    """GOAWAY first, then the end of each stream; what the peer had sent until it heard of that is taken."""
    made = house()
    stream_id = opened(made)
    made.peer.send_data(stream_id, prefixed(b"before"))
    made.exchange()
    made.server.leave()
    back = made.server.take_unsent()
    assert [kind for kind, _ in kinds_of(back)] == [GOAWAY, PING, HEADERS]
    assert kinds_of(back)[-1][1] == END_STREAM | END_HEADERS
    made.peer.send_data(stream_id, prefixed(b"on its way"))
    made.raw(made.peer.data_to_send())
    assert said(made) == [b"before", b"on its way"]
    assert made.raw(frame(PING, ACK, stream_id=0, payload=b"leaving!"))[3] == GOAWAY
    assert not made.server.is_over
    made.peer.reset_stream(stream_id)
    made.raw(made.peer.data_to_send())
    for stream, message in made.taken:
        assert not made.server.is_over
        stream.taken(message)
    assert made.server.is_over


def test_a_stream_that_comes_while_we_leave_is_answered_and_read(house: Any) -> None:
    """The peer has not heard of it yet."""
    made = house()
    made.server.leave()
    made.server.take_unsent()
    stream_id = made.begin("/sink")
    made.peer.send_data(stream_id, prefixed(b"late"), end_stream=True)
    assert made.raw(made.peer.data_to_send())[3] == HEADERS
    made.raw(frame(PING, ACK, stream_id=0, payload=b"leaving!"))
    assert not made.server.is_over
    ((stream, message),) = made.taken
    stream.taken(message)
    assert message == b"late"
    assert made.server.is_over


def test_no_more_than_eight_at_once_and_those_that_went_count_until_they_are_taken(house: Any) -> None:
    """Opening and taking back does not fill our memory."""
    made = house()
    streams = [opened(made) for _ in range(8)]
    made.peer.send_data(streams[0], prefixed(b"kept"))
    for stream_id in streams:
        made.peer.reset_stream(stream_id)
    made.exchange()
    again = [opened(made) for _ in range(8)]
    assert made.told[again[-1]].status == Status.RESOURCE_EXHAUSTED
    assert not any(stream_id in made.told for stream_id in again[:-1])
    take_all(made)
    assert opened(made) not in made.told


def test_data_behind_the_end_ends_the_stream(house: Any) -> None:
    """A peer that goes on talking."""
    made = house()
    stream_id = opened(made)
    made.peer.send_data(stream_id, prefixed(b"one"), end_stream=True)
    made.exchange()
    back = made.raw(frame(DATA, 0, stream_id=stream_id, payload=b"more"))
    assert back[3] == RST_STREAM
    take_all(made)
    assert made.server.call_count == 0


def test_padding_is_given_back_at_once(house: Any) -> None:
    """It is no message."""
    made = house()
    stream_id = opened(made)
    back = made.raw(frame(DATA, PADDED, stream_id=stream_id, payload=b"\3" + prefixed(b"x") + bytes(3)))
    assert said(made) == [b"x"]
    assert (back[3], back[-4:]) == (WINDOW_UPDATE, (1 + 3).to_bytes(4, "big"))


def test_crumbs_are_an_attack(house: Any) -> None:
    """Frames that complete nothing, more of them than any peer has to send in a second."""
    made = house()
    stream_id = opened(made)
    made.raw(frame(DATA, 0, stream_id=stream_id, payload=b"\0\0\1\0\0"))
    for _ in range(1_100):
        made.raw(frame(DATA, 0, stream_id=stream_id, payload=b"."))
    assert made.server.is_over


def test_a_stream_may_say_nothing_for_ever(house: Any) -> None:
    """It lives as long as its peer."""
    made = house()
    opened(made)
    made.now_s += 10_000
    assert made.server.oldest_s() is None


@settings(deadline=None)
@given(
    messages=st.lists(st.binary(max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    takes=st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_however_the_bytes_are_cut_the_messages_are_the_same(
    messages: list[bytes], cuts: list[int], takes: list[bool]
) -> None:
    """And the room is what it was, once all is taken."""
    made = House()
    made.greet()
    stream_id = opened(made)
    data, at, got = b"".join(map(prefixed, messages)), 0, []
    choices = iter(takes)
    for cut in [*sorted(cut for cut in cuts if cut <= len(data)), len(data)]:
        if cut > at:
            made.peer.send_data(stream_id, data[at:cut])
        made.exchange()
        at = cut
        if next(choices):
            got += said(made)
            take_all(made)
    got += said(made)
    take_all(made)
    assert got == messages
    assert room(made, stream_id) == WINDOW
    made.raw(frame(DATA, END_STREAM, stream_id=stream_id, payload=b""))
    assert made.server.call_count == 0
