"""A table with four routes, and requests for it as bytes, good ones and bad ones."""

from __future__ import annotations

from gateway.edge.lane.head import RouteTable
from gateway.edge.lane.reader import Bounds
from gateway.edge.message import Answer, Request, Route


async def nothing(_: Request) -> Answer:
    return Answer(status=200)


CHECK = Route(method="POST", path="/v1/check", handler=nothing, is_hot=True)
SETTLE = Route(method="POST", path="/v1/holds/{subject}/settle", handler=nothing, is_hot=True)
ANY = Route(method="*", path="/v1/authorize/nginx", handler=nothing, is_hot=True)
OPEN = Route(method="*", path="/v1/authorize/envoy/{feature}/{quantity}/{path}", handler=nothing, is_hot=True)
TABLE = RouteTable([CHECK, SETTLE, ANY, OPEN])
BOUNDS = Bounds(max_head_bytes=1_000, max_body_bytes=100)


def head(*lines: str, target: str = "/v1/check", method: str = "POST", host: str = "Host: a") -> bytes:
    """A head of HTTP/1.1 with these fields."""
    fields = [host, *lines] if host else list(lines)
    return "\r\n".join([f"{method} {target} HTTP/1.1", *fields, "", ""]).encode("latin-1")


def request(body: bytes = b"", *lines: str) -> bytes:
    """A whole check."""
    return head(f"Content-Length: {len(body)}", *lines) + body


CHUNKS = head("Transfer-Encoding: chunked")
PIECES = (
    request(b"{}"),
    request(b"x" * 100),
    request(b"", "Connection: close"),
    CHUNKS + b"2\r\n{}\r\n0\r\n\r\n",
    CHUNKS + b"00000001\r\na\r\nA\r\n0123456789\r\n0\r\n\r\n",
    b"\r\n" + request(b"{}"),
    b"\r\n\r\n",
    b"\n",
    head("A: b\nC: d"),
    head(target="/v1/check?" + "a" * 1_000),
    head("Content-Length: 101"),
    head("Content-Length: 1", "Content-Length: 1"),
    head("Transfer-Encoding: gzip"),
    head("Content-Length: 3", target="/v1/events"),
    CHUNKS + b"2;a=b\r\n{}\r\n0\r\n\r\n",
    CHUNKS + b"2\n{}\r\n0\r\n\r\n",
    CHUNKS + b"2\r\n{}0\r\n\r\n",
    CHUNKS + b"2\r\n{}x\r\n0\r\n\r\n",
    CHUNKS + b"000000002\r\n{}\r\n0\r\n\r\n",
    CHUNKS + b"-1\r\n{}\r\n0\r\n\r\n",
    CHUNKS + b"\r\n{}\r\n0\r\n\r\n",
    CHUNKS + b"0\r\nA: b\r\n\r\n",
    CHUNKS + b"64\r\n" + b"x" * 100 + b"\r\n1\r\nx\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a",
)
