"""Holds as the model keeps them: what is set aside, what is added, and what is charged, in part and at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from desk import Near, unpacked

from billing_core.contract.snapshot import FeatureKind, Tariff
from model.counting import LARGEST, debit
from model.customer import Charges, Customer, Parts, ReplyError, add
from model.decision import Decision, Ledger, Line

DAY_MS = 86_400_000
UNITS, NANOS, ONE = 1, 2, 0
"""What of a charge a lease measures."""


@dataclass(kw_only=True)
class Lease:
    """What a charge (from 1) holds under one counter of a node (depth from 1)."""

    depth: int
    name: str
    n: int
    measure: int
    amount: int

    def is_like(self, other: Lease) -> bool:
        return (self.depth, self.name, self.n, self.measure) == (other.depth, other.name, other.n, other.measure)


@dataclass(kw_only=True)
class Kept:
    """One charge of a hold."""

    feature: str
    units: int
    nanos: int = 0
    currency: str = ""
    tariff: Tariff | None = None
    parts: list[tuple[str, int]] = field(default_factory=list)

    def packed(self) -> Any:
        tariff = unpacked(msgspec.msgpack.encode(self.tariff)) if self.tariff else False
        parts = tuple(part for pair in self.parts for part in pair)
        return self.feature, self.units, self.nanos, self.currency or "-", tariff, parts

    def grow(self, line: Line) -> None:
        """More of it; a grant that is taken from twice in a row is one part."""
        self.units, self.nanos = self.units + line.quantity, self.nanos + line.rated
        for grant, nanos in line.parts.items():
            if self.parts and self.parts[-1][0] == grant:
                self.parts[-1] = grant, self.parts[-1][1] + nanos
            else:
                self.parts.append((grant, nanos))


@dataclass(kw_only=True)
class Hold:
    """A hold, or the answer of one that ended (`answer`); it may be settled late where nothing was charged."""

    owner: Customer
    hold_id: str
    deadline_ms: int
    on_expiry: str
    body: bytes
    path: str
    shadow: bool
    would: str
    level: str
    currency: str
    kept: list[Kept]
    leases: list[Lease]
    number: int = 0
    answer: tuple[Any, ...] | None = None
    digest: str = ""
    keep_ms: int = 0
    is_due: bool = False
    may_be_late: bool = False
    epoch: int | None = None

    def places(self, charges: Charges) -> list[int]:
        """Which charge each mention means."""
        found: list[int] = []
        for feature, _ in charges:
            fits = [n for n, one in enumerate(self.kept) if one.feature == feature and n not in found]
            if not fits:
                raise ReplyError("INVALID feature")
            found.append(fits[0])
        return found

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def dump(self) -> Any:
        """What Valkey must hold."""
        keys = self.owner.keys
        still = {
            "id": self.hold_id,
            "snapshot": keys.snapshot,
            "counters": keys.counters,
            "wallet": keys.wallet,
            "customer_holds": keys.holds,
            "stream": keys.stream,
            "body": self.body,
            "path": self.path,
            "would": self.would,
            "level": self.level,
            "currency": self.currency,
            "charges": tuple(one.packed() for one in self.kept),
        }
        if self.number:
            still["number"] = self.number
        if self.answer is None:
            leases = [(one.depth, one.name, one.n, one.measure, one.amount) for one in self.leases]
            still |= {"state": "open", "deadline_ms": self.deadline_ms, "on_expiry": self.on_expiry}
            return still | {
                "shadow": str(int(self.shadow)),
                "leases": tuple(part for row in leases for part in row),
            }
        names = "state", "replayed", "at", "currency", "charged", "released", "uncollected", "balance"
        told = dict(zip(names, self.answer, strict=True)) | {"digest": self.digest, "at": Near(self.answer[2])}
        del told["replayed"]
        late = still | {"epoch": str(self.epoch)} | told
        return (late if self.may_be_late else told), Near(self.keep_ms)


class Extension(Decision):
    """More for an open hold: in its currencies, and without asking for the place that it has."""

    def __init__(self, hold: Hold, charges: Charges, places: list[int], *, at: int) -> None:
        self.kept = [hold.kept[place] for place in places]
        super().__init__(hold.owner, charges, at=at, path=hold.path, mode="hold", shadow=hold.shadow)

    def tariffs(self, line: Line) -> tuple[Tariff, ...]:
        place = next(n for n, one in enumerate(self.lines) if one is line)
        tariff = standing(super().tariffs(line), self.kept[place])
        return (tariff,) if tariff else ()

    def fit_leases(self) -> None:
        """It has its lease."""


def standing(tariffs: tuple[Tariff, ...], kept: Kept) -> Tariff | None:
    """The tariff that counts now for what was promised."""
    for tariff in tariffs:
        if kept.tariff and (tariff.currency, tariff.prepaid) == (kept.currency, kept.tariff.prepaid):
            return tariff
    return kept.tariff


def placed(
    decision: Decision, *, hold_id: str, deadline_ms: int, on_expiry: str, path: str, body: bytes, shadow: bool
) -> Hold:
    """What a decision sets aside; nothing where shadow mode did not refuse."""
    kept = [
        Kept(feature=line.feature, units=line.quantity)
        if decision.would
        else Kept(
            feature=line.feature,
            units=line.quantity,
            nanos=line.rated,
            currency=line.currency,
            tariff=line.tariff,
            parts=list(line.parts.items()),
        )
        for line in decision.lines
    ]
    return Hold(
        owner=decision.who,
        hold_id=hold_id,
        deadline_ms=deadline_ms,
        on_expiry=on_expiry,
        body=body,
        path=path,
        shadow=shadow,
        would=decision.would,
        level=decision.told[2],
        currency=decision.first.currency if decision.first else "",
        kept=kept,
        leases=[] if decision.would else leases_of(decision),
    )


def leases_of(decision: Decision) -> list[Lease]:
    """All that is held in the nodes; prices first, then level by level limits, caps and concurrency."""
    lines, ledger, who = decision.lines, decision.ledger, decision.who
    leases = [
        Lease(depth=1, name=line.price.name, n=n, measure=UNITS, amount=line.quantity)
        for n, line in enumerate(lines, 1)
        if line.price
    ]
    for depth, level in enumerate(ledger.levels, 1):
        known = len(leases)
        for where, n, line, limit in ledger.limits(lines):
            if where == level:
                leases.append(Lease(depth=depth, name=limit.counter, n=n, measure=UNITS, amount=line.quantity))
        for cap in who.caps(level):
            for n, line in enumerate(lines, 1):
                if line.tariff and line.currency == cap.currency:
                    leases.append(Lease(depth=depth, name=cap.counter, n=n, measure=NANOS, amount=line.rated))
        for n, line in enumerate(lines, 1):
            guard, name = who.guard(level, line.feature), f"{line.feature}:c"
            limited = guard and guard.concurrent >= 0 and line.kind is not FeatureKind.STATIC
            if limited and name not in ledger.more[level] and not isinstance(decision, Extension):
                leases.append(Lease(depth=depth, name=line.feature, n=n, measure=ONE, amount=1))
                ledger.more[level][name] = who.stored(level).get(name, 0) + 1
        ledger.more_holds[level] = int(len(leases) > known)
    return leases


def extended(hold: Hold, decision: Extension, places: list[int]) -> None:
    """Add what was decided to what the hold keeps."""
    for one, line in zip(decision.kept, decision.lines, strict=True):
        one.grow(line)
    more = leases_of(decision)
    leased = {one.depth for one in hold.leases}
    for one in more:
        one.n = places[one.n - 1] + 1
        like = [known for known in hold.leases if known.is_like(one)]
        if like:
            like[-1].amount += one.amount
        else:
            hold.leases.append(one)
    for depth in leased:
        decision.ledger.more_holds[decision.ledger.levels[depth - 1]] = 0


@dataclass(frozen=True, kw_only=True)
class Charged:
    """What was charged: lines, movements, what each line has left of what it held, and the balance."""

    lines: list[Line]
    moved: Parts
    rests: list[list[tuple[str, int]]]
    balance: int

    def amounts(self, hold: Hold) -> tuple[int, int, int, int]:
        """Charged, not used, uncollected and balance, in the currency of the hold."""
        ours = [n for n, one in enumerate(hold.kept) if one.currency == hold.currency and one.currency]
        return (
            sum(self.lines[n].charged for n in ours),
            sum(nanos for n in ours for _, nanos in self.rests[n]),
            sum(self.lines[n].lost for n in ours),
            self.balance,
        )


def charge_hold(hold: Hold, quantities: list[int], *, at: int, real_ms: int, is_end: bool) -> Charged:
    """Charge these quantities: today's prices and guards; held parts first, then the wallet."""
    who = hold.owner
    ledger, lines = Ledger(who, hold.path, at=at), repriced(hold, quantities)
    count(ledger, lines)
    moved, rests = pay(hold, lines, at=at, is_end=is_end)
    for lease in hold.leases if hold.answer is None else ():
        take_lease(ledger, lease, line=lines[lease.n - 1], is_end=is_end)
    ledger.write(real_ms)
    ours = [one for one in hold.kept if one.currency == hold.currency and one.currency]
    is_prepaid = any(one.tariff and one.tariff.prepaid for one in ours)
    balance = who.balance(hold.currency, ours[0].feature, at=at) if is_prepaid else 0
    return Charged(lines=lines, moved=moved, rests=rests, balance=balance)


def take_lease(ledger: Ledger, lease: Lease, *, line: Line, is_end: bool) -> None:
    """All of it at the end; of a part what it used."""
    level, amount = ledger.levels[lease.depth - 1], lease.amount
    if is_end:
        ledger.more_holds[level] = -1
    else:
        used = {UNITS: line.quantity, NANOS: line.rated, ONE: 0}[lease.measure]
        amount = min(amount, used)
        lease.amount -= amount
    tally = ledger.tallies.get((level, lease.name)) if lease.measure else None
    if tally:
        tally.more_held -= amount
    elif amount:
        name, stored = f"{lease.name}:{'h' if lease.measure else 'c'}", ledger.who.nodes[level].fields
        stored[name] = stored.get(name, 0) - amount


def repriced(hold: Hold, quantities: list[int]) -> list[Line]:
    """The hold's charges by the tariff of today that stands for the promised one."""
    features = hold.owner.snapshot.features if hold.owner.snapshot else {}
    lines: list[Line] = []
    for one, quantity in zip(hold.kept, quantities, strict=True):
        entitlement = features.get(one.feature)
        counted = entitlement if entitlement and entitlement.kind in (0, 2) else None
        tariff = standing(counted.tariffs if counted else (), one)
        line = Line(feature=one.feature, quantity=quantity, entitlement=counted, tariff=tariff)
        line.currency = tariff.currency if tariff else ""
        lines.append(line)
    return lines


def count(ledger: Ledger, lines: list[Line]) -> None:
    """Count and price the lines at every level."""
    who, most = ledger.who, 0
    for line in lines:
        if line.tariff:
            price = ledger.tally("customer", f"${line.tariff.price_id}", window=line.tariff.window)
            line.rated = debit(line.tariff, price.used + price.more_used, line.quantity)
            price.more_used += line.quantity
            most = max(most, price.used + price.more_used)
    if who.snapshot:
        for level, _, line, limit in ledger.limits(lines):
            if level == "customer" and not line.entitlement:
                continue
            window, since_ms = limit.window, limit.since_ms
            tally = ledger.tally(level, limit.counter, window=window, since_ms=since_ms, limit=limit)
            tally.more_used += line.quantity
            most = max(most, tally.used + tally.more_used)
    for level in ledger.levels:
        for cap in who.caps(level):
            tally = ledger.tally(level, cap.counter, window=cap.window, since_ms=cap.since_ms)
            tally.more_used += sum(line.rated for line in lines if line.currency == cap.currency)
            most = max(most, tally.used + tally.more_used)
    if max(most, sum(line.rated for line in lines)) > LARGEST:
        raise ReplyError("OVERFLOW quantity")


def pay(hold: Hold, lines: list[Line], *, at: int, is_end: bool) -> tuple[Parts, list[list[tuple[str, int]]]]:
    """Each line from its held parts, then from the wallet; movements, and what is left of each line's parts."""
    who, moved, rests, lacking = hold.owner, dict[str, int](), list[list[tuple[str, int]]](), list[int]()
    for one, line in zip(hold.kept, lines, strict=True):
        left, rest = line.rated if line.tariff and line.tariff.prepaid else 0, list[tuple[str, int]]()
        for grant, nanos in one.parts if hold.answer is None else ():
            used = min(nanos, left)
            left -= used
            who.held[grant] -= nanos if is_end else used
            who.remaining[grant] += nanos - used if is_end else 0
            if used:
                add(moved, {grant: used})
            if nanos > used:
                rest.append((grant, nanos - used))
        rests.append(rest)
        lacking.append(left)
    for line, lack in zip(lines, lacking, strict=True):
        if line.tariff and line.tariff.prepaid:
            parts = who.take(line.currency, line.feature, at=at, amount=lack)
            add(moved, parts)
            line.lost = lack - sum(parts.values())
            line.charged = line.rated - line.lost
    return moved, rests
