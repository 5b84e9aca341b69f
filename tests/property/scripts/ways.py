"""The same acts done twice: on the straight way where it goes, and all on the long one.

A customer budget that bounds nothing changes no decision, and sends every charge and every hold the long way.
"""

from __future__ import annotations

from typing import Any

from desk import Desk, Near
from shop import KEYS, Shop

from billing_core.contract.keys import new_hold_id
from billing_core.contract.snapshot import Budget, Status

HOLD_IDS = [new_hold_id(KEYS.shard) for _ in range(20)]
"""The same in each run."""
INSTANTS, AT = (5, 9, 11), (2,)
"""Places of instants and spans in the reply of a decision, and of an end."""


class Run:
    """The same acts, on the straight way where it goes, or all on the long one."""

    def __init__(self, shop: Shop, *, goes_long: bool) -> None:
        self.shop, self.replies = shop, list[Any]()
        self._more = {"": Budget()} if goes_long else {}
        self._ids, self._open = iter(HOLD_IDS), ""

    def act(self, name: str, *told: Any) -> None:
        getattr(self, name)(*told)

    def project(self, rights: Any, nodes: dict[str, Budget], offset_ms: int, status: Status) -> None:
        calls, other = rights
        budgets = nodes | self._more
        self.shop.project(calls=calls, other=other, offset_ms=offset_ms, status=status, budgets=budgets)

    def grant(self, grant_id: str, amount: int, currency: str, features: str, effective_ms: int) -> None:
        terms = {"currency": currency, "features": features, "effective_ms": effective_ms}
        self.replies.append(self.shop.grant(grant_id, amount, **terms))

    def consume(self, charges: Any, shadow: bool, key: str, path: str) -> None:
        self._note(self.shop.consume(*charges, shadow=shadow, key=key, path=path))

    def record(self, charges: Any, _: bool, key: str, path: str) -> None:
        self._note(self.shop.record(*charges, key=key, path=path))

    def hold(self, charges: Any, shadow: bool, key: str, path: str) -> None:
        more = {"shadow": shadow, "key": key, "path": path, "hold_id": next(self._ids)}
        reply = self.shop.hold(*charges, ttl_ms=10**9, **more)
        if not isinstance(reply, str) and reply[0] == "allowed":
            self._open = reply[10]
        self._note(reply)

    def settle(self, charges: Any, as_held: bool, *_: Any) -> None:
        if self._open:
            self._note(self.shop.settle(self._open, *(() if as_held else charges)), AT)

    def release(self, *_: Any) -> None:
        if self._open:
            self._note(self.shop.release(self._open), AT)

    def left(self) -> dict[str, Any]:
        """Every key but the snapshot, with instants that another one equals which is as good."""
        left = {key: near(key, value) for key, value in self.shop.desk.dump().items()}
        del left[KEYS.snapshot]
        return left

    def _note(self, reply: Any, instants: tuple[int, ...] = INSTANTS) -> None:
        self.replies.append(reply if isinstance(reply, str) else at_about(reply, instants))


def at_about(reply: Any, instants: tuple[int, ...] = INSTANTS) -> list[Any]:
    return [Near(word) if place in instants else word for place, word in enumerate(reply)]


def near(key: str, value: Any) -> Any:
    """What stands under a key, as told above."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int) and not isinstance(value[0], str):
        return near(key, value[0]), Near(value[1])
    if ":idem:" in key:
        return value[0], at_about(value[1])
    if key in (KEYS.holds, KEYS.shard_holds):
        return {name: Near(score) for name, score in value.items()}
    if ":hold:" in key:
        return value | {name: Near(value[name]) for name in ("at", "deadline_ms") if name in value}
    if key == KEYS.stream:
        return [entry | {"at": Near(int(entry["at"]))} for entry in value]
    return value


def both_ways(desk: Desk, acts: list[Any]) -> list[Any]:
    """What the acts told and left behind on the straight way, and on the long one."""
    seen: list[Any] = []
    for goes_long in (False, True):
        run = Run(Shop(desk), goes_long=goes_long)
        for act in acts:
            run.act(*act)
        seen.append((run.replies, run.left()))
    return seen
