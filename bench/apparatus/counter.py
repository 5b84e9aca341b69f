"""Customers of every shape that a decision may have, and calls of every script for them.

Calls are made from the headers of `lua/`: each key and argument is looked up by its name, so that what a script
wants more of tomorrow is a fault here and not a wrong measurement.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

import redis

from billing_core.contract.keys import CustomerKeys, customer_keys, event_ids_key, hold_key
from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Snapshot,
    SpendCap,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.contract.usage_event import EventBody, encode_body
from lua.loader import LIBRARY, SCRIPTS

_TENANT: Final = "bench"
_PLENTY: Final = 9 * 10**14
_DAY: Final = Window(kind=WindowKind.STEPS, anchor_ms=0, every_ms=86_400_000)
_PATH: Final = "team:ml/project:chat/user:bob/key:k1"
_NODES: Final = ("team:ml", "team:ml/project:chat", "team:ml/project:chat/user:bob", _PATH)
_HELD: Final = "price and limit"
_NONE: Final[Mapping[str, Budget]] = {}

CUSTOMERS: Final[Mapping[str, tuple[str, ...]]] = {
    "switch only": ("export",),
    "limit": ("calls",),
    "price and limit": ("tokens",),
    "four levels": ("tokens",),
    "two charges": ("calls", "tokens"),
}
"""Which features a request of each shape charges."""


def _limit(units: int, counter: str) -> Limit:
    return Limit(counter=counter, units=units, ceiling=units, window=_DAY)


def _features(units: int) -> dict[str, Entitlement]:
    tariff = Tariff(
        price_id="tokens", currency="USD", package_units=1, batch=3, tiers=(Tier(upto=0, nanos_per_batch=1_000),),
        window=_DAY,
    )  # fmt: skip
    return {
        "export": Entitlement(kind=FeatureKind.SWITCH, enabled=True),
        "calls": Entitlement(
            kind=FeatureKind.METERED, enabled=True, guard=Guard(limits=(_limit(units, "calls@day"),))
        ),
        "tokens": Entitlement(
            kind=FeatureKind.METERED,
            enabled=True,
            guard=Guard(limits=(_limit(units, "tokens@day"),)),
            tariffs=(tariff,),
        ),
    }


def _budgets() -> dict[str, Budget]:
    """A limit at each of four levels, and a cap on money at the first."""
    cap = SpendCap(counter="$USD@day", currency="USD", nanos=_PLENTY, ceiling=_PLENTY, window=_DAY)
    guards = {"tokens": Guard(limits=(_limit(_PLENTY, "tokens@day"),))}
    return {node: Budget(guards=guards, caps=(cap,) if node == _NODES[0] else ()) for node in _NODES}


class Counter:
    """A client, and calls for the customers that stand at it."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.body = encode_body(
            EventBody(
                event_id=f"dec_{secrets.token_hex(16)}",
                tenant_id=_TENANT,
                customer_id="customer",
                features=("tokens",),
                key_hint="abcd",
            )
        )
        client.execute_command("FUNCTION", "LOAD", "REPLACE", LIBRARY.text)
        self._streams: set[str] = set()

    def keys_of(self, shape: str) -> CustomerKeys:
        """The names of that customer's state."""
        return customer_keys(_TENANT, shape.replace(" ", "-"))

    def entry(
        self, keys: CustomerKeys, *, units: int = _PLENTY, budgets: Mapping[str, Budget] = _NONE
    ) -> list[tuple[Any, ...]]:
        """The calls by which a customer comes to be: what it may do, and a balance."""
        snapshot = Snapshot(
            version=1, status=Status.ACTIVE, clock_offset_ms=0, features=_features(units), budgets=dict(budgets)
        )
        fields = ("1", "active", "0", *snapshot_fields(snapshot))
        credit = ("USD", f"gra_{secrets.token_hex(13)}", _PLENTY, 0, 0, 0, 1, 0, "", "unread")
        places = keys.epoch, keys.snapshot, keys.wallet, keys.stream
        return [
            ("SET", keys.epoch, 1),
            SCRIPTS["project"].call((keys.epoch, keys.snapshot), fields),
            SCRIPTS["grant"].call(places, credit),
        ]

    def call(
        self, script: str, shape: str, *, keys: CustomerKeys | None = None, **others: object
    ) -> tuple[Any, ...]:
        """A call of a script for a customer; `others` are arguments and keys that are not as usual."""
        keys = keys or self.keys_of(shape)
        features = CUSTOMERS.get(shape, ("calls",))
        usual = self._usual(keys, path=_PATH if shape == "four levels" else "", count=len(features))
        return self._words(script, usual | others, pairs=[word for one in features for word in (one, 7)])

    def keyed(self, keys: CustomerKeys | None = None, *, shape: str = _HELD) -> tuple[Any, ...]:
        """A consume under a fresh idempotency key."""
        keys = keys or self.keys_of(shape)
        own = {"answer_key": keys.idempotency_prefix + secrets.token_hex(16), "request_digest": "d" * 32}
        return self.call("consume", shape, keys=keys, idem_window_ms=86_400_000, refusal_ms=60_000, **own)

    def hold(self, keys: CustomerKeys | None = None) -> tuple[Any, ...]:
        """A hold of its own."""
        keys = keys or self.keys_of(_HELD)
        hold_id = f"hold_{keys.shard:03x}{secrets.token_hex(15)[:29]}"
        return self.call("hold", _HELD, keys=keys, hold_id=hold_id, hold_key=hold_key(hold_id, keys.shard))

    def on_hold(self, script: str, placed: tuple[Any, ...]) -> tuple[Any, ...]:
        """A call on a hold that was placed by that call."""
        (name,) = [word for word in placed if isinstance(word, str) and ":hold:" in word]
        return self.call(script, _HELD, hold_key=name, body="" if script == "settle" else self.body)

    def ingest(self) -> tuple[Any, ...]:
        """An event of its own."""
        keys = self.keys_of(_HELD)
        places = keys.epoch, keys.stream, event_ids_key(_TENANT, keys.shard)
        return SCRIPTS["ingest"].call(places, (3_600_000, 0, self.body, secrets.token_hex(8), "d" * 16))

    def tidy(self) -> None:
        """Forget the entries, as a flusher does."""
        for shape in CUSTOMERS:
            self.client.xtrim(self.keys_of(shape).stream, maxlen=0, approximate=False)

    def _usual(self, keys: CustomerKeys, *, path: str, count: int) -> dict[str, object]:
        return {
            "epoch_key": keys.epoch,
            "snapshot_key": keys.snapshot,
            "counters_key": keys.counters,
            "wallet_key": keys.wallet,
            "stream_key": keys.stream,
            "customer_holds_key": keys.holds,
            "shard_holds_key": keys.shard_holds,
            "answer_key": "-",
            "request_digest": "",
            "idem_window_ms": 0,
            "refusal_ms": 0,
            "window_ms": 3_600_000,
            "keep_ms": 3_600_000,
            "body": self.body,
            "offset_ms": 0,
            "path": path,
            "not_after_ms": 0,
            "shadow": 0,
            "ttl_ms": 3_600_000,
            "on_expiry": "release",
            "count": count,
        }

    def _words(self, script: str, named: dict[str, object], *, pairs: list[object]) -> tuple[Any, ...]:
        about = SCRIPTS[script]
        keys = [named[name] for name in about.key_names]
        singles = [name for name in about.arg_names if name not in ("feature", "quantity")]
        args = [named[name] for name in singles]
        repeated = pairs if "feature" in about.arg_names else []
        return about.call(keys, (*args, *repeated))


def furnish_counter(client: redis.Redis) -> Counter:
    """A counter with all customers standing at it, each with a balance that will not run out."""
    counter = Counter(client)
    for shape in (*CUSTOMERS, "refused"):
        units = 0 if shape == "refused" else _PLENTY
        budgets = _budgets() if shape == "four levels" else {}
        for call in counter.entry(counter.keys_of(shape), units=units, budgets=budgets):
            client.execute_command(*call)
    return counter
