"""A table with two routes, and requests for it as bytes."""

from __future__ import annotations

from gateway.edge.lane.head import RouteTable
from gateway.edge.lane.reader import Bounds
from gateway.edge.message import Answer, Request, Route


async def nothing(_: Request) -> Answer:
    return Answer(status=200)


CHECK = Route(method="POST", path="/v1/check", handler=nothing, is_hot=True)
SETTLE = Route(method="POST", path="/v1/holds/{subject}/settle", handler=nothing, is_hot=True)
ANY = Route(method="*", path="/v1/authorize/nginx", handler=nothing, is_hot=True)
TABLE = RouteTable([CHECK, SETTLE, ANY])
BOUNDS = Bounds(max_head_bytes=1_000, max_body_bytes=100)


def head(*lines: str, target: str = "/v1/check", method: str = "POST", host: str = "Host: a") -> bytes:
    """A head of HTTP/1.1 with these fields."""
    fields = [host, *lines] if host else list(lines)
    return "\r\n".join([f"{method} {target} HTTP/1.1", *fields, "", ""]).encode("latin-1")


def request(body: bytes = b"", *lines: str) -> bytes:
    """A whole check."""
    return head(f"Content-Length: {len(body)}", *lines) + body
