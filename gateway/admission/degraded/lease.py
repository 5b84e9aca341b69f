"""Leases: units that this process has set aside beforehand, so that it can allow without asking.

A lease is an ordinary hold on so many units of one or several features, at one place of one customer's budgets.
It is taken when a decision tells that its features may go on without Redis (`outage_units`), kept while such
decisions come, and used only until a margin before its deadline, because what is used must still be charged on
it. So whatever is allowed on leases was paid for beforehand, and never comes to more than the leases
outstanding.

Here is only the book of what was leased and how much of it is left; nothing here asks anybody.

Worked example: a lease of 100 calls and 5,000 tokens. An order of 1 call and 800 tokens takes both or none; after
six of them 94 calls and 200 tokens are left, and the seventh is not covered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from gateway.admission.caller import Caller
from gateway.admission.order import Charge, Order

_REFILL_SHARE: Final = 2


class LeaseName(msgspec.Struct, frozen=True, kw_only=True):
    """What a lease is for: a place in a customer's budgets, and features in the order of their names."""

    tenant_id: str
    customer_id: str
    path: str
    features: tuple[str, ...]


def name_of(caller: Caller, order: Order) -> LeaseName:
    """The lease that would cover this order."""
    return LeaseName(
        tenant_id=caller.tenant_id,
        customer_id=caller.customer_id,
        path=caller.path,
        features=tuple(sorted(charge.feature for charge in order.charges)),
    )


class Lease:
    """One hold and what is left of it. Units: seconds of this process' monotonic clock."""

    __slots__ = (
        "ahead_ms",
        "caller",
        "hold_id",
        "left",
        "owed_count",
        "plan",
        "renewal_count",
        "renewed_s",
        "touched_s",
        "units",
        "until_s",
    )

    def __init__(
        self, caller: Caller, hold_id: str, *, units: Mapping[str, int], now_s: float, until_s: float
    ) -> None:
        self.caller = caller
        self.hold_id = hold_id
        self.units = dict(units)
        self.left = dict(units)
        self.owed_count = 0
        """Orders that were allowed on it and are not charged yet."""
        self.renewal_count = 0
        self.renewed_s = self.touched_s = now_s
        self.until_s = until_s
        self.ahead_ms = 0
        """The tenant's clock less ours, as the last decision told it."""
        self.plan = ""

    def covers(self, charges: tuple[Charge, ...], *, now_s: float) -> bool:
        """Whether all of them can be taken now."""
        return now_s < self.until_s and all(0 <= one.quantity <= self.left.get(one.feature, -1) for one in charges)

    def take(self, charges: tuple[Charge, ...]) -> None:
        """Take what it covers."""
        for one in charges:
            self.left[one.feature] -= one.quantity
        self.owed_count += 1

    def give_back(self, quantities: Mapping[str, int]) -> None:
        """What was taken turned out not to be needed."""
        for feature, quantity in quantities.items():
            self.left[feature] += quantity

    def missing(self) -> dict[str, int]:
        """What would make it whole again, once half of any feature is used; nothing before."""
        if all(left * _REFILL_SHARE >= self.units[feature] for feature, left in self.left.items()):
            return {}
        return {feature: self.units[feature] - left for feature, left in self.left.items()}


class LeasePool:
    """All leases of this process, at most `capacity`; and which names are wanted, or must wait."""

    def __init__(self, capacity: int, *, idle_s: float) -> None:
        self._capacity = capacity
        self._idle_s = idle_s
        self._leases: dict[LeaseName, Lease] = {}
        self._names: dict[tuple[str, str], list[LeaseName]] = {}
        self._wanted: dict[LeaseName, tuple[Caller, dict[str, int]]] = {}
        self._barred: dict[LeaseName, float] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, name: LeaseName) -> Lease | None:
        """The lease of that name."""
        return self._leases.get(name)

    def want(self, name: LeaseName, caller: Caller, *, units: dict[str, int], now_s: float) -> bool:
        """Say that a lease of these units would be of use; whether it is now waited for, for the first time."""
        if name in self._wanted or len(self._leases) + len(self._wanted) >= self._capacity:
            return False
        if self._barred.get(name, 0.0) > now_s:
            return False
        self._barred.pop(name, None)
        self._wanted[name] = (caller, units)
        return True

    def wanted(self) -> list[tuple[LeaseName, Caller, dict[str, int]]]:
        """What is wanted, once each."""
        found = [(name, caller, units) for name, (caller, units) in self._wanted.items()]
        self._wanted.clear()
        return found

    def add(self, name: LeaseName, lease: Lease) -> None:
        """A lease that was taken."""
        if name not in self._leases:
            self._names.setdefault((name.tenant_id, name.customer_id), []).append(name)
        self._leases[name] = lease

    def bar(self, name: LeaseName, *, now_s: float) -> None:
        """It was refused: nobody asks for it again for a while."""
        if len(self._barred) >= self._capacity:
            self._barred = {one: until_s for one, until_s in self._barred.items() if until_s > now_s}
        if len(self._barred) < self._capacity:
            self._barred[name] = now_s + self._idle_s

    def close(self, name: LeaseName) -> None:
        """Allow nothing on it any more; it is given back when it owes nothing."""
        lease = self._leases.get(name)
        if lease is not None:
            lease.until_s = 0.0

    def remove(self, name: LeaseName) -> Lease | None:
        """Forget the lease; whoever removes it gives it back."""
        lease = self._leases.pop(name, None)
        if lease is not None:
            names = self._names[name.tenant_id, name.customer_id]
            names.remove(name)
            if not names:
                del self._names[name.tenant_id, name.customer_id]
        return lease

    def of_customer(self, caller: Caller) -> list[LeaseName]:
        """The leases of the same customer, at whatever place."""
        return list(self._names.get((caller.tenant_id, caller.customer_id), ()))

    def items(self) -> Iterator[tuple[LeaseName, Lease]]:
        """All leases."""
        return iter(list(self._leases.items()))

    def cold(self, *, now_s: float) -> list[LeaseName]:
        """Leases that nobody needs any more, or that cannot be used any more; none that still owes."""
        return [
            name
            for name, lease in self._leases.items()
            if not lease.owed_count and (now_s - lease.touched_s > self._idle_s or now_s >= lease.until_s)
        ]

    def left_units(self) -> int:
        """Units that could still be allowed on leases."""
        return sum(left for lease in self._leases.values() for left in lease.left.values())
