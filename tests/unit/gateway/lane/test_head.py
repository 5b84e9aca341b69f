"""One way to read a head, or none."""

from __future__ import annotations

import pytest

from gateway.edge.lane.head import CHUNKED, MOST_FIELDS, Malformed, read_head
from tests.unit.gateway.lane.requests import ANY, CHECK, OPEN, SETTLE, TABLE, head


def test_a_head_is_read_into_what_a_handler_needs() -> None:
    """Names in any case; blanks around a value do not count."""
    read = read_head(head("Content-Length: 12", "X-Api-Key: \tk1 \t", "x-api-key: k2"), TABLE)
    assert (read.route, read.length, read.is_last) == (CHECK, 12, False)
    assert (read.fields["X-API-KEY"], read.fields.get("x-Api-Key", ""), read.fields.get("nothing", "-")) == (
        "k1",
        "k1",
        "-",
    )


def test_bytes_that_are_no_text_come_through() -> None:
    """A handler sees them as aiohttp tells them."""
    raw = head("X-Request-Id: a").replace(b": a\r\n\r\n", b": \xff\r\n\r\n")
    assert read_head(raw, TABLE).fields["X-Request-Id"] == "\udcff"


@pytest.mark.parametrize(
    ("method", "target", "found"),
    [
        ("POST", "/v1/check", (CHECK, "", "")),
        ("POST", "/v1/check?a=b?c", (CHECK, "", "a=b?c")),
        ("GET", "/v1/authorize/nginx?feature=x", (ANY, "", "feature=x")),
        ("PATCH", "/v1/authorize/nginx", (ANY, "", "")),
        ("POST", "/v1/holds/hold_1.a-B/settle", (SETTLE, "hold_1.a-B", "")),
        ("PUT", "/v1/authorize/envoy/calls/1/a/b?c=d", (OPEN, "calls/1/a/b", "c=d")),
        ("GET", "/v1/authorize/envoy//..%2F;a=/", (OPEN, "/..%2F;a=/", "")),
        ("GET", "/v1/authorize/envoy/", (OPEN, "", "")),
        ("GET", "/v1/authorize/envoy", (None, "", "")),
        ("HEAD", "/v1/authorize/envoy/calls/1/", (None, "", "")),
        ("GET", "/v1/authorize/./envoy/calls/1/", (None, "", "")),
        ("GET", "/v1/authorize/%65nvoy/calls/1/", (None, "", "")),
        ("GET", "/v1/check", (None, "", "")),
        ("HEAD", "/v1/authorize/nginx", (None, "", "")),
        ("OPTIONS", "/v1/authorize/nginx", (None, "", "")),
        ("POST", "/v1/check/", (None, "", "")),
        ("POST", "//v1/check", (None, "", "")),
        ("POST", "/v1/./check", (None, "", "")),
        ("POST", "/v1/%63heck", (None, "", "")),
        ("POST", "/v1/check#a", (None, "", "")),
        ("POST", "/v1/check?a#b", (None, "", "a#b")),
        ("POST", "http://a/v1/check", (None, "", "")),
        ("POST", "/v1/holds/a%2Fb/settle", (None, "", "")),
        ("POST", "/v1/holds//settle", (None, "", "")),
        ("POST", "/v1/holds/a/b/settle", (None, "", "")),
        ("GET", "/healthz", (None, "", "")),
    ],
)
def test_what_is_not_the_lanes_is_left_to_others(method: str, target: str, found: tuple[object, str, str]) -> None:
    """Only paths that are written plainly are found; a doubt is somebody else's."""
    read = read_head(head(method=method, target=target), TABLE)
    assert (read.route, read.subject, read.query) == found


@pytest.mark.parametrize("line", ["Expect: 100-continue", "Connection: upgrade\r\nUpgrade: h2c"])
def test_who_wants_more_than_an_answer_is_left_to_others(line: str) -> None:
    """Even on a path of the lane."""
    assert read_head(head(line), TABLE).route is None


def test_http_1_0_is_left_to_others() -> None:
    """It needs no host."""
    assert read_head(b"POST /v1/check HTTP/1.0\r\n\r\n", TABLE).route is None


@pytest.mark.parametrize(
    ("line", "is_last"),
    [("Connection: close", True), ("Connection: keep-alive, Close", True), ("Connection: keep-alive", False)],
)
def test_a_client_says_that_it_will_close(line: str, is_last: bool) -> None:
    """In a list, in any case; and in a second field."""
    assert read_head(head(line), TABLE).is_last == is_last
    assert read_head(head("Connection: x", line), TABLE).is_last == is_last


def test_a_body_in_chunks_has_no_length() -> None:
    """The coding may be written in any case."""
    assert read_head(head("Transfer-Encoding: Chunked"), TABLE).length == CHUNKED


@pytest.mark.parametrize(
    "raw",
    [
        head("Content-Length: 1", "Content-Length: 1"),
        head("Content-Length: 1", "Content-Length: 2"),
        head("Content-Length: 1, 1"),
        head("Content-Length: +1"),
        head("Content-Length: -1"),
        head("Content-Length: 0x1"),
        head("Content-Length: 1 1"),
        head("Content-Length: "),
        head("Content-Length: 99999999999999999999"),
        head("Content-Length: 1", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: chunked", "Content-Length: 1"),
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: chunked, identity"),
        head("Transfer-Encoding : chunked"),
        head("Transfer-Encoding:\x0bchunked"),
        head("Transfer-Encoding: xchunked"),
        head("A: b\r\n c"),
        head(" A: b"),
        head("A: b\nB: c"),
        head("A: b\rB: c"),
        head("A\x00: b"),
        head("A: b\x00"),
        head("A: \x7f"),
        head(": b"),
        head("A"),
        head(host=""),
        head(host="Host: a\r\nHost: a"),
        b"POST  /v1/check HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/check  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/check HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"POST\t/v1/check HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/ch eck HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/ch\xffck HTTP/1.1\r\nHost: a\r\n\r\n",
        b"post /v1/check HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/check HTTP/1.10\r\nHost: a\r\n\r\n",
        b"POST /v1/check http/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/check\r\nHost: a\r\n\r\n",
        b"POST v1/check HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_no_request(raw: bytes) -> None:
    """400, and nothing else on this connection."""
    with pytest.raises(Malformed) as caught:
        read_head(raw, TABLE)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (head(*[f"X-{n}: a" for n in range(MOST_FIELDS)]), 431),
        (head("Transfer-Encoding: gzip, chunked"), 501),
        (b"POST /v1/check HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ],
)
def test_what_is_well_formed_and_too_much_says_so(raw: bytes, status: int) -> None:
    """By a status of its own."""
    with pytest.raises(Malformed) as caught:
        read_head(raw, TABLE)
    assert caught.value.status == status
