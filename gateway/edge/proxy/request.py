"""A request's head, read strictly, with the route that it takes and what goes upstream of it.

Callers send the same head again and again; so a head is remembered with all that was made of it, and where the next
bytes begin with it word for word nothing is read again.

Source: RFC 9112, sections 3.2 (forms of the target) and 9; RFC 9110, section 10.1.1 (Expect).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from gateway.admission.caller import bearer_of
from gateway.edge.lane.head import CHUNKED, Fields, Malformed, Words, length_of, read_words, tokens_of
from gateway.edge.proxy.field import WEBSOCKET, forwarded_lines, request_lines, set_lines
from gateway.edge.proxy.rule import KeyRule, RouteRule
from gateway.edge.proxy.table import ProxyRoute, ProxyTable, plain_path

_KEY_FIELDS: Final = ("authorization", "x-api-key")
_EXPECTED: Final = "100-continue"


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """A head that was read. `route` None: there is none, and `is_known_path` says whether another method has one.

    `start` is what goes upstream, but for the framing of the body, what is said of the decision, and the empty
    line. `needs_host`: the upstream's own name is to be sent.
    """

    raw: bytes
    method: str
    route: ProxyRoute | None
    is_known_path: bool
    fields: Mapping[str, str]
    secret: str
    start: bytes
    length: int
    is_last: bool
    is_old: bool
    needs_host: bool
    expects: bool
    is_upgrade: bool

    @property
    def is_head(self) -> bool:
        """Whether the response has no body."""
        return self.method == "HEAD"

    @property
    def framing(self) -> bytes:
        """The lines that say how the body is sent on as it comes."""
        if self.length == CHUNKED:
            return b"Transfer-Encoding: chunked\r\n"
        return b"Content-Length: %d\r\n" % self.length if "content-length" in self.fields else b""


def read_request(raw: bytes, table: ProxyTable, *, peer: str) -> RequestHead:
    """A whole head, the empty line at its end included.

    Raises: Malformed.
    """
    words, _ = read_words(raw)
    if words.method == "CONNECT":
        raise Malformed("this is no tunnel", status=501)
    fields = Fields(words.fields)
    target, host = _target_of(words.target.decode("ascii"), fields.get("host", ""))
    path = plain_path(target.partition("?")[0])
    is_old = words.version == "1.0"
    if is_old and "transfer-encoding" in fields:
        raise Malformed("HTTP/1.0 has no transfer codings")
    expected = fields.get("expect", "").lower()
    if expected not in ("", _EXPECTED):
        raise Malformed("nothing but 100-continue may be expected", status=417)
    route = table.find(words.method, host, path=path)
    length, secret = length_of(fields), _secret(fields)
    is_upgrade = not length and not is_old and _is_websocket(words)
    start = b""
    if route is not None:
        start = _start(words, raw, target=target, host=host, peer=peer, rule=route.rule)
        start += b"Connection: Upgrade\r\nUpgrade: websocket\r\n" if is_upgrade else b""
    return RequestHead(
        raw=raw,
        method=words.method,
        route=route,
        is_known_path=route is not None or table.knows(host, path),
        fields=fields,
        secret=secret,
        start=start,
        length=length,
        is_last=is_old or "close" in tokens_of(words.fields),
        is_old=is_old,
        needs_host=route is not None and not (route.rule.pass_host and host),
        expects=bool(expected) and length != 0 and not is_old,
        is_upgrade=is_upgrade,
    )


def reads_response(rule: RouteRule) -> bool:
    """Whether the body of the response is read: for what it costs, or for usage that only we have asked for."""
    settled = [charge.settle for charge in rule.charges if charge.settle is not None]
    return rule.include_usage or any(one.json is not None or one.usage is not None for one in settled)


def _start(words: Words, raw: bytes, *, target: str, host: str, peer: str, rule: RouteRule) -> bytes:
    """Raises: Malformed."""
    rows = raw[:-4].split(b"\r\n")[1:]
    if len(rows) != len(words.fields):
        raise Malformed("this is no HTTP/1.1 request")
    drop = [*rule.remove_request_headers, *rule.set_request_headers]
    if rule.charges and rule.key is KeyRule.REMOVE:
        drop += _key_fields(words)
    told = b""
    if reads_response(rule):
        drop.append("accept-encoding")
        told = b"Accept-Encoding: identity\r\n"
    if "trailers" in tokens_of(words.fields, "te"):
        told += b"TE: trailers\r\n" + (b"" if _is_websocket(words) else b"Connection: TE\r\n")
    named = host if rule.pass_host else ""
    lines = [
        f"{words.method} {target} HTTP/1.1".encode("ascii"),
        *([b"Host: " + named.encode("utf-8", "surrogateescape")] if named else []),
        *request_lines(words, rows, drop=drop),
        *forwarded_lines(words.fields, peer=peer, version=words.version),
        *set_lines(rule.set_request_headers),
        b"",
    ]
    return b"\r\n".join(lines) + told


def _target_of(target: str, host: str) -> tuple[str, str]:
    """Path and query, and the host that is meant. Raises: Malformed."""
    if not target.startswith("/"):
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            raise Malformed("the target must be a path")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc
    if "#" in target:
        raise Malformed("the target must be a path")
    return target, host


def _secret(fields: Fields) -> str:
    return bearer_of(fields.get("authorization", "")) or fields.get("x-api-key", "")


def _key_fields(words: Words) -> list[str]:
    """The fields that the caller's key stands in."""
    secret = _secret(Fields(words.fields))
    return [name for name, value in words.fields if name in _KEY_FIELDS and secret in (value, bearer_of(value))]


def _is_websocket(words: Words) -> bool:
    told = tokens_of(words.fields, "upgrade")
    return "upgrade" in tokens_of(words.fields) and told == {WEBSOCKET} and words.method == "GET"
