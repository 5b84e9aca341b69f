"""Which route a request takes: by host, method and path, the first one that matches.

A path is a price list, so it is read one way or not at all. What is percent-encoded without need is decoded before
it is compared (`/%76%31/chat` is `/v1/chat`, as it is for the upstream); what servers read in different ways is
refused: dot segments, empty segments, an encoded slash, backslash or percent sign, control characters.

Templates: `{name}` is one segment, `{name...}` at the end is all that follows, even nothing.

Worked example: `/v1/models/{model}` matches `/v1/models/a` and neither `/v1/models/a/b` nor `/v1/models/`.

Source: RFC 3986, sections 2.3, 3.3 and 6.2.2; RFC 9110, section 17 (what an intermediary reads differently).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway.admission.order import Mode, Order
from gateway.edge.lane.head import Malformed
from gateway.edge.proxy.field import ResponseScribe
from gateway.edge.proxy.pricing import Pricing
from gateway.edge.proxy.rule import RouteRule
from gateway.edge.upstream.pool import Pool

_PLAIN: Final = re.compile(r"/(?:[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*(?:/|$))*")
_ENCODED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_LETTERS: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})*")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_TWO_WAYS: Final = frozenset("/\\%") | frozenset(map(chr, range(32))) | {"\x7f"}
_REST: Final = "...}"


class ProxyRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A route, ready to be taken. `reads_body`: a request waits until its body is here.

    `is_settled_by_body`: what it costs stands in the body of the response. `straight`: the order of all its
    requests, where that is known beforehand and nothing is left to be settled.
    """

    rule: RouteRule
    pool: Pool
    pricing: Pricing
    scribe: ResponseScribe
    reads_body: bool
    is_settled_by_body: bool
    straight: Order | None
    pattern: re.Pattern[str]
    host: str
    methods: frozenset[str]


class ProxyTable:
    """The routes, in their order."""

    def __init__(self, rules: Sequence[RouteRule], pools: Mapping[str, Pool], *, shadow: bool = False) -> None:
        self.routes = tuple(_route(rule, pools[rule.upstream], shadow=shadow) for rule in rules)

    def find(self, method: str, host: str, *, path: str) -> ProxyRoute | None:
        """The route of a request whose path is plain (see `plain_path`); None where there is none."""
        name = _without_port(host)
        for route in self.routes:
            if route.host and route.host != name:
                continue
            if route.methods and method not in route.methods:
                continue
            if route.pattern.fullmatch(path):
                return route
        return None

    def knows(self, host: str, path: str) -> bool:
        """Whether another method would have found a route."""
        name = _without_port(host)
        return any((not one.host or one.host == name) and one.pattern.fullmatch(path) for one in self.routes)


def _route(rule: RouteRule, pool: Pool, *, shadow: bool) -> ProxyRoute:
    pricing = Pricing(rule, shadow=shadow)
    settled = [charge.settle for charge in rule.charges if charge.settle is not None]
    is_straight = rule.charges and rule.mode is Mode.CONSUME and not rule.reads_body
    return ProxyRoute(
        rule=rule,
        pool=pool,
        pricing=pricing,
        scribe=ResponseScribe(rule),
        reads_body=rule.reads_body,
        is_settled_by_body=any(one.json is not None or one.usage is not None for one in settled),
        straight=pricing.always if is_straight else None,
        pattern=pattern_of(rule.path),
        host=rule.host.lower(),
        methods=frozenset(rule.methods),
    )


def pattern_of(template: str) -> re.Pattern[str]:
    """What a template matches."""
    text = ""
    for part in template.split("/")[1:]:
        if part.startswith("{") and part.endswith(_REST):
            return re.compile(f"{text}(?:/.*)?", re.DOTALL)
        text += "/[^/]+" if part.startswith("{") and part.endswith("}") else f"/{re.escape(part)}"
    return re.compile(text)


def plain_path(path: str) -> str:
    """The path as it is compared.

    Raises: Malformed where servers would read it in different ways.
    """
    if _PLAIN.fullmatch(path) is None:
        path = _ENCODED.sub(_decoded, path)
        segments = path.split("/")
        is_plain = _LETTERS.fullmatch(path) is not None and path.startswith("/")
        if not is_plain or not {".", ".."}.isdisjoint(segments) or "" in segments[1:-1]:
            raise Malformed("the path can be read in more than one way")
    return path


def _decoded(found: re.Match[str]) -> str:
    letter = chr(int(found[1], 16))
    if letter in _TWO_WAYS:
        raise Malformed("the path can be read in more than one way")
    return letter if letter in _UNRESERVED else found[0].upper()


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
