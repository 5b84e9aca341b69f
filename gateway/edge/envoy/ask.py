"""What Envoy asks, read from its messages.

    CheckRequest          of external authorization: the headers of a request that are needed, and what the
                          operator wrote beside the route (`context_extensions`)
    RateLimitRequest      domain, descriptors, hits
    HealthCheckRequest    which service is meant

Source: envoy/service/auth/v3/external_auth.proto and attribute_context.proto; envoy/service/ratelimit/v3/rls.proto
and envoy/extensions/common/ratelimit/v3/ratelimit.proto; grpc/health/v1/health.proto.
"""

from __future__ import annotations

from typing import Final

import msgspec

from billing_core.errors import InvalidInput
from gateway.edge.envoy.protobuf import BYTES, NUMBER, Field, fields_of, inner, pair_of, tag, text_at

MAX_DESCRIPTORS: Final = 16

_ATTRIBUTES: Final = tag(1, BYTES)
_REQUEST: Final = tag(4, BYTES)
_EXTENSION: Final = tag(10, BYTES)
_HTTP: Final = tag(2, BYTES)
_HEADER: Final = tag(3, BYTES)
_HEADER_MAP: Final = tag(13, BYTES)
_MAPPED_HEADER: Final = tag(1, BYTES)
_KEY: Final = tag(1, BYTES)
_VALUE: Final = tag(2, BYTES)
_RAW_VALUE: Final = tag(3, BYTES)

_DOMAIN: Final = tag(1, BYTES)
_DESCRIPTOR: Final = tag(2, BYTES)
_REQUEST_HITS: Final = tag(3, NUMBER)
_ENTRY: Final = tag(1, BYTES)
_HITS: Final = tag(3, BYTES)
_WRAPPED: Final = tag(1, NUMBER)
_ONE_BYTE: Final = 127


class Authorization(msgspec.Struct, frozen=True, kw_only=True):
    """A request at Envoy's door: the headers that were asked for, and what stands beside the route."""

    headers: dict[str, str]
    extensions: dict[str, str]


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is counted. `hits`: None where it says nothing of its own."""

    entries: tuple[tuple[str, str], ...]
    hits: int | None = None


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Things that are counted together. `hits` of the whole request; 0 is what it says when it says nothing."""

    domain: str
    descriptors: tuple[Descriptor, ...]
    hits: int = 0


def authorization_of(data: bytes, wanted: frozenset[str]) -> Authorization:
    """A CheckRequest. `wanted` headers are read, in lower case, and no others.

    Raises: InvalidInput.
    """
    attributes = inner(data, fields_of(data, 0, len(data)), _ATTRIBUTES) or b""
    told = fields_of(attributes, 0, len(attributes))
    extensions = dict(pair_of(attributes, start, end) for name, start, end in told if name == _EXTENSION)
    request = inner(attributes, told, _REQUEST) or b""
    http = inner(request, fields_of(request, 0, len(request)), _HTTP) or b""
    fields = fields_of(http, 0, len(http))
    headers = _mapped(http, fields, wanted)
    for name, start, end in fields:
        if name == _HEADER and _is_wanted(http, start, wanted):
            key, value = pair_of(http, start, end)
            if key in wanted:
                headers[key] = value
    return Authorization(headers=headers, extensions=extensions)


def _is_wanted(data: bytes, start: int, wanted: frozenset[str]) -> bool:
    """Whether an entry may be worth reading: where it begins with its key, as it does, the key tells."""
    first, size = data[start : start + 1], data[start + 1 : start + 2]
    if first != b"\x0a" or not size or size[0] > _ONE_BYTE:
        return True
    return data[start + 2 : start + 2 + size[0]].decode("latin-1") in wanted


def _mapped(http: bytes, fields: list[Field], wanted: frozenset[str]) -> dict[str, str]:
    """Headers where Envoy was told to send each by itself (`encode_raw_headers`); of several the first."""
    found: dict[str, str] = {}
    for name, start, end in fields:
        if name != _HEADER_MAP:
            continue
        for item, at, stop in fields_of(http, start, end):
            if item == _MAPPED_HEADER:
                key, value = _header(http, at, stop)
                if key in wanted:
                    found.setdefault(key, value)
    return found


def _header(data: bytes, start: int, end: int) -> tuple[str, str]:
    key, value, raw = "", "", b""
    for name, at, stop in fields_of(data, start, end):
        if name == _KEY:
            key = text_at(data, at, stop)
        elif name == _VALUE:
            value = text_at(data, at, stop)
        elif name == _RAW_VALUE:
            raw = data[at:stop]
    return key, value or raw.decode("latin-1")


def rate_limit_of(data: bytes) -> RateLimit:
    """A RateLimitRequest.

    Raises: InvalidInput.
    """
    domain, hits = "", 0
    descriptors: list[Descriptor] = []
    for name, start, end in fields_of(data, 0, len(data)):
        if name == _DESCRIPTOR:
            if len(descriptors) == MAX_DESCRIPTORS:
                raise InvalidInput(f"must have at most {MAX_DESCRIPTORS} entries", field="descriptors")
            descriptors.append(_descriptor(data, start, end))
        elif name == _DOMAIN:
            domain = text_at(data, start, end)
        elif name == _REQUEST_HITS:
            hits = start % 2**32
    return RateLimit(domain=domain, descriptors=tuple(descriptors), hits=hits)


def _descriptor(data: bytes, start: int, end: int) -> Descriptor:
    entries: list[tuple[str, str]] = []
    hits: int | None = None
    for name, at, stop in fields_of(data, start, end):
        if name == _ENTRY:
            entries.append(pair_of(data, at, stop))
        elif name == _HITS:
            values = [value for item, value, _ in fields_of(data, at, stop) if item == _WRAPPED]
            hits = values[-1] if values else hits or 0
    return Descriptor(entries=tuple(entries), hits=hits)


def health_of(data: bytes) -> str:
    """A HealthCheckRequest: the name of a service, empty for all.

    Raises: InvalidInput.
    """
    names = [text_at(data, start, end) for name, start, end in fields_of(data, 0, len(data)) if name == _DOMAIN]
    return names[-1] if names else ""
