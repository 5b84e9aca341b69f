"""Header fields on their way through: what is passed on word for word, and what ends here.

What belongs to one connection ends here: the fixed list, and whatever `Connection` names. Nobody can name away what
this house adds, because that is written afterwards. Fields in which upstreams believe (`X-Tallygate-...`, which
many cannot tell from `X_Tallygate_...`) are taken from nobody else; lengths and codings are written anew.

Source: RFC 9110, sections 7.6.1 (Connection), 7.6.3 (Via) and 10.1.4 (TE).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gateway.edge.lane.head import Words, tokens_of
from gateway.edge.proxy.rule import RouteRule
from gateway.edge.upstream.head import ResponseHead

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
_WRITTEN_ANEW: Final = frozenset({"host", "content-length", "expect", "x-forwarded-for", "via"})
_OURS: Final = "x-tallygate-"
_LIMITS: Final = frozenset({"ratelimit", "ratelimit-policy"})
_NEVER_TRAILING: Final = _HOP_BY_HOP | frozenset(
    {
        *("authorization", "cache-control", "content-encoding", "content-length", "content-range", "content-type"),
        *("cookie", "host", "set-cookie", "trailer"),
    }
)
_NO_CONTENT: Final = 204
WEBSOCKET: Final = "websocket"


def request_lines(words: Words, rows: Sequence[bytes], *, drop: Iterable[str]) -> list[bytes]:
    """The fields of a request that are passed on; `drop` names more that end here."""
    gone = {*_HOP_BY_HOP, *_WRITTEN_ANEW, *tokens_of(words.fields), *(name.lower() for name in drop)}
    return [
        row for (name, _), row in zip(words.fields, rows, strict=True) if name not in gone and not _is_ours(name)
    ]


def _is_ours(name: str) -> bool:
    """Whether an upstream may take it for ours."""
    return name.startswith("x") and name.replace("_", "-").startswith(_OURS)


def forwarded_lines(fields: Sequence[tuple[str, str]], *, peer: str, version: str) -> list[bytes]:
    """Where the request came from, as far as it is known."""
    told = {
        name: ", ".join(value for known, value in fields if known == name) for name in ("x-forwarded-for", "via")
    }
    lines = [
        f"X-Forwarded-For: {told['x-forwarded-for']}, {peer}"
        if told["x-forwarded-for"]
        else f"X-Forwarded-For: {peer}",
        f"Via: {told['via']}, {version} tallygate" if told["via"] else f"Via: {version} tallygate",
    ]
    names = {name for name, _ in fields}
    if "x-forwarded-proto" not in names:
        lines.append("X-Forwarded-Proto: http")
    host = next((value for name, value in fields if name == "host"), "")
    if "x-forwarded-host" not in names and host:
        lines.append(f"X-Forwarded-Host: {host}")
    return [line.encode("utf-8", "surrogateescape") for line in lines]


def set_lines(told: Mapping[str, str]) -> list[bytes]:
    """Fields that a route sets."""
    return [f"{name}: {value}".encode("ascii") for name, value in told.items()]


def added_lines(told: Iterable[tuple[str, str]]) -> bytes:
    """Fields that are written for one message, line ends and all."""
    return "".join([f"{name}: {value}\r\n" for name, value in told]).encode("utf-8", "surrogateescape")


def trailing_lines(raw: bytes) -> bytes:
    """Of the lines behind a body those that may be passed on.

    Source: RFC 9110, section 6.5.1.
    """
    if not raw:
        return b""
    kept = [row for row in raw.split(b"\r\n") if row and _is_field(row) and _name_of(row) not in _NEVER_TRAILING]
    return b"".join([row + b"\r\n" for row in kept if not _is_ours(_name_of(row))])


def response_start(head: ResponseHead, rule: RouteRule, *, is_recut: bool, is_decoded: bool) -> bytes:
    """The head of a response as it is passed on, without its last line.

    Without a length where its body is recut, and without a coding where that is passed on plain.
    """
    gone = {*_HOP_BY_HOP, *tokens_of([(name, _value(row)) for name, row in head.lines])}
    gone |= {name.lower() for name in (*rule.remove_response_headers, *rule.set_response_headers)}
    gone |= _LIMITS if rule.charges else set()
    gone |= {"content-length"} if is_recut or head.status == _NO_CONTENT else set()
    gone |= {"content-encoding"} if is_decoded else set()
    lines = [row for name, row in head.lines if name not in gone and not name.startswith(_OURS)]
    return b"\r\n".join([head.start, *lines, *set_lines(rule.set_response_headers), b""])


class ResponseScribe:
    """Writes the heads of one route's responses; the last one is remembered."""

    __slots__ = ("_known", "_rule", "_start")

    def __init__(self, rule: RouteRule) -> None:
        self._rule = rule
        self._known = (b"", False, False)
        self._start = b""

    def start(self, head: ResponseHead, *, is_recut: bool, is_decoded: bool) -> bytes:
        """As `response_start`."""
        known = (head.raw, is_recut, is_decoded)
        if known != self._known:
            start = response_start(head, self._rule, is_recut=is_recut, is_decoded=is_decoded)
            self._known, self._start = known, start
        return self._start


def _value(row: bytes) -> str:
    return row.partition(b":")[2].decode("latin-1")


def _name_of(row: bytes) -> str:
    return row.partition(b":")[0].decode("latin-1").lower()


def _is_field(row: bytes) -> bool:
    name, colon, value = row.partition(b":")
    is_name = bool(name) and name.isascii() and name.decode("ascii").replace("-", "").replace("_", "").isalnum()
    return bool(colon) and is_name and not any((byte < 32 and byte != 9) or byte == 127 for byte in value)
