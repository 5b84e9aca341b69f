"""Header blocks: what a call's block says, and the three blocks that an answer is made of.

HPACK is read by the library `hpack`. A proxy's calls look all alike: once its encoder has put their fields into the
dynamic table, each block is the same handful of indexes. So what a block says is remembered until the table
changes, and only a block that is new, or that changes the table, is decoded.

What we send names every field in full and keeps the table empty (its size is set to 0 in the first block), so any
table that the peer allows is enough.

Worked example: the first block of a connection, 120 bytes, is decoded and fills the table; the second, eight
indexes, is decoded and remembered; from the third on it is found.

Source: RFC 7541; RFC 9113, section 8; the gRPC protocol over HTTP/2.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import hpack
import msgspec
from hpack.table import HeaderTable

from gateway.edge.grpc.frame import Breach, Code
from gateway.edge.grpc.status import Status

MAX_LIST_BYTES: Final = 16_384
_REMEMBERED: Final = 256
_OWN_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_KEPT: Final = frozenset({b"authorization", b"traceparent"})
_UNIT_MS: Final = {b"H": 3_600_000.0, b"M": 60_000.0, b"S": 1_000.0, b"m": 1.0, b"u": 1e-3, b"n": 1e-6}
_TIMEOUT_DIGITS: Final = 8


class CallHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a call's header block says.

    `malformed`: which rule of HTTP/2 it breaks; `http_status`: it is no gRPC call, and is told so in HTTP.
    `timeout_ms`: None without one, negative where it cannot be read. `length`: what content-length declares.
    """

    path: str = ""
    timeout_ms: float | None = None
    encoding: str = ""
    length: int | None = None
    metadata: dict[str, str] = {}
    malformed: str = ""
    http_status: int = 0


class _Table(HeaderTable):
    """A dynamic table that says when it changed."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)


class HeadReader:
    """The inbound side of one connection's header compression."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=MAX_LIST_BYTES)
        self._table = _Table()
        self._decoder.header_table = self._table
        self._known: dict[bytes, CallHead] = {}

    def read(self, block: bytes) -> CallHead:
        """What the block says.

        Raises: Breach where it cannot be decoded, after which no later block can be either.
        """
        head = self._known.get(block)
        if head is not None:
            return head
        before = self._table.changes, self._table.maxsize
        try:
            fields = self._decoder.decode(block, raw=True)
        except hpack.OversizedHeaderListError:
            raise Breach(Code.ENHANCE_YOUR_CALM, f"header list above {MAX_LIST_BYTES} bytes") from None
        except (hpack.HPACKError, IndexError, ValueError) as error:
            raise Breach(Code.COMPRESSION_ERROR, f"header block: {error}") from None
        head = _head_of([(bytes(name), bytes(value)) for name, value in fields])
        if before != (self._table.changes, self._table.maxsize) or len(self._known) >= _REMEMBERED:
            self._known.clear()
        if before == (self._table.changes, self._table.maxsize):
            self._known[block] = head
        return head


def _head_of(fields: list[tuple[bytes, bytes]]) -> CallHead:
    """The rules of RFC 9113, section 8, then those of gRPC."""
    found: dict[bytes, bytes] = {}
    is_regular = False
    for name, value in fields:
        if name.startswith(b":"):
            if is_regular or name not in _PSEUDO or name in found:
                return CallHead(malformed="pseudo-header fields stand first, once each")
        else:
            is_regular = True
            if name != name.lower() or name in _OWN_CONNECTION or (name == b"te" and value != b"trailers"):
                return CallHead(malformed="a field that HTTP/2 forbids")
            if name == b"content-length" and found.get(name, value) != value:
                return CallHead(malformed="two content-lengths")
        if any(byte in value for byte in b"\r\n\0"):
            return CallHead(malformed="a field value with a line break")
        found.setdefault(name, value)
    if not found.get(b":path") or b":method" not in found or b":scheme" not in found:
        return CallHead(malformed="a request names method, scheme and path")
    return _call_of(found)


def _call_of(found: dict[bytes, bytes]) -> CallHead:
    length = found.get(b"content-length")
    if length is not None and not (length.isdigit() and len(length) <= 16):
        return CallHead(malformed="a content-length that is no number")
    http_status = 0
    if found[b":method"] != b"POST":
        http_status = 405
    elif not _is_grpc(found.get(b"content-type", b"")):
        http_status = 415
    return CallHead(
        path=found[b":path"].decode("latin-1"),
        timeout_ms=_timeout_ms(found[b"grpc-timeout"]) if b"grpc-timeout" in found else None,
        encoding=found.get(b"grpc-encoding", b"").decode("latin-1"),
        length=None if length is None else int(length),
        metadata={name.decode(): found[name].decode("latin-1") for name in _KEPT if name in found},
        http_status=http_status,
    )


def _is_grpc(content_type: bytes) -> bool:
    """`application/grpc`, alone or with `+proto`, or with parameters; no other coding of messages is spoken."""
    name = content_type.partition(b";")[0].strip().lower()
    return name in (b"application/grpc", b"application/grpc+proto")


def _timeout_ms(text: bytes) -> float:
    digits, unit = text[:-1], _UNIT_MS.get(text[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _TIMEOUT_DIGITS:
        return -1.0
    return int(digits) * unit


def _literal(name: bytes, value: bytes) -> bytes:
    """A field that leaves the table alone; names and values below 127 bytes, or in more steps above."""
    return b"\x00" + _sized(name) + _sized(value)


def _sized(text: bytes) -> bytes:
    size = len(text)
    if size < 127:  # fits into a prefix of seven bits: RFC 7541, section 5.1
        return bytes((size,)) + text
    rest, out = size - 127, bytearray((127,))
    while rest >= 128:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out) + text


EMPTY_TABLE: Final = b"\x20"
_OK: Final = b"\x88"
_TYPE: Final = _literal(b"content-type", b"application/grpc")
_STATUS: Final = b"grpc-status"

ANSWER: Final = _OK + _TYPE
"""Before the message."""
TRAILERS: Final = _literal(_STATUS, b"0")
"""After the message of a call that went well."""


def failed_block(status: Status, text: str) -> bytes:
    """The only block of a call that failed. A method or a message that nobody knows says what is spoken here."""
    told = quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()
    block = ANSWER + _literal(_STATUS, str(int(status)).encode()) + _literal(b"grpc-message", told)
    if status is Status.UNIMPLEMENTED:
        block += _literal(b"grpc-accept-encoding", b"identity")
    return block


def http_block(http_status: int) -> bytes:
    """The only block of an answer to what is no gRPC call."""
    return _literal(b":status", str(http_status).encode()) + _literal(b"content-length", b"0")
