"""A customer's account as it is now: what it may use, what it has used, what its wallets hold.

Live reads change nothing and are as fresh as a decision. Replies of `usage_read` and `wallet_read` are rows laid
end to end; reading them is pure. A feature is told with the tightest limit of the customer itself.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from billing_core.contract.path import CUSTOMER_LEVEL
from billing_core.contract.snapshot import FeatureKind, Status
from billing_core.errors import InvariantBroken
from gateway.admission.caller import Caller
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply, Flat, Reply, flat, text_of

_FEATURE, _SPEND_CAP = "feature", "spend_cap"
_LIMITS = frozenset({"limit", "gauge"})
_ROW_COUNT = 14
_GRANT_COUNT = 11


class FeatureUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One feature now. None: no limit; no window holds this instant; it never starts anew."""

    feature: str
    kind: FeatureKind
    enabled: bool
    static_value: str
    limit_units: int | None
    soft: bool
    used_units: int
    held_units: int
    remaining_units: int | None
    window_start_ms: int | None
    reset_at_ms: int | None


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that holds back, at one level: a limit, rate, concurrency limit, gauge or spend cap.

    Units: of the feature; nanos of `currency` for a spend cap, which has no feature; holds for concurrency.
    None: no limit, nothing is refused, no window holds this instant, it never starts anew.
    """

    kind: str
    level: str
    feature: str
    counter: str
    currency: str
    limit_units: int | None
    ceiling_units: int | None
    used_units: int
    held_units: int
    remaining_units: int | None
    window_start_ms: int | None
    reset_at_ms: int | None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer may use and has used. Instants are on the tenant's clock.

    A feature is told with the tightest limit of the customer itself; `bounds` has all limits of all levels asked
    for.
    """

    at_ms: int
    status: Status
    features: tuple[FeatureUsage, ...]
    bounds: tuple[Bound, ...]


class GrantKind(IntEnum):
    """Where a credit block comes from."""

    PROMOTIONAL = 0
    PAID = 1
    OVERDRAFT = 2


class GrantState(msgspec.Struct, frozen=True, kw_only=True):
    """One credit block now. No features: it pays for all. `lent_nanos` of an overdraft are drawn."""

    currency: str
    grant_id: str
    usable: bool
    remaining_nanos: int
    held_nanos: int
    effective_ms: int
    expires_ms: int | None
    priority: int
    kind: GrantKind
    features: tuple[str, ...]
    lent_nanos: int


class Purse(msgspec.Struct, frozen=True, kw_only=True):
    """All credit blocks of a customer, those of a currency in burn order."""

    at_ms: int
    grants: tuple[GrantState, ...]


class AccountReader:
    """Reads accounts from Redis."""

    def __init__(self, bulk: Link, *, deadline_ms: int) -> None:
        self._bulk = bulk
        self._deadline_ms = deadline_ms

    async def usage(self, caller: Caller) -> Usage:
        """What the customer may use and has used, there and at each level of the caller's path.

        Raises: NotFound, Unavailable.
        """
        names = caller.keys
        keys = (names.epoch, names.snapshot, names.counters)
        return usage_of(await self._run("usage_read", keys, args=(caller.path,)))

    async def purse(self, caller: Caller) -> Purse:
        """What the customer's wallets hold.

        Raises: NotFound, Unavailable.
        """
        names = caller.keys
        return purse_of(await self._run("wallet_read", (names.epoch, names.snapshot, names.wallet), args=()))

    async def _run(self, name: str, keys: tuple[str, ...], *, args: tuple[str, ...]) -> Reply:
        try:
            return await self._bulk.run(name, keys, args=args, deadline_ms=self._deadline_ms)
        except ErrorReply as error:
            raise failure_of(error) from None


def usage_of(reply: Reply) -> Usage:
    """A reply of `usage_read`, features sorted by name.

    Raises: InvariantBroken where it cannot be read.
    """
    try:
        words = flat(reply)
        rows = _rows(words[2:], _ROW_COUNT)
        limits: dict[str, list[Flat]] = {}
        for row in rows:
            if text_of(row[0]) in _LIMITS and text_of(row[5]) == CUSTOMER_LEVEL:
                limits.setdefault(text_of(row[1]), []).append(row)
        told = [row for row in rows if text_of(row[0]) == _FEATURE]
        bounds = sorted(
            (_bound(row) for row in rows if text_of(row[0]) != _FEATURE),
            key=lambda one: (one.level != CUSTOMER_LEVEL, one.level, one.feature, one.kind, one.counter),
        )
        features = sorted(
            (_feature(row, limits.get(text_of(row[1]), [])) for row in told), key=lambda one: one.feature
        )
        return Usage(
            at_ms=int(words[0]), status=Status(text_of(words[1])), features=tuple(features), bounds=tuple(bounds)
        )
    except (ValueError, TypeError, IndexError) as error:
        raise InvariantBroken(f"a usage reply cannot be read: {error}") from error


def purse_of(reply: Reply) -> Purse:
    """A reply of `wallet_read`.

    Raises: InvariantBroken where it cannot be read.
    """
    try:
        words = flat(reply)
        return Purse(at_ms=int(words[0]), grants=tuple(_grant(row) for row in _rows(words[1:], _GRANT_COUNT)))
    except (ValueError, TypeError, IndexError) as error:
        raise InvariantBroken(f"a wallet reply cannot be read: {error}") from error


def _rows(words: Flat, width: int) -> list[Flat]:
    if len(words) % width:
        raise ValueError(f"{len(words)} words are no rows of {width}")
    return [words[at : at + width] for at in range(0, len(words), width)]


def _feature(row: Flat, limits: list[Flat]) -> FeatureUsage:
    tightest = min(limits, key=_tightness, default=row)
    limit_units, remaining_units = int(tightest[7]), int(tightest[11])
    window_start_ms, reset_at_ms = int(tightest[12]), int(tightest[13])
    return FeatureUsage(
        feature=text_of(row[1]),
        kind=FeatureKind(int(row[2])),
        enabled=int(row[3]) == 1,
        static_value=text_of(row[4]),
        limit_units=None if limit_units < 0 else limit_units,
        soft=int(tightest[8]) < 0,
        used_units=int(tightest[9]),
        held_units=int(tightest[10]),
        remaining_units=None if remaining_units < 0 else remaining_units,
        window_start_ms=None if window_start_ms < 0 else window_start_ms,
        reset_at_ms=reset_at_ms or None,
    )


def _bound(row: Flat) -> Bound:
    kind, value = text_of(row[0]), text_of(row[4])
    limit_units, ceiling_units, remaining_units = int(row[7]), int(row[8]), int(row[11])
    window_start_ms, reset_at_ms = int(row[12]), int(row[13])
    return Bound(
        kind=kind,
        level=text_of(row[5]),
        feature=text_of(row[1]),
        counter=text_of(row[6]),
        currency=value if kind == _SPEND_CAP else "",
        limit_units=None if limit_units < 0 else limit_units,
        ceiling_units=None if ceiling_units < 0 else ceiling_units,
        used_units=int(row[9]),
        held_units=int(row[10]),
        remaining_units=None if limit_units < 0 else remaining_units,
        window_start_ms=None if window_start_ms < 0 else window_start_ms,
        reset_at_ms=reset_at_ms or None,
    )


def _tightness(row: Flat) -> tuple[bool, int]:
    return int(row[11]) < 0, int(row[11])


def _grant(row: Flat) -> GrantState:
    return GrantState(
        currency=text_of(row[0]),
        grant_id=text_of(row[1]),
        usable=int(row[2]) == 1,
        remaining_nanos=int(row[3]),
        held_nanos=int(row[4]),
        effective_ms=int(row[5]),
        expires_ms=int(row[6]) or None,
        priority=int(row[7]),
        kind=GrantKind(int(row[8])),
        features=tuple(text_of(row[9]).split()),
        lent_nanos=int(row[10]),
    )
