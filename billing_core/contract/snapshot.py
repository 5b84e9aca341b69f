"""The snapshot: what the gateway knows of a customer, as the scripts read it.

In Redis a snapshot is a hash: `v` version, `st` status, `off` the tenant's clock offset in milliseconds, one field
`f:<feature>` per feature and one field `b:<node>` per budget node, each a msgpack array read by position in Lua.
All numbers in it are integers below 2^53. A snapshot is replaced whole by one script that refuses an older version,
so a plan change is seen never or entirely.

A node is a prefix of a budget path such as `team:ml/project:chat/user:bob/key:k1`. The customer itself is node "":
its limits stand in the entitlement of each feature, its spend caps in the budget "". The budget `team:*` counts
for every node whose last segment is a team and that has no budget of its own.

A tariff is the cumulative price A(u) of u units in a billing period. Units are first rounded up to packages:
n = ceil(u / package_units). Tiers are `(lo, hi]` on n; the units of a tier cost nanos / batch each, and a tier's
flat fee is due once it is entered. All rates share the one denominator `batch`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec


class FeatureKind(IntEnum):
    """How a feature is entitled. A gauge goes up and down (seats, storage) and has no price and no hold."""

    SWITCH = 0
    STATIC = 1
    METERED = 2
    GAUGE = 3


class WindowKind(IntEnum):
    """How window edges are found: one window for ever, equal steps, listed edges, or the time just gone by."""

    LIFETIME = 0
    STEPS = 1
    EDGES = 2
    ROLLING = 3


class RateCount(IntEnum):
    """What a rate counts: each act as one, or the units of each charge."""

    REQUESTS = 0
    UNITS = 1


class Status(StrEnum):
    """Whether a customer is served."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class Window(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Where counting starts anew. Units: milliseconds since the epoch on the tenant's clock.

    STEPS: edges at anchor_ms + k * every_ms. EDGES: `edges_ms` ascending; the window of an instant starts at the
    last edge that is not after it; before the first or after the last edge a decision is `unavailable`. ROLLING:
    the last every_ms (a multiple of 60), counted in 60 equal buckets; a bucket counts until it is wholly older.
    """

    kind: WindowKind
    anchor_ms: int = 0
    every_ms: int = 0
    edges_ms: tuple[int, ...] = ()


class Limit(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Units of a feature for each window.

    `counter` names the counter within its node; whatever names it shares it. Above `ceiling` a request is refused:
    equal to `units` for a hard limit, above it with a grace, -1 never (overage is recorded). Counting starts no
    earlier than `since_ms`. At most `carry_units` that a window did not use are carried into the next:
    carried_n = min(carry_units, max(0, units + carried_(n-1) - used_(n-1))); units and ceiling rise by it. A list
    of edges that carries should begin ceil(carry_units / units) windows before now.
    """

    counter: str
    units: int
    ceiling: int
    window: Window
    since_ms: int = 0
    carry_units: int = 0


class Rate(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`units` each `per_ms`, at most `burst_units` at once (GCRA); burst_units * per_ms stays below 2^53."""

    counter: str
    units: int
    per_ms: int
    burst_units: int
    counts: RateCount = RateCount.REQUESTS


class Guard(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What holds one feature back at one node. `concurrent` is the most open holds that name it; -1 none."""

    limits: tuple[Limit, ...] = ()
    rates: tuple[Rate, ...] = ()
    concurrent: int = -1


class SpendCap(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Money for each window at one node, over all priced features; its counter begins with $."""

    counter: str
    currency: str
    nanos: int
    ceiling: int
    window: Window
    since_ms: int = 0


class Budget(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What holds a node back: a guard for each feature, and spend caps."""

    guards: dict[str, Guard] = {}
    caps: tuple[SpendCap, ...] = ()


class Tier(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One tier of a tariff: up to and including `upto` packages (0 = open)."""

    upto: int
    nanos_per_batch: int
    flat_nanos: int = 0


class Tariff(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A price as the scripts compute it. One that is not prepaid is rated for spend caps and answers only."""

    price_id: str
    currency: str
    package_units: int
    batch: int
    tiers: tuple[Tier, ...]
    window: Window
    prepaid: bool = True


class Entitlement(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a customer may do with one feature.

    `guard` holds the customer itself back. `tariffs` are tried in order: the first whose wallet can pay the whole
    charge pays it. `outage_units` 0 refuses while Redis is away, n allows by leases of n units. `shadow`: refusals
    are recorded and not made, for a request all of whose charges are so. `slice_units` 0: each request is decided
    by a script; n: a gateway may set n units aside and decide on them by itself. The scripts do not read it.
    `plan`: that the customer is on, for whoever is told of the decision.
    """

    kind: FeatureKind
    enabled: bool
    static_value: str = ""
    guard: Guard = Guard()
    tariffs: tuple[Tariff, ...] = ()
    outage_units: int = 0
    shadow: bool = False
    slice_units: int = 0
    plan: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the gateway knows of one customer at one version."""

    version: int
    status: Status
    clock_offset_ms: int
    features: dict[str, Entitlement]
    budgets: dict[str, Budget] = {}


_ENCODER = msgspec.msgpack.Encoder()


def snapshot_fields(snapshot: Snapshot) -> list[str | bytes]:
    """The alternating field names and values behind the version, status and offset: features, budgets, by name."""
    fields: list[str | bytes] = []
    for code in sorted(snapshot.features):
        fields += [f"f:{code}", _ENCODER.encode(snapshot.features[code])]
    for node in sorted(snapshot.budgets):
        fields += [f"b:{node}", _ENCODER.encode(snapshot.budgets[node])]
    return fields
