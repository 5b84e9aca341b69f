"""What streams and frames say, however they are cut."""

from __future__ import annotations

import zlib
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.lane.head import Malformed
from gateway.edge.meter.coding import Inflation
from gateway.edge.meter.event import EventReader, data_of, document_of, is_only_usage, spoken_bytes
from gateway.edge.meter.usage import Usage, updated, with_usage
from gateway.edge.meter.websocket import MessageReader, Tunnel
from gateway.edge.proxy.pricing import found_at, text_bytes, tokens_in, units_of
from gateway.edge.proxy.rule import Messages

CUTS = st.lists(st.integers(min_value=0), max_size=10)
ENDS = [b"\n", b"\r\n", b"\r"]
LINE_ENDS = st.sampled_from([b"\n", b"\r\n"])


def pieces_of(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return [raw[begin:end] for begin, end in pairwise(places)]


@given(st.lists(st.text(alphabet="abc :", max_size=9), max_size=6), LINE_ENDS, CUTS)
def test_events_are_found_however_the_stream_is_cut(texts: list[str], end: bytes, cuts: list[int]) -> None:
    """Each as it came, and what is left is the rest."""
    events = [b"data: " + text.encode() + end + end for text in texts]
    reader = EventReader(max_bytes=1_000)
    found = [event for piece in pieces_of(b"".join(events) + b"data: re", cuts) for event in reader.take(piece)]
    assert found == events
    assert [data_of(event) for event in found] == [text.encode() for text in texts]
    assert reader.rest() == b"data: re"


@given(
    st.lists(st.tuples(st.sampled_from(["data: four", ": hi", "id: 1", ""]), st.sampled_from(ENDS)), max_size=12),
    CUTS,
)
def test_lines_may_end_in_three_ways_in_one_stream(lines: list[tuple[str, bytes]], cuts: list[int]) -> None:
    """Nothing is lost, nothing changed, and the same is said however the stream is cut."""
    raw = b"".join(line.encode() + end for line, end in lines)

    def said(pieces: list[bytes]) -> list[bytes]:
        reader = EventReader(max_bytes=1_000)
        events = [event for piece in pieces for event in reader.take(piece)]
        events.append(reader.rest())
        assert b"".join(events) == raw
        return [data for event in events if (data := data_of(event))]

    assert said(pieces_of(raw, cuts)) == said([raw])


def test_a_remark_does_not_wait_for_the_next_event() -> None:
    """It keeps a connection alive."""
    reader = EventReader(max_bytes=1_000)
    assert reader.take(b": one\n: two\n: th") == [b": one\n: two\n"]
    assert reader.take(b"ree\ndata: x\n\n") == [b": three\ndata: x\n\n"]


@pytest.mark.parametrize("wbits", [31, 15])
def test_what_is_compressed_is_read_in_any_pieces(wbits: int) -> None:
    """One member after the other, and an end that is missing is missed."""
    packed = b""
    for text in (b"one", b"", b"two" * 100_000):
        packer = zlib.compressobj(wbits=wbits)
        packed += packer.compress(text) + packer.flush()
    for step in (1, 7, len(packed)):
        inflation = Inflation(most_bytes=10**6)
        pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
        assert b"".join(part for piece in pieces for part in inflation.take(piece)) == b"one" + b"two" * 100_000
        inflation.end()
    inflation = Inflation(most_bytes=10**6)
    assert b"".join(inflation.take(packed[:-1])).startswith(b"onetwo")
    with pytest.raises(Malformed):
        inflation.end()


@pytest.mark.parametrize("raw", [b"plain", zlib.compress(b"x" * 1_001)])
def test_what_cannot_be_inflated_or_grows_too_large_is_refused(raw: bytes) -> None:
    """Memory has a bound."""
    with pytest.raises(Malformed):
        list(Inflation(most_bytes=1_000).take(raw))


def test_an_event_above_the_bound_is_refused() -> None:
    """Memory has one."""
    reader = EventReader(max_bytes=10)
    with pytest.raises(Malformed):
        reader.take(b"data: 12345")


@pytest.mark.parametrize(
    ("document", "size"),
    [
        ({"choices": [{"delta": {"content": "four"}}]}, 4),
        ({"choices": [{"delta": {"content": "four"}}, {"delta": {"reasoning_content": "five5"}}]}, 9),
        ({"choices": [{"delta": {"tool_calls": [{"id": "x", "function": {"name": "f"}}]}}]}, 1),
        ({"choices": [{"delta": {"role": "assistant"}}]}, 0),
        ({"choices": [{"text": "four"}]}, 4),
        ({"type": "response.output_text.delta", "delta": "four"}, 4),
        ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "four"}}, 4),
        ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}}, 2),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, 0),
        ({"choices": "no"}, 0),
        ({}, 0),
    ],
)
def test_text_is_counted_in_every_dialect(document: dict[str, object], size: int) -> None:
    """And nothing that the model did not write."""
    assert spoken_bytes(document_of(b"data: " + msgspec.json.encode(document) + b"\n\n")) == size


def test_only_the_usage_chunk_is_the_usage_chunk() -> None:
    """One that says something else too is passed on."""
    usage = {"prompt_tokens": 1}
    assert is_only_usage({"choices": [], "usage": usage})
    assert not is_only_usage({"choices": [{"delta": {}}], "usage": usage})
    assert not is_only_usage({"choices": [], "usage": None})
    assert not is_only_usage(None)


@pytest.mark.parametrize(
    ("frames", "usage"),
    [
        ([{"prompt_tokens": 9, "completion_tokens": 4}], Usage(input=9, output=4)),
        ([{"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 2}}], Usage(input=7, cached=2)),
        ([{"prompt_tokens": 9, "prompt_tokens_details": None}], Usage(input=9)),
        (
            [{"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 2}}],
            Usage(input=7, cached=2, output=4),
        ),
        (
            [{"input_tokens": 7, "cache_creation_input_tokens": 1, "cache_read_input_tokens": 2},
             {"output_tokens": 5}, {"output_tokens": 6}],
            Usage(input=8, cached=2, output=6),
        ),
        ([{"input_tokens": -1, "output_tokens": "x"}], Usage()),
    ],
)  # fmt: skip
def test_usage_is_read_in_every_dialect(frames: list[dict[str, object]], usage: Usage) -> None:
    """Cached tokens are counted once, and of cumulative numbers the last counts."""
    known = None
    for frame in frames:
        known = updated(known, frame)
    assert known == usage


NO_STREAMS = [b"", b"[]", b"no", b'{"stream": false}', b'{"a": 1}', b'{"stream": true, "stream_options": 1}']


@pytest.mark.parametrize("body", NO_STREAMS)
def test_usage_is_asked_of_streams_only(body: bytes) -> None:
    """Anything else is left as it is."""
    assert with_usage(body) is None


def frame(payload: bytes, *, code: int = 0x81, is_masked: bool = False) -> bytes:
    size, mask = len(payload), 0x80 if is_masked else 0
    short = size if size < 126 else 126 if size < 65_536 else 127
    extra = b"" if size < 126 else size.to_bytes(2 if size < 65_536 else 8, "big")
    return bytes((code, short | mask)) + extra + (b"mask" if is_masked else b"") + payload


SIZES = st.lists(st.sampled_from([0, 1, 125, 126, 300, 65_536]), max_size=5)


@given(SIZES, st.booleans(), CUTS, st.integers(min_value=0, max_value=6))
def test_as_many_messages_pass_as_are_covered(
    sizes: list[int], is_masked: bool, cuts: list[int], most: int
) -> None:
    """Word for word, however they are cut; what waits passes once it is covered."""
    frames = [frame(b"x" * size, is_masked=is_masked) for size in sizes]
    reader = MessageReader()
    passed = b"".join(reader.take(piece, most) for piece in pieces_of(b"".join(frames), cuts))
    assert passed == b"".join(frames[:most])
    assert (reader.count, reader.is_blocked) == (min(most, len(sizes)), len(sizes) > most)
    assert passed + reader.take(b"", None) == b"".join(frames)


def test_control_frames_and_fragments_are_no_messages() -> None:
    """A message is its last frame."""
    reader = MessageReader()
    raw = frame(b"ab", code=0x01) + frame(b"ping", code=0x89) + frame(b"c", code=0x00) + frame(b"d", code=0x80)
    assert reader.take(raw, 1) == raw
    assert reader.count == 1
    assert reader.take(frame(b"bye", code=0x88), 1) == frame(b"bye", code=0x88)


def test_both_directions_draw_on_one_number() -> None:
    """Two are covered: one up, one down, and then none."""
    tunnel, one = Tunnel(Messages.BOTH), frame(b"a")
    assert tunnel.pass_up(one, 2) == one
    assert tunnel.pass_down(one + one, 2) == one
    assert tunnel.is_blocked
    assert tunnel.pass_down(b"", 3) == one
    assert not tunnel.is_blocked


def test_what_stands_in_a_document_is_found() -> None:
    """Or nothing is."""
    document = {"a": [{"n": 5}], "text": "héllo", "more": ["x", {"y": "z"}]}
    assert (found_at(document, "a.0.n"), found_at(document, "a.1.n"), found_at(document, "text.n")) == (
        5,
        None,
        None,
    )
    assert text_bytes(document) == 8
    assert [tokens_in(size) for size in (0, 1, 4, 5)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("value", "units"),
    [(5, 5), (0, 0), (-1, None), (True, None), ("7", 7), ("-7", None), ("7.0", None), (7.0, 7), (7.5, None),
     (None, None), ("9" * 20, None), ("\u0663", None), (float("inf"), None)],
)  # fmt: skip
def test_units_are_whole_numbers(value: object, units: int | None) -> None:
    """As JSON or a header says them."""
    assert units_of(value) == units
