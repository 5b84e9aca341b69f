"""The snapshot: what the gateway knows of a customer, as the scripts read it.

In Redis a snapshot is a hash: `v` version, `st` status, `off` the tenant's clock offset in milliseconds, and one
field `f:<feature>` per feature, each a msgpack array read by position in Lua. All numbers in it are integers below
2^53. A snapshot is replaced whole by one script that refuses an older version, so a plan change is seen never or
entirely.

A tariff is the cumulative price A(u) of u units in a billing period. Units are first rounded up to packages:
n = ceil(u / package_units). Tiers are `(lo, hi]` on n; the units of a tier cost nanos / batch each, and a tier's
flat fee is due once it is entered. All rates share the one denominator `batch`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec


class FeatureKind(IntEnum):
    """How a feature is entitled."""

    SWITCH = 0
    STATIC = 1
    METERED = 2


class LimitMode(IntEnum):
    """What happens above a limit: refuse, or record as overage."""

    HARD = 0
    SOFT = 1


class WindowKind(IntEnum):
    """How window edges are found: one window for ever, equal steps, or listed edges."""

    LIFETIME = 0
    STEPS = 1
    EDGES = 2


class Status(StrEnum):
    """Whether a customer is served."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class Window(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Where counting starts anew. Units: milliseconds since the epoch on the tenant's clock.

    STEPS: edges at anchor_ms + k * every_ms. EDGES: `edges_ms` ascending; the window of an instant starts at the
    last edge that is not after it; before the first or after the last edge a decision is `unavailable`.
    """

    kind: WindowKind
    anchor_ms: int = 0
    every_ms: int = 0
    edges_ms: tuple[int, ...] = ()


class Tier(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One tier of a tariff: up to and including `upto` packages (0 = open)."""

    upto: int
    nanos_per_batch: int
    flat_nanos: int = 0


class Tariff(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A prepaid price as the scripts compute it."""

    price_id: str
    currency: str
    package_units: int
    batch: int
    tiers: tuple[Tier, ...]
    window: Window


class Entitlement(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a customer may do with one feature. `limit_units` -1 means no limit; no tariff means not prepaid."""

    kind: FeatureKind
    enabled: bool
    static_value: str = ""
    limit_units: int = -1
    limit_mode: LimitMode = LimitMode.HARD
    window: Window = Window(kind=WindowKind.LIFETIME)
    tariff: tuple[Tariff, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the gateway knows of one customer at one version."""

    version: int
    status: Status
    clock_offset_ms: int
    features: dict[str, Entitlement]


_ENCODER = msgspec.msgpack.Encoder()


def snapshot_fields(snapshot: Snapshot) -> list[str | bytes]:
    """The alternating field names and values behind the version, status and offset, features sorted by name."""
    fields: list[str | bytes] = []
    for code in sorted(snapshot.features):
        fields += [f"f:{code}", _ENCODER.encode(snapshot.features[code])]
    return fields
