"""What Envoy asks, read from its messages.

    CheckRequest          of external authorization: the headers of a request that are needed, and what the
                          operator wrote beside the route (`context_extensions`)
    RateLimitRequest      domain, descriptors, hits
    HealthCheckRequest    which service is meant

Source: envoy/service/auth/v3/external_auth.proto and attribute_context.proto; envoy/service/ratelimit/v3/rls.proto
and envoy/extensions/common/ratelimit/v3/ratelimit.proto; grpc/health/v1/health.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import msgspec

from billing_core.errors import InvalidInput
from gateway.edge.envoy.protobuf import BYTES, NUMBER, fields_of, inner, pair_of, tag, text_of

MAX_DESCRIPTORS: Final = 16
_SHORT: Final = 2_048

_ATTRIBUTES: Final = tag(1, BYTES)
_REQUEST: Final = tag(4, BYTES)
_EXTENSION: Final = tag(10, BYTES)
_HTTP: Final = tag(2, BYTES)
_HEADER: Final = tag(3, BYTES)
_HEADER_MAP: Final = tag(13, BYTES)
_MAPPED_HEADER: Final = tag(1, BYTES)
_KEY: Final = tag(1, BYTES)
_RAW_VALUE: Final = tag(3, BYTES)

_DOMAIN: Final = tag(1, BYTES)
_DESCRIPTOR: Final = tag(2, BYTES)
_REQUEST_HITS: Final = tag(3, NUMBER)
_ENTRY: Final = tag(1, BYTES)
_HITS: Final = tag(3, BYTES)
_WRAPPED: Final = tag(1, NUMBER)
_NAME: Final = tag(1, BYTES)
_KEY_FIRST: Final = bytes((_KEY,))


class Authorization(msgspec.Struct, frozen=True, kw_only=True):
    """A request at Envoy's door: the headers that were asked for, and what stands beside the route."""

    headers: dict[str, str]
    extensions: Mapping[str, str]


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
    told = fields_of(inner(fields_of(data), _ATTRIBUTES))
    extensions = _extensions(tuple([entry for name, entry, _ in told if name == _EXTENSION]))
    fields = fields_of(inner(fields_of(inner(told, _REQUEST)), _HTTP))
    headers: dict[str, str] = {}
    encoded = _encoded(wanted)
    for name, entry, _ in fields:
        if name == _HEADER:
            # As a rule an entry begins with its key, and most keys are not wanted: those are not read any further.
            if entry[:1] == _KEY_FIRST and len(entry) > 1 and entry[2 : 2 + entry[1]] not in encoded:
                continue
            key, value = pair_of(entry)
            if key in wanted:
                headers[key] = value
        elif name == _HEADER_MAP:
            for key, value in _mapped(entry):
                if key in wanted:
                    headers.setdefault(key, value)
    return Authorization(headers=headers, extensions=extensions)


def _extensions(entries: tuple[bytes, ...]) -> Mapping[str, str]:
    """What stands beside a route: the same for all its requests, and therefore remembered unless it is long."""
    return _remembered(entries) if sum(map(len, entries)) <= _SHORT else _read(entries)


def _read(entries: tuple[bytes, ...]) -> Mapping[str, str]:
    return MappingProxyType(dict(pair_of(entry) for entry in entries))


_remembered = lru_cache(maxsize=1_024)(_read)


@lru_cache(maxsize=16)
def _encoded(wanted: frozenset[str]) -> frozenset[bytes]:
    return frozenset(name.encode() for name in wanted)


def _mapped(headers: bytes) -> Iterator[tuple[str, str]]:
    """Headers where Envoy was told to send each by itself (`encode_raw_headers`)."""
    for name, header, _ in fields_of(headers):
        if name == _MAPPED_HEADER:
            fields = fields_of(header)
            key, value = pair_of(header)
            raw = inner(fields, _RAW_VALUE)
            yield key, value or raw.decode("latin-1")


def rate_limit_of(data: bytes) -> RateLimit:
    """A RateLimitRequest.

    Raises: InvalidInput.
    """
    domain, hits = "", 0
    descriptors: list[Descriptor] = []
    for name, value, number in fields_of(data):
        if name == _DESCRIPTOR:
            if len(descriptors) == MAX_DESCRIPTORS:
                raise InvalidInput(f"must have at most {MAX_DESCRIPTORS} entries", field="descriptors")
            descriptors.append(_descriptor(value))
        elif name == _DOMAIN:
            domain = text_of(value)
        elif name == _REQUEST_HITS:
            hits = number % 2**32
    return RateLimit(domain=domain, descriptors=tuple(descriptors), hits=hits)


def _descriptor(data: bytes) -> Descriptor:
    entries: list[tuple[str, str]] = []
    hits: int | None = None
    for name, value, _ in fields_of(data):
        if name == _ENTRY:
            entries.append(pair_of(value))
        elif name == _HITS:
            numbers = [number for found, _, number in fields_of(value) if found == _WRAPPED]
            hits = numbers[-1] if numbers else hits or 0
    return Descriptor(entries=tuple(entries), hits=hits)


def health_of(data: bytes) -> str:
    """A HealthCheckRequest: the name of a service, empty for all.

    Raises: InvalidInput.
    """
    names = [text_of(value) for name, value, _ in fields_of(data) if name == _NAME]
    return names[-1] if names else ""
