"""Recount: what the counters in Redis must say, told from the rows of usage.

The scripts count as they decide and never look back. Here the same counters are made from what Postgres has, for a
rebuild and for the question whether the two agree. A limit counts the units of the features that name it, a price
the units that were priced by it (told by feature and currency), a spend cap the nanos that were rated in its
currency, a gauge keeps the last level; each for the customer, and for every node below it by the path's prefix.

What is exact, and what is not:

    windows        exact; before `since_ms` nothing counts
    rolling        exact, bucket by bucket
    carried units  the windows are folded from the first in which something counted, or from `since_ms`, with the
                   units of the limit as it is now. A list of edges is folded from its first edge on
    gauges         exact: an entry tells the customer's new level, so its change belongs to the nodes of its path
    limits that were added in the middle of a window count what was used before them, which the scripts had not
    held units, rates and open holds begin empty: holds end with the shard, and a rate forgets within seconds

Worked example: `requests@month` of `team:ml` for 100 units. Two rows since the first of the month, 7 units on
`team:ml/user:bob` and 3 on `team:ops`: the node `team:ml` has used 7, the customer 10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from billing_core.adapters.shard_image import FOR_EVER_MS, LIFE_FIELD
from billing_core.contract.snapshot import Budget, Entitlement, FeatureKind, Limit, Snapshot, Window, WindowKind
from billing_core.contract.usage_event import StreamPosition
from billing_core.store import usage
from billing_core.store.database import Transaction
from billing_core.store.projection import Owner
from billing_core.store.usage import EVERYTHING, LATEST_MS, Asked, GaugeName, LevelChange, UnitsRow

CUSTOMER = ""
"""The node of the customer itself."""

Fields: TypeAlias = dict[str, bytes | int]
"""The hash of a node's counters."""

_BUCKETS = 60
_HOUR_MS = 3_600_000
_MOST_WINDOWS = 1_000
_ENCODER = msgspec.msgpack.Encoder()
_FLAT = msgspec.msgpack.Decoder(list[int])


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One counter of a budget: its name in Redis, and what it counts.

    `features` none: all of them, in nanos rated in `currency`. Else units; with a currency those priced in it.
    """

    budget: str
    name: str
    window: Window
    features: tuple[str, ...] = ()
    currency: str = ""
    since_ms: int = 0
    units: int = 0
    carry_units: int = 0

    @property
    def is_price(self) -> bool:
        """Whether it counts what was priced by one tariff."""
        return bool(self.features and self.currency)


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Whose counters, as of which instant of the tenant's clock. The subscription started at `started_ms`: prices
    count what was used from then on, and nothing is carried from before."""

    owner: Owner
    snapshot: Snapshot
    instant_ms: int
    started_ms: int = 0


class Recount:
    """The counters of one customer: what to ask, and what the answers come to."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.slots = list(_slots(subject.snapshot))
        self.gauges = [name for name, one in subject.snapshot.features.items() if one.kind is FeatureKind.GAUGE]
        self._asked = [(slot, list(self._questions(slot))) for slot in self.slots]

    def asked(self) -> Iterator[Asked]:
        """The questions to the rows of usage."""
        for _, questions in self._asked:
            yield from (asked for _, asked in questions)

    def nodes(
        self, rows: Mapping[Asked, Sequence[UnitsRow]], levels: Sequence[LevelChange] = ()
    ) -> dict[str, Fields]:
        """The hash of each node that has counted something."""
        nodes: dict[str, Fields] = {}
        for slot, questions in self._asked:
            found = [(start_ms, rows.get(asked, ())) for start_ms, asked in questions]
            paths = {row.path for _, listed in found for row in listed}
            for node in self._nodes_of(slot.budget, paths):
                fields = self._fields(slot, [(start_ms, _under(node, listed)) for start_ms, listed in found])
                if fields:
                    nodes.setdefault(node, {}).update(fields)
        for change in levels:
            for node in (CUSTOMER, *_prefixes(change.path)):
                fields = nodes.setdefault(node, {})
                fields[f"{change.name}:g"] = int(fields.get(f"{change.name}:g", 0)) + change.units
        for node, fields in nodes.items():
            if node != CUSTOMER:
                fields[LIFE_FIELD] = self._life_ms(node, fields)
        return nodes

    def amounts(self, node: str, fields: Mapping[str, bytes | int]) -> dict[str, int]:
        """What a node's hash says of each counter at the instant; nothing of windows that are over."""
        found = {name: int(value) for name, value in fields.items() if name.endswith(":g")}
        for slot in self.slots:
            if f"{slot.name}:w" in fields and node in self._nodes_of(slot.budget, {node}):
                found[slot.name] = self._amount_in(slot, fields)
        return {name: amount for name, amount in found.items() if amount}

    def _amount_in(self, slot: Slot, fields: Mapping[str, bytes | int]) -> int:
        at_ms, stored_ms = self._subject.instant_ms, int(fields[f"{slot.name}:w"])
        if slot.window.kind is WindowKind.ROLLING:
            size_ms, flat = (
                slot.window.every_ms // _BUCKETS,
                _FLAT.decode(bytes(fields.get(f"{slot.name}:b", b"\x90"))),
            )
            pairs = zip(flat[::2], flat[1::2], strict=True)
            live = [units for bucket, units in pairs if (bucket + 1) * size_ms > at_ms - slot.window.every_ms]
            return sum(live) if stored_ms == slot.since_ms else 0
        start_ms = window_start_ms(slot.window, at_ms)
        is_now = start_ms is not None and stored_ms == max(start_ms, slot.since_ms)
        return int(fields.get(f"{slot.name}:u", 0)) if is_now else 0

    def _questions(self, slot: Slot) -> Iterator[tuple[int, Asked]]:
        """What must be known, each with the start of its window."""
        at_ms, window = self._subject.instant_ms, slot.window
        if window.kind is WindowKind.ROLLING:
            size_ms = window.every_ms // _BUCKETS
            first_ms = max((at_ms - window.every_ms) // size_ms * size_ms, slot.since_ms)
            yield from (
                (slot.since_ms, asked) for asked in self._ask(slot, (first_ms, LATEST_MS), bucket_ms=size_ms)
            )
            return
        for start_ms, end_ms in self._spans(slot):
            first_ms = max(start_ms, self._subject.started_ms) if slot.is_price else start_ms
            yield from ((start_ms, asked) for asked in self._ask(slot, (first_ms, end_ms), bucket_ms=0))

    def _ask(self, slot: Slot, span: tuple[int, int], *, bucket_ms: int) -> Iterator[Asked]:
        for name in slot.features or ("",):
            yield Asked(
                tenant_id=self._subject.owner.tenant_id,
                customer_id=self._subject.owner.customer_id,
                name=name,
                since_ms=span[0],
                until_ms=span[1],
                bucket_ms=bucket_ms,
            )

    def _spans(self, slot: Slot) -> Iterator[tuple[int, int]]:
        """The windows that must be known, oldest first; the last is that of the instant."""
        at_ms = self._subject.instant_ms
        start_ms = window_start_ms(slot.window, at_ms)
        if start_ms is None:
            return
        if not slot.carry_units or slot.window.kind is WindowKind.LIFETIME:
            yield max(start_ms, slot.since_ms), LATEST_MS
            return
        edges = [at for at in self._edges(slot, start_ms) if at > slot.since_ms]
        starts = [slot.since_ms, *edges] if slot.since_ms > 0 else edges
        ends = [*starts[1:], LATEST_MS]
        yield from zip(starts, ends, strict=True)

    def _edges(self, slot: Slot, start_ms: int) -> list[int]:
        """Starts of windows up to this one that may have carried something."""
        window, first_ms = slot.window, max(slot.since_ms, self._subject.started_ms)
        if window.kind is WindowKind.EDGES:
            return [at for at in window.edges_ms if at <= start_ms]
        count = min((start_ms - first_ms) // window.every_ms + 1, _MOST_WINDOWS)
        return [start_ms - n * window.every_ms for n in range(max(count, 0), -1, -1)]

    def _nodes_of(self, budget: str, paths: set[str]) -> list[str]:
        """The nodes that a budget counts for: itself, or all of its kind that were used and have no own one."""
        if not budget.endswith(":*"):
            return [budget]
        nodes = {node for path in paths for node in _prefixes(path)} - self._subject.snapshot.budgets.keys()
        return sorted(node for node in nodes if node.rpartition("/")[2].startswith(budget[:-1]))

    def _fields(self, slot: Slot, found: Sequence[tuple[int, list[UnitsRow]]]) -> Fields:
        if slot.window.kind is WindowKind.ROLLING:
            return self._rolling_fields(slot, [row for _, rows in found for row in rows])
        used: dict[int, int] = {}
        for start_ms, rows in found:
            used[start_ms] = used.get(start_ms, 0) + sum(_amount(slot, row) for row in rows)
        if not used:
            return {}
        start_ms = max(used)
        if not slot.carry_units:
            return {f"{slot.name}:w": start_ms, f"{slot.name}:u": used[start_ms]} if used[start_ms] else {}
        carried, has_counted = 0, slot.since_ms > 0
        for at_ms in sorted(used)[:-1]:
            has_counted = has_counted or used[at_ms] > 0
            if has_counted:
                carried = min(slot.carry_units, max(0, slot.units + carried - used[at_ms]))
        if not has_counted and not used[start_ms]:
            return {}
        return {f"{slot.name}:w": start_ms, f"{slot.name}:u": used[start_ms], f"{slot.name}:k": carried}

    def _rolling_fields(self, slot: Slot, rows: Sequence[UnitsRow]) -> Fields:
        size_ms = slot.window.every_ms // _BUCKETS
        buckets: dict[int, int] = {}
        for row in rows:
            amount = _amount(slot, row)
            if amount and (row.bucket + 1) * size_ms > self._subject.instant_ms - slot.window.every_ms:
                buckets[row.bucket] = buckets.get(row.bucket, 0) + amount
        if not buckets:
            return {}
        flat = [number for pair in sorted(buckets.items()) for number in pair]
        return {f"{slot.name}:w": slot.since_ms, f"{slot.name}:b": _ENCODER.encode(flat)}

    def _life_ms(self, node: str, fields: Fields) -> int:
        """Until when something in the node's hash counts, to the full hour; on the tenant's clock."""
        if any(name.endswith(":g") for name in fields):
            return FOR_EVER_MS
        ends = [
            self._end_ms(slot)
            for slot in self.slots
            if f"{slot.name}:w" in fields and node in self._nodes_of(slot.budget, {node})
        ]
        latest_ms = max(ends, default=0)
        return latest_ms if latest_ms == FOR_EVER_MS else -(-latest_ms // _HOUR_MS) * _HOUR_MS

    def _end_ms(self, slot: Slot) -> int:
        window, at_ms = slot.window, self._subject.instant_ms
        if window.kind is WindowKind.ROLLING:
            return at_ms + window.every_ms + window.every_ms // _BUCKETS
        if slot.carry_units or window.kind is WindowKind.LIFETIME:
            return FOR_EVER_MS
        if window.kind is WindowKind.STEPS:
            return at_ms - (at_ms - window.anchor_ms) % window.every_ms + window.every_ms
        return next((at for at in window.edges_ms if at > at_ms), at_ms)


async def recounted(
    tx: Transaction, subjects: Sequence[Subject], *, upto: StreamPosition = EVERYTHING
) -> dict[Owner, dict[str, Fields]]:
    """The counters of many customers, node by node, from the rows up to that place in their stream."""
    counts: dict[Owner, Recount] = {}
    for subject in subjects:
        counts[subject.owner] = Recount(subject)
        await asyncio.sleep(0)  # a lane of strangers takes seconds; others serve meanwhile
    asked = list({one for count in counts.values() for one in count.asked()})
    rows = await usage.units_used(tx, asked, upto=upto) if asked else {}
    gauges = [
        GaugeName(tenant_id=owner.tenant_id, customer_id=owner.customer_id, name=name)
        for owner, count in counts.items()
        for name in count.gauges
    ]
    changes: dict[Owner, list[LevelChange]] = {}
    for change in await usage.gauge_changes(tx, gauges, upto=upto) if gauges else []:
        owner = Owner(tenant_id=change.tenant_id, customer_id=change.customer_id)
        changes.setdefault(owner, []).append(change)
    nodes: dict[Owner, dict[str, Fields]] = {}
    for owner, count in counts.items():
        nodes[owner] = count.nodes(rows, changes.get(owner, ()))
        await asyncio.sleep(0)
    return nodes


def _slots(snapshot: Snapshot) -> Iterator[Slot]:
    """The counters that decisions of this customer ask for. One name at one node is one counter."""
    for budget in sorted({CUSTOMER, *snapshot.budgets}):
        told = snapshot.budgets.get(budget, Budget())
        named: dict[str, tuple[Limit, list[str]]] = {}
        for feature, limit in _limits(snapshot.features, told, is_customer=budget == CUSTOMER):
            named.setdefault(limit.counter, (limit, []))[1].append(feature)
        for name, (limit, features) in named.items():
            yield Slot(
                budget=budget,
                name=name,
                window=limit.window,
                features=tuple(features),
                since_ms=limit.since_ms,
                units=limit.units,
                carry_units=limit.carry_units,
            )
        for cap in {cap.counter: cap for cap in told.caps}.values():
            yield Slot(
                budget=budget, name=cap.counter, window=cap.window, currency=cap.currency, since_ms=cap.since_ms
            )
    for feature, entitlement in snapshot.features.items():
        for tariff in entitlement.tariffs:
            yield Slot(
                budget=CUSTOMER,
                name=f"${tariff.price_id}",
                window=tariff.window,
                features=(feature,),
                currency=tariff.currency,
            )


def _limits(features: Mapping[str, Entitlement], told: Budget, *, is_customer: bool) -> Iterator[tuple[str, Limit]]:
    for feature, entitlement in features.items():
        if entitlement.kind in {FeatureKind.STATIC, FeatureKind.GAUGE}:
            continue
        guard = entitlement.guard if is_customer else told.guards.get(feature)
        for limit in guard.limits if guard else ():
            yield feature, limit


def _amount(slot: Slot, row: UnitsRow) -> int:
    if slot.currency and row.currency != slot.currency:
        return 0
    return row.units if slot.features else row.rated_nanos


def _under(node: str, rows: Sequence[UnitsRow]) -> list[UnitsRow]:
    """The rows of paths that lead through the node."""
    if node == CUSTOMER:
        return list(rows)
    return [row for row in rows if row.path == node or row.path.startswith(f"{node}/")]


def _prefixes(path: str) -> list[str]:
    segments = path.split("/") if path else []
    return ["/".join(segments[: n + 1]) for n in range(len(segments))]


def window_start_ms(window: Window, instant_ms: int) -> int | None:
    """Where the window that holds the instant started; None outside the listed edges."""
    if window.kind is WindowKind.LIFETIME:
        return 0
    if window.kind is WindowKind.STEPS:
        return instant_ms - (instant_ms - window.anchor_ms) % window.every_ms
    started = [at for at in window.edges_ms if at <= instant_ms]
    return started[-1] if started else None
