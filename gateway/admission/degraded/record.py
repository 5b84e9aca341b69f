"""What a journal keeps, and how it lies on the disk.

A file is one line that says what it is, then records one behind the other: length, CRC-32 of the payload (both four
bytes, big end first), payload in msgpack. A process that dies in the middle of a write leaves a torn record at the
end; whoever reads stops there, for nothing that stood behind a torn record was ever answered for.

    Entry    an order that was allowed on a lease
    Done     so many entries from the beginning of the file have been charged
    Leased   a hold that this process keeps as a lease
    Ended    a lease that was given back

Worked example: Leased h1, Entry a, Entry b, Done 1, and three bytes of a torn record: b is still to be charged on
its hold, and h1 is to be released after that.
"""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

MAGIC: Final = b"tallygate journal 1\n"
_HEAD_BYTES: Final = 8
_LONGEST_BYTES: Final = 65_536


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag="entry"):
    """An order that was allowed without Redis. `answer_key` and `digest` are those of the attempt that failed."""

    decision_id: str
    hold_id: str
    answer_key: str
    digest: str
    body: bytes
    at_ms: int
    tenant_id: str
    customer_id: str
    path: str
    features: tuple[str, ...]
    quantities: tuple[int, ...]


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """How many entries from the beginning of the file have been charged."""

    count: int


class Leased(msgspec.Struct, frozen=True, kw_only=True, tag="leased"):
    """A hold that is kept as a lease."""

    hold_id: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """A lease that was given back."""

    hold_id: str


Record = Entry | Done | Leased | Ended

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Record)


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What a journal leaves to be done: entries in their order, and the holds to give back after them."""

    entries: tuple[Entry, ...]
    done_count: int
    hold_ids: tuple[str, ...]
    good_bytes: int


def packed(record: Record) -> bytes:
    """A record as it lies on the disk."""
    payload = _ENCODER.encode(record)
    return len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big") + payload


def left_of(content: bytes) -> Left:
    """What the content of a journal leaves to be done; what is torn at its end is not there."""
    entries: list[Entry] = []
    holds: dict[str, None] = {}
    done_count, at = 0, len(MAGIC) if content.startswith(MAGIC) else 0
    while at:
        payload = _payload_at(content, at)
        if payload is None:
            break
        at += _HEAD_BYTES + len(payload)
        record = _DECODER.decode(payload)
        if isinstance(record, Entry):
            entries.append(record)
        elif isinstance(record, Done):
            done_count = max(done_count, record.count)
        elif isinstance(record, Leased):
            holds[record.hold_id] = None
        else:
            holds.pop(record.hold_id, None)
    return Left(entries=tuple(entries[done_count:]), done_count=done_count, hold_ids=tuple(holds), good_bytes=at)


def _payload_at(content: bytes, at: int) -> bytes | None:
    """The payload of the record there; None where it is not whole."""
    length = int.from_bytes(content[at : at + 4], "big")
    check = int.from_bytes(content[at + 4 : at + _HEAD_BYTES], "big")
    payload = content[at + _HEAD_BYTES : at + _HEAD_BYTES + length]
    whole = 0 < length <= _LONGEST_BYTES and len(payload) == length and zlib.crc32(payload) == check
    return payload if whole else None
