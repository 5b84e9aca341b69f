"""However the bytes are cut, the same requests come out, or the same refusal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.errors import TooLarge
from gateway.edge.lane.head import Malformed
from gateway.edge.lane.memory import HeadMemory
from gateway.edge.lane.reader import Reader
from tests.unit.gateway.lane.requests import BOUNDS, CHUNKS, PIECES, TABLE, head, request


def read(pieces: list[bytes]) -> list[Any]:
    """What a connection's reader makes of bytes that come in these pieces."""
    reader, found = Reader(HeadMemory(TABLE), BOUNDS), []
    try:
        for piece in pieces:
            whole = reader.take_whole(piece)
            if whole is not None:
                found.append((whole[0].raw, whole[1]))
                continue
            reader.feed(piece)
            while (one := reader.take()) is not None:
                if one[0].route is None:
                    return [*found, "left to others"]
                found.append((one[0].raw, one[1]))
    except Malformed as fault:
        return [*found, fault.status, fault.detail]
    except TooLarge as failure:
        return [*found, failure.status, failure.detail]
    return [*found, "clean" if reader.is_clean else "begun"]


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), data=st.data())
def test_the_cuts_between_the_bytes_do_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    """Whole, byte by byte, or cut anywhere."""
    raw = b"".join(parts)
    places = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=12)))
    cut = [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True)]
    whole = read([raw])
    assert read(cut) == whole
    assert read([raw[at : at + 1] for at in range(len(raw))]) == whole


@settings(deadline=None)
@given(raw=st.binary(min_size=1, max_size=300), cut=st.integers(1, 299))
def test_no_bytes_break_the_reader(raw: bytes, cut: int) -> None:
    """They are a request, the beginning of one, or refused."""
    assert read([raw[:cut], raw[cut:]]) == read([raw])


@settings(deadline=None)
@given(data=st.data(), piece=st.sampled_from(PIECES))
def test_no_changed_byte_breaks_the_reader(data: st.DataObject, piece: bytes) -> None:
    """One byte of a request is another."""
    place = data.draw(st.integers(0, len(piece) - 1))
    changed = piece[:place] + bytes([data.draw(st.integers(0, 255))]) + piece[place + 1 :]
    assert read([changed[:place], changed[place:]]) == read([changed])


def test_the_same_head_again_is_not_read_again() -> None:
    """And another head is, though the bytes begin alike."""
    reader = Reader(HeadMemory(TABLE), BOUNDS)
    assert reader.take_whole(request(b"{}")) is None
    reader.feed(request(b"{}"))
    first = reader.take()
    assert first is not None
    again = reader.take_whole(request(b"[]"))
    assert again is not None
    assert (again[0] is first[0], again[1]) == (True, b"[]")
    assert reader.take_whole(request(b"[]") + b"\r\n") is None
    assert reader.take_whole(request(b"[]")[:-1]) is None


def test_a_request_for_others_keeps_its_bytes() -> None:
    """Whoever gets the connection reads it from its first byte."""
    reader, raw = Reader(HeadMemory(TABLE), BOUNDS), head("Content-Length: 3", target="/v1/events")
    reader.feed(request(b"{}") + raw + b"ab")
    reader.take()
    found = reader.take()
    assert found is not None
    assert found[0].route is None
    assert reader.rest() == raw + b"ab"


@pytest.mark.parametrize(
    ("raw", "status", "word"),
    [
        (b"a" * 1_001, 431, "1000 bytes"),
        (head("Content-Length: 101"), 413, "100 bytes"),
        (CHUNKS + b"ffffffff\r\n", 413, "100 bytes"),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_there(raw: bytes, status: int, word: str) -> None:
    """By what it announces."""
    found = read([raw])
    assert found[0] == status
    assert word in found[1]
