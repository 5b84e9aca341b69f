"""Bodies on their way: any cut of the same bytes is the same body."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.lane.head import Malformed
from gateway.edge.upstream.flow import ChunkedFlow, Flow, SizedFlow, chunk_of, last_chunk


def passed(flow: Flow, raw: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Payload, and what stands behind the body."""
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    payload = rest = b""
    for begin, end in pairwise(places):
        if flow.is_done:
            rest += raw[begin:end]
            continue
        piece, behind = flow.take(raw[begin:end])
        payload, rest = payload + piece, rest + behind
    return payload, rest


def feed(flow: Flow, raw: bytes, step: int) -> None:
    for at in range(0, len(raw), step):
        flow.take(raw[at : at + step])


PIECES = st.lists(st.binary(min_size=1, max_size=20), max_size=6)
CUTS = st.lists(st.integers(min_value=0), max_size=12)


@given(PIECES, CUTS, st.binary(max_size=8), st.booleans())
def test_chunks_end_where_they_end_however_they_are_cut(
    pieces: list[bytes], cuts: list[int], behind: bytes, has_trailers: bool
) -> None:
    """Also with trailers, and with another request behind them."""
    trailers = b"X-A: b\r\nX-C: d\r\n" if has_trailers else b""
    flow = ChunkedFlow()
    raw = b"".join(map(chunk_of, pieces)) + last_chunk(trailers) + behind
    assert passed(flow, raw, cuts) == (b"".join(pieces), behind)
    assert (flow.is_done, flow.trailers) == (True, trailers)


@given(st.binary(max_size=30), CUTS, st.binary(max_size=8))
def test_a_length_is_kept(body: bytes, cuts: list[int], behind: bytes) -> None:
    """Not a byte more."""
    flow = SizedFlow(len(body))
    assert passed(flow, body + behind, cuts) == (body, behind)


TWO_WAYS = [
    *(b"g\r\n", b"\r\n", b"1\na", b"123456789\r\n", b"-1\r\n", b" 1\r\n", b"0x1\r\n", b"1\r\naXX", b"1;\x00\r\n"),
    *(b"1;a\rb\r\n", b"0\r\nA: b\n\r\n\r\n", b"0\r\n" + b"A: b\r\n" * 2_000, b"1" + b";" * 2_000),
]


@pytest.mark.parametrize("raw", TWO_WAYS)
def test_what_can_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    """At whatever byte it is seen."""
    for step in (1, len(raw)):
        with pytest.raises(Malformed):
            feed(ChunkedFlow(), raw, step)
