"""Readings: what a meter said about a period, and by which events it said so.

A reading carries the number of its events and a digest of the set of them, so that a bill can be replayed: the same
events give the same digest in any order, and an event more, less or changed gives another. Events that the meter
could not read (a value that is no number, or has more digits than the meter's scale) are left out and counted.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Whose usage is asked for, in `[start_at, end_at)`."""

    customer_id: str
    start_at: datetime
    end_at: datetime


class MeterReading(msgspec.Struct, frozen=True, kw_only=True):
    """One group of one customer's period; without events there is no reading, which means zero.

    Units: `quantity` in the meter's units; nanos are what the gate charged and could not collect for these events.
    `start_at` is the asked span's. `wallet` is "" where events are not told apart by the wallet that they asked.
    """

    customer_id: str
    start_at: datetime
    group_key: dict[str, str]
    quantity: Decimal
    event_count: int
    unreadable_count: int
    event_digest: str
    charged_nanos: int
    uncollected_nanos: int
    wallet: str = ""


class WalletCharge(msgspec.Struct, frozen=True, kw_only=True):
    """What one wallet paid for the events of a group, and could not pay. Units: nanos of its currency or unit."""

    group_key: dict[str, str]
    currency: str
    charged_nanos: int
    uncollected_nanos: int


class MeteredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One raw event behind a reading, with its place for the next page."""

    event_id: str
    part: int
    name: str
    source: str
    event_at: datetime
    recorded_at: datetime
    quantity: Decimal
    properties: dict[str, str]
    charged_nanos: int
    uncollected_nanos: int
    shard: int
    stream_ms: int
    stream_seq: int
