"""One customer at the desk: rights, grants, and every act in one line."""

from __future__ import annotations

from typing import Any

from desk import Desk, Reply, decision_keys, grant_keys, hold_keys, part_keys

from billing_core.contract.keys import customer_keys, hold_key, new_hold_id
from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Snapshot,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.contract.usage_event import EventBody, UsageEntry, decode_entry, encode_body

KEYS = customer_keys("acme", "c0")
FOREVER = Window(kind=WindowKind.LIFETIME)
OVER = Window(kind=WindowKind.EDGES, edges_ms=(1, 2))
DAY_MS = 86_400_000
LARGEST = 2**53 - 1


def tariff(
    nanos: int, *, currency: str = "USD", price_id: str = "p", window: Window = FOREVER, **more: Any
) -> Tariff:
    tiers = more.pop("tiers", (Tier(upto=0, nanos_per_batch=nanos),))
    terms = {"package_units": 1, "batch": 1, "tiers": tiers, "window": window} | more
    return Tariff(price_id=price_id, currency=currency, **terms)


def limit(units: int, *, ceiling: int | None = None, window: Window = FOREVER, **more: Any) -> Limit:
    """A hard limit, unless its ceiling is another."""
    counter = more.pop("counter", "c@ever")
    return Limit(counter=counter, units=units, ceiling=units if ceiling is None else ceiling, window=window, **more)


def metered(*prices: Tariff, limit_units: int = -1, **more: Any) -> Entitlement:
    """A metered feature with these prices and perhaps one hard limit for ever."""
    limits = (limit(limit_units),) if limit_units >= 0 else ()
    guard = more.pop("guard", Guard(limits=limits))
    kind = more.pop("kind", FeatureKind.METERED)
    return Entitlement(kind=kind, enabled=True, tariffs=prices, guard=guard, **more)


class Shop:
    """One customer of one tenant, and everything that can be done for them."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.version = desk, 0
        desk.clear()
        desk.client.set(KEYS.epoch, 1)

    def project(
        self,
        *,
        status: Status = Status.ACTIVE,
        offset_ms: int = 0,
        budgets: dict[str, Budget] | None = None,
        **features: Entitlement,
    ) -> None:
        self.version += 1
        snapshot = Snapshot(
            version=self.version,
            status=status,
            clock_offset_ms=offset_ms,
            features=features,
            budgets=budgets or {},
        )
        head = self.version, status.value, offset_ms
        assert self.desk.run("project", [KEYS.epoch, KEYS.snapshot], *head, *snapshot_fields(snapshot)) == 1

    def grant(
        self, grant_id: str, amount: int, *, effective_ms: int = 0, expires_ms: int = 0, **more: Any
    ) -> Reply:
        paid, priority, created_ms = more.get("paid", 1), more.get("priority", 0), more.get("created_ms", 0)
        terms = amount, priority, effective_ms, expires_ms, paid, created_ms, more.get("features", "")
        currency = more.get("currency", "USD")
        return self.desk.run("grant", grant_keys(KEYS), currency, grant_id, *terms, body(()))

    def consume(self, *charges: tuple[str, int | str], key: str = "", digest: str = "d", **more: Any) -> Any:
        window_ms = more.get("window_ms", 60_000) if key else 0
        asked = more.get("path", ""), more.get("not_after_ms", 0), int(more.get("shadow", False))
        refusal_ms = more.get("refusal_ms", 60_000)
        args = digest, window_ms, refusal_ms, body(charges), *asked, len(charges), *flat(charges)
        return self.desk.run("consume", decision_keys(KEYS, key), *args)

    def record(self, *charges: tuple[str, int | str], path: str = "", key: str = "", digest: str = "d") -> Any:
        args = digest, 60_000 if key else 0, body(charges), path, len(charges), *flat(charges)
        return self.desk.run("record", decision_keys(KEYS, key), *args)

    def peek(self, *charges: tuple[str, int | str], path: str = "") -> Any:
        return self.desk.run("peek", decision_keys(KEYS), path, len(charges), *flat(charges))

    def hold(self, *charges: tuple[str, int], ttl_ms: int = 60_000, on_expiry: str = "release", **more: Any) -> Any:
        hold_id = more.get("hold_id") or new_hold_id(KEYS.shard)
        key = more.get("key", "")
        keys = [*decision_keys(KEYS, key), hold_key(hold_id, KEYS.shard)]
        asked = more.get("path", ""), more.get("not_after_ms", 0), int(more.get("shadow", False))
        args = (
            more.get("digest", "d"),
            more.get("window_ms", 60_000) if key else 0,
            more.get("refusal_ms", 60_000),
            body(charges, event_id=more.get("event_id", "e")),
            *asked,
            hold_id,
            ttl_ms,
            on_expiry,
            len(charges),
            *flat(charges),
        )
        return self.desk.run("hold", keys, *args)

    def due_hold(self, *charges: tuple[str, int], on_expiry: str, **more: Any) -> str:
        """A hold whose deadline is over."""
        reply = self.hold(*charges, ttl_ms=1, on_expiry=on_expiry, **more)
        self.desk.wait_until(reply[9])
        return reply[10]

    def settle(
        self, hold_id: str, *charges: tuple[str, int], digest: str = "d", keep_ms: int = 60_000, body: bytes = b""
    ) -> Any:
        keys = hold_keys(KEYS, hold_id)
        return self.desk.run("settle", keys, digest, keep_ms, body, len(charges), *flat(charges))

    def part(self, hold_id: str, *charges: tuple[str, int], event_id: str = "", key: str = "", **more: Any) -> Any:
        """A part under the hold's body, or under one of its own where it has an event id."""
        own = body(charges, event_id=event_id) if event_id else b""
        args = (
            more.get("digest", "d"),
            60_000 if key else 0,
            own,
            more.get("ttl_ms", 0),
            len(charges),
            *flat(charges),
        )
        return self.desk.run("part", part_keys(KEYS, hold_id, key), *args)

    def extend(
        self,
        hold_id: str,
        *charges: tuple[str, int],
        ttl_ms: int = 0,
        key: str = "",
        digest: str = "d",
        **more: Any,
    ) -> Any:
        keys = part_keys(KEYS, hold_id, key)
        args = digest, 60_000 if key else 0, more.get("refusal_ms", 60_000), ttl_ms, len(charges), *flat(charges)
        return self.desk.run("extend", [*keys[:3], keys[4]], *args)

    def release(self, hold_id: str) -> Any:
        return self.desk.run("release", hold_keys(KEYS, hold_id)[:3], 60_000)

    def sweep(self) -> Reply:
        return self.desk.run("sweep", [KEYS.epoch, KEYS.shard_holds, KEYS.stream], 1000)

    def lapse(self, grant_id: str, kind: str, *, limit: int = 0) -> Reply:
        keys = [KEYS.epoch, KEYS.snapshot, KEYS.wallet, KEYS.stream]
        return self.desk.run("lapse", keys, "USD", grant_id, kind, body(()), limit)

    def usage(self, path: str = "") -> list[Any]:
        """Status, then the rows of `usage_read`."""
        reply: Any = self.desk.run("usage_read", [KEYS.epoch, KEYS.snapshot, KEYS.counters], path)
        return [reply[1], *(reply[at : at + 14] for at in range(2, len(reply), 14))]

    def wallet(self, field: str) -> int:
        return int(self.desk.client.hget(KEYS.wallet, field) or 0)

    def counter(self, field: str, *, node: str = "") -> int:
        name = f"{KEYS.counters}/{node}" if node else KEYS.counters
        return int(self.desk.client.hget(name, field) or 0)

    def entries(self) -> list[UsageEntry]:
        return [decode_entry(stream_id, fields) for stream_id, fields in self.desk.client.xrange(KEYS.stream)]


def body(charges: tuple[tuple[str, int | str], ...], *, event_id: str = "e") -> bytes:
    features = tuple(feature for feature, _ in charges)
    return encode_body(EventBody(event_id=event_id, tenant_id="acme", customer_id="c0", features=features))


def flat(charges: tuple[tuple[str, int | str], ...]) -> list[str | int]:
    return [part for charge in charges for part in charge]
