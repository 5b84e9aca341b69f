"""A customer as the model keeps them: nodes, grants and holds as Valkey has them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from billing_core.contract.keys import CustomerKeys
from billing_core.contract.snapshot import Guard, Snapshot, SpendCap
from model.counting import FOREVER, HOUR_MS

Charges = list[tuple[str, int]]
Grant = tuple[str, int, int, int, int, int, str]
"""grant_id, effective_ms, expires_ms, priority, paid, created_ms, features"""
Parts = dict[str, int]


class ReplyError(Exception):
    """An error reply."""


def add(total: Parts, parts: Parts) -> None:
    for grant, nanos in parts.items():
        total[grant] = total.get(grant, 0) + nanos


@dataclass(kw_only=True)
class Node:
    """One hash of counters; `expires_ms` on the real clock, None never."""

    fields: dict[str, Any] = field(default_factory=dict)
    expires_ms: int | None = None


@dataclass(kw_only=True)
class Customer:
    """One customer's keys and what they hold."""

    keys: CustomerKeys
    snapshot: Snapshot | None = None
    nodes: dict[str, Node] = field(default_factory=dict)
    order: dict[str, list[Grant]] = field(default_factory=dict)
    remaining: Parts = field(default_factory=dict)
    held: Parts = field(default_factory=dict)
    granted: Parts = field(default_factory=dict)
    lent: Parts = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    answers: dict[str, tuple[tuple[Any, ...], int]] = field(default_factory=dict)
    """By key: digest, decision and perhaps part; and for how long."""

    def stored(self, level: str) -> dict[str, Any]:
        """The fields of a node; the customer's is `customer`."""
        return self.nodes[level].fields if level in self.nodes else {}

    def guard(self, level: str, feature: str) -> Guard | None:
        """What holds the feature back at the level."""
        assert self.snapshot
        if level == "customer":
            entitlement = self.snapshot.features.get(feature)
            return entitlement.guard if entitlement else None
        budget = self.budget(level)
        return budget.guards.get(feature) if budget else None

    def budget(self, level: str) -> Any:
        """The node's own budget, or the default of its kind."""
        assert self.snapshot
        budgets = self.snapshot.budgets
        if level == "customer":
            return budgets.get("")
        kind = level.rpartition("/")[2].partition(":")[0]
        return budgets.get(level) or budgets.get(f"{kind}:*")

    def caps(self, level: str) -> tuple[SpendCap, ...]:
        budget = self.budget(level) if self.snapshot else None
        return budget.caps if budget else ()

    def keep(
        self, level: str, fields: dict[str, Any], *, until: int, more_holds: int, at: int, real_ms: int
    ) -> None:
        """Write fields of a node and say how long it lives: to the full hour after what it counts, or for ever."""
        if level == "customer":
            if fields:
                self.nodes.setdefault(level, Node()).fields |= fields
            return
        stored = self.stored(level)
        known, holds = stored.get("x", 0), stored.get("o", 0)
        until = until if until >= FOREVER else math.ceil(until / HOUR_MS) * HOUR_MS
        fields = dict(fields)
        if until > known:
            fields["x"] = until
        if more_holds:
            fields["o"] = holds + more_holds
        if not fields:
            return
        is_longer, until, left = until > known, max(until, known), holds + more_holds
        if left == 0 and until <= at:
            self.nodes.pop(level, None)
            return
        node = self.nodes.setdefault(level, Node())
        node.fields |= fields
        if left or until >= FOREVER:
            node.expires_ms = None
        elif is_longer or holds:
            node.expires_ms = until - at + real_ms

    def usable(self, currency: str, feature: str, *, at: int) -> list[str]:
        """Grants that may pay for the feature, in burn order."""
        return [
            grant[0]
            for grant in self.order.get(currency, [])
            if grant[1] <= at and (grant[2] == 0 or at < grant[2]) and (not grant[6] or feature in grant[6].split())
        ]

    def balance(self, currency: str, feature: str, *, at: int) -> int:
        return sum(self.remaining[grant] for grant in self.usable(currency, feature, at=at))

    def take(self, currency: str, feature: str, *, at: int, amount: int) -> Parts:
        """Take the amount out of the grants, as far as it goes."""
        parts: Parts = {}
        for grant in self.usable(currency, feature, at=at):
            part = min(self.remaining[grant], amount - sum(parts.values()))
            if part > 0:
                parts[grant] = part
                self.remaining[grant] -= part
        return parts


def burn_rank(grant: Grant) -> tuple[object, ...]:
    grant_id, effective_ms, expires_ms, priority, paid, created_ms, _ = grant
    return paid == 2, priority, expires_ms or math.inf, paid, effective_ms, created_ms, grant_id
