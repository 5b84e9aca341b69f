"""What Envoy is answered, written as its messages.

Headers for the upstream replace what the client may have sent under the same name (`append_action`), so nobody can
tell an upstream that he is somebody else.

Source: as `ask`; google/rpc/code.proto; google/protobuf/duration.proto and struct.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from gateway.edge.envoy.protobuf import bytes_field, header, number_field, text_field
from gateway.edge.grpc.status import Status

Headers = Iterable[tuple[str, str]]

OK: Final = 1
OVER_LIMIT: Final = 2
SERVING: Final = 1
NOT_SERVING: Final = 2
MOST: Final = 2**32 - 1
"""What remains is told in 32 bits; more is told as that."""

_OVERWRITE: Final = number_field(3, 2)
_CODE_OK: Final = number_field(1, OK)
_CODE_OVER: Final = number_field(1, OVER_LIMIT)
_GOOD: Final = bytes_field(1, b"")


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one descriptor. None: there is no such thing."""

    is_over: bool
    limit_units: int | None = None
    remaining_units: int | None = None
    reset_ms: int | None = None
    name: str = ""


NOT_COUNTED: Final = Counted(is_over=False)
"""What is none of ours is not limited."""


def passed(
    upstream: Headers, client: Headers, *, removed: Iterable[str] = (), metadata: Iterable[tuple[str, str]] = ()
) -> bytes:
    """A CheckResponse that lets through, with headers for the upstream and for the client; some are taken away."""
    added = b"".join(bytes_field(2, _option(name, value)) for name, value in upstream)
    added += b"".join(text_field(5, name) for name in removed)
    added += b"".join(bytes_field(6, _option(name, value)) for name, value in client)
    told = b"".join(bytes_field(1, _entry(name, value)) for name, value in metadata)
    return _GOOD + bytes_field(3, added) + (bytes_field(4, told) if told else b"")


def denied(http_status: int, headers: Headers, *, body: bytes, status: Status) -> bytes:
    """A CheckResponse that does not."""
    said = bytes_field(1, number_field(1, http_status))
    said += b"".join(bytes_field(2, _option(name, value)) for name, value in headers)
    said += bytes_field(3, body) if body else b""
    return bytes_field(1, number_field(1, int(status))) + bytes_field(2, said)


def limited(counted: Sequence[Counted], headers: Headers) -> bytes:
    """A RateLimitResponse: an answer for each descriptor, in their order."""
    pieces = [_CODE_OK]
    for one in counted:
        if one.is_over:
            pieces[0] = _CODE_OVER
        pieces.append(bytes_field(2, _status(one)))
    for name, value in headers:
        pieces.append(bytes_field(3, header(name, value)))
    return b"".join(pieces)


def health(*, is_serving: bool) -> bytes:
    """A HealthCheckResponse."""
    return number_field(1, SERVING if is_serving else NOT_SERVING)


def _option(name: str, value: str) -> bytes:
    return bytes_field(1, header(name, value)) + _OVERWRITE


def _entry(name: str, value: str) -> bytes:
    """A field of a Struct whose value is text."""
    return text_field(1, name) + bytes_field(2, bytes_field(3, value.encode()))


def _status(one: Counted) -> bytes:
    told = _CODE_OVER if one.is_over else _CODE_OK
    if one.limit_units is not None:
        told += _limit(one.limit_units, one.name)
    told += number_field(3, min(max(0, one.remaining_units or 0), MOST))
    if one.reset_ms is not None:
        seconds, ms = divmod(max(0, one.reset_ms), 1_000)
        told += bytes_field(4, number_field(1, seconds) + number_field(2, ms * 1_000_000))
    return told


@lru_cache(maxsize=1_024)
def _limit(units: int, name: str) -> bytes:
    """The limit of a feature, which is told again and again."""
    return bytes_field(2, number_field(1, min(units, MOST)) + text_field(3, name))
