"""An access log entry, as far as it settles something: read from Envoy's messages.

A message brings many entries. Those without a hold of ours are told apart by a look at their bytes, and nothing
else of them is read. Of those that have one only the last counts: Envoy also tells, where it is asked to, that a
request begins, goes on, or is over at an upstream.

What ended a response before its time stands in the response flags. A time-out is counted as the client's, because
who reads slowly enough can bring it about, and would else choose what he pays.

Source: envoy/service/accesslog/v3/als.proto; envoy/data/accesslog/v3/accesslog.proto;
envoy/config/core/v3/base.proto (Metadata); google/protobuf/struct.proto, duration.proto, wrappers.proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.edge.envoy.protobuf import BYTES, NUMBER, Field, fields_of, inner, pair_of, tag, text_of
from gateway.edge.proxy.settlement import Ending

METADATA: Final = "envoy.filters.http.ext_authz"
"""The name under which Envoy keeps what its filter was told."""

_MARK: Final = METADATA.encode()
_HOLD_MARK: Final = b"hold_"

_HTTP_LOGS: Final = tag(2, BYTES)
_LOG_ENTRY: Final = tag(1, BYTES)

_COMMON: Final = tag(1, BYTES)
_REQUEST: Final = tag(3, BYTES)
_RESPONSE: Final = tag(4, BYTES)

_FLAGS: Final = tag(16, BYTES)
_META: Final = tag(17, BYTES)
_DURATION: Final = tag(23, BYTES)
_IS_INTERMEDIATE: Final = tag(27, NUMBER)
_LOG_TYPE: Final = tag(33, NUMBER)
_NOT_SET, _DOWNSTREAM_END = 0, 6

_CLIENT_FLAGS: Final = frozenset({3, 15, 17, 19, 20, 23, 28})
"""The client closed, broke a rule, or reset its stream; or it took too long, with whom nobody knows."""
_UPSTREAM_FLAGS: Final = frozenset({2, 4, 5, 6, 7, 8, 24, 26})
"""Nobody well, reset, refused, closed, too many, a broken rule."""

_REQUEST_BYTES: Final = tag(12, NUMBER)
_CODE: Final = tag(1, BYTES)
_RESPONSE_BYTES: Final = tag(3, NUMBER)
_HEADER: Final = tag(4, BYTES)
_TRAILER: Final = tag(5, BYTES)
_WRAPPED: Final = tag(1, NUMBER)

_MAPPED: Final = tag(1, BYTES)
_KEY: Final = tag(1, BYTES)
_VALUE: Final = tag(2, BYTES)
_TEXT: Final = tag(3, BYTES)
_SECONDS: Final = tag(1, NUMBER)
_NANOS: Final = tag(2, NUMBER)


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of one response. `status` 0: there was none; `settle`: its terms, as they were told."""

    hold_id: str
    settle: str
    ending: Ending = Ending.WHOLE
    status: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    duration_ns: int = 0
    headers: dict[str, str] = {}
    trailers: dict[str, str] = {}


def entries_in(message: bytes) -> list[bytes]:
    """The entries of a StreamAccessLogsMessage, unread.

    Raises: InvalidInput.
    """
    logs = inner(fields_of(message), _HTTP_LOGS)
    return [entry for name, entry, _ in fields_of(logs) if name == _LOG_ENTRY]


def may_settle(entry: bytes) -> bool:
    """Whether it is worth reading."""
    return _HOLD_MARK in entry and _MARK in entry


def entry_of(data: bytes) -> LogEntry | None:
    """What an entry tells; None where it settles nothing.

    Raises: InvalidInput.
    """
    fields = fields_of(data)
    common = fields_of(inner(fields, _COMMON))
    if _number(common, _LOG_TYPE) not in (_NOT_SET, _DOWNSTREAM_END) or _number(common, _IS_INTERMEDIATE):
        return None
    told = _told(inner(common, _META))
    hold_id, settle = told.get("hold", ""), told.get("settle", "")
    if not (hold_id and settle):
        return None
    response = fields_of(inner(fields, _RESPONSE))
    duration = fields_of(inner(common, _DURATION))
    return LogEntry(
        hold_id=hold_id,
        settle=settle,
        ending=_ending(inner(common, _FLAGS)),
        status=_number(fields_of(inner(response, _CODE)), _WRAPPED),
        request_bytes=_number(fields_of(inner(fields, _REQUEST)), _REQUEST_BYTES),
        response_bytes=_number(response, _RESPONSE_BYTES),
        duration_ns=_number(duration, _SECONDS) * 1_000_000_000 + _number(duration, _NANOS),
        headers=dict(pair_of(value) for name, value, _ in response if name == _HEADER),
        trailers=dict(pair_of(value) for name, value, _ in response if name == _TRAILER),
    )


def _told(metadata: bytes) -> dict[str, str]:
    """The texts that the filter was told."""
    for name, entry, _ in fields_of(metadata):
        if name == _MAPPED and _MARK in entry:
            fields = fields_of(entry)
            if inner(fields, _KEY) == _MARK:
                return dict(_texts(fields_of(inner(fields, _VALUE))))
    return {}


def _texts(fields: Iterable[Field]) -> Iterable[tuple[str, str]]:
    for name, entry, _ in fields:
        if name == _MAPPED:
            pair = fields_of(entry)
            text = inner(fields_of(inner(pair, _VALUE)), _TEXT)
            if text:
                yield text_of(inner(pair, _KEY)), text_of(text)


def _ending(flags: bytes) -> Ending:
    raised = {name >> 3 for name, _, number in fields_of(flags) if number}
    if raised & _CLIENT_FLAGS:
        return Ending.CLIENT_LOST
    return Ending.UPSTREAM_LOST if raised & _UPSTREAM_FLAGS else Ending.WHOLE


def _number(fields: Iterable[Field], name: int) -> int:
    return next((number for found, _, number in fields if found == name), 0)
