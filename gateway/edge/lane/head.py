"""The head of a request, read strictly: one way to read it, or none.

llhttp (through `httptools`) reads the words, and with all its leniencies off it refuses what smuggling is made of:
two lengths, a length beside a transfer coding, a bare line feed, a folded line, a space before the colon, a control
character. What it would still let pass is refused here: more than one space in the request line, a request without
`Host` or with two, a transfer coding that is not `chunked` alone, more fields than anybody needs.

What is no business of the lane is only told as such (`route` is None): other paths and methods, HTTP/1.0, upgrades,
whoever waits for `100 Continue`. aiohttp answers those on the same connection.

Source: RFC 9112, sections 2.2, 3, 5 and 6; RFC 9110, section 7.2 (Host).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar, overload

import httptools
import msgspec

from gateway.edge.message import Route

T = TypeVar("T")

MOST_FIELDS: Final = 100
CHUNKED: Final = -1
"""The length of a body that says its length piece by piece."""

_HOLDS: Final = "/v1/holds/"
_CODE: Final = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-.")
_ANY: Final = "*"
_LEFT_TO_OTHERS: Final = frozenset({"HEAD", "OPTIONS", "CONNECT", "TRACE"})


class Malformed(Exception):  # noqa: N818 - what the bytes are, not what went wrong here
    """Bytes that are no request that could be answered; `status` says so."""

    def __init__(self, detail: str, *, status: int = 400) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status


class Fields(Mapping[str, str]):
    """Header fields by name, in whatever case; of one that comes twice, the first."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._by_name = dict(reversed(pairs))

    def __getitem__(self, name: str) -> str:
        return self._by_name[name.lower()]

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, /, default: str) -> str: ...
    @overload
    def get(self, key: str, /, default: T) -> str | T: ...
    def get(self, key: str, /, default: object = None) -> object:
        """The field's value, without the detour by an exception that a mapping takes."""
        return self._by_name.get(key.lower(), default)

    def beside(self, name: str, value: str) -> Fields:
        """The same fields, but for that one, whose name is told in lower case."""
        fields = Fields.__new__(Fields)
        fields._by_name = {**self._by_name, name: value}  # noqa: SLF001 - it is one of us
        return fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A head that was read. `raw` is all of it; `route` None: not the lane's.

    `length` of the body, `CHUNKED` where nobody says it beforehand; `is_last`: the client closes after this one.
    """

    raw: bytes
    route: Route | None
    subject: str = ""
    query: str = ""
    fields: Fields
    length: int = 0
    is_last: bool = False


class RouteTable:
    """The lane's routes, found by method and path."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """At most one route has a variable part in each place: `/v1/holds/{subject}/settle` and its like.

        A route with an open end stands for all below its stem.
        """
        self._exact = {(route.method, route.path): route for route in routes if "{" not in route.path}
        self._below = {
            (route.method, *route.path.split("{subject}")): route for route in routes if "{subject}" in route.path
        }
        self._open = [(route.stem, route) for route in routes if route.is_open]

    def find(self, method: str, path: str) -> tuple[Route | None, str]:
        """The route and its subject; None where there is none, or the path is not written plainly."""
        if method in _LEFT_TO_OTHERS:
            return None, ""
        route = self._exact.get((method, path)) or self._exact.get((_ANY, path))
        if route is not None:
            return route, ""
        for stem, route in self._open:
            if path.startswith(stem) and route.method in (method, _ANY):
                return route, path[len(stem) :]
        before, _, last = path.rpartition("/")
        first, _, subject = before.rpartition("/")
        route = self._below.get((method, first + "/", "/" + last))
        return (route, subject) if route is not None and subject and _CODE.issuperset(subject) else (None, "")


class Words:
    """What llhttp finds, as it tells it; the names of the fields are in lower case."""

    __slots__ = ("fields", "method", "target", "version")

    def __init__(self) -> None:
        self.method = self.version = ""
        self.target = b""
        self.fields: list[tuple[str, str]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("ascii").lower(), value.strip(b" \t").decode("utf-8", "surrogateescape")))


def read_words(raw: bytes) -> tuple[Words, bool]:
    """The words of a whole head, and whether it asks for another protocol (`Upgrade`, CONNECT).

    Raises: Malformed.
    """
    words, is_upgrade = Words(), False
    parser = httptools.HttpRequestParser(words)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        is_upgrade = True
    except httptools.HttpParserError:
        raise Malformed("this is no HTTP/1.1 request") from None
    words.method, words.version = parser.get_method().decode("ascii"), parser.get_http_version()
    if not raw.startswith(b"%b %b HTTP/%b\r\n" % (words.method.encode(), words.target, words.version.encode())):
        raise Malformed("this is no HTTP/1.1 request")
    if len(words.fields) > MOST_FIELDS:
        raise Malformed(f"must have at most {MOST_FIELDS} header fields", status=431)
    if words.version not in ("1.1", "1.0"):
        raise Malformed("must be HTTP/1.1", status=505)
    names = [name for name, _ in words.fields]
    if names.count("host") != 1 and words.version == "1.1":
        raise Malformed("must name one host")
    return words, is_upgrade


def read_head(raw: bytes, table: RouteTable) -> Head:
    """A whole head, the empty line at its end included.

    Raises: Malformed.
    """
    words, is_upgrade = read_words(raw)
    if is_upgrade:
        return Head(raw=raw, route=None, fields=Fields(()))
    method, version = words.method, words.version
    fields = Fields(words.fields)
    length = length_of(fields)
    path, _, query = words.target.decode("ascii").partition("?")
    route, subject = table.find(method, path)
    if version == "1.0" or "expect" in fields or "#" in query:
        route = None
    return Head(
        raw=raw,
        route=route,
        subject=subject,
        query=query,
        fields=fields,
        length=length,
        is_last="close" in tokens_of(words.fields),
    )


def length_of(fields: Fields) -> int:
    """Of the body. Raises: Malformed where its coding is not one that can be read."""
    coding = fields.get("transfer-encoding")
    if coding is None:
        return int(fields.get("content-length", "0"))
    if coding.lower() != "chunked":
        raise Malformed("must have no transfer coding but chunked", status=501)
    return CHUNKED


def tokens_of(pairs: Sequence[tuple[str, str]], name: str = "connection") -> set[str]:
    """What the connection is told; or what another field lists."""
    listed = ",".join([value for known, value in pairs if known == name])
    return {token.strip(" \t").lower() for token in listed.split(",")} if listed else set()
