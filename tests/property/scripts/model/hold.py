"""Holds as the model keeps them: what is set aside, and the one end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from desk import Reply, unpacked
from model.counting import LARGEST, debit
from model.customer import Customer, Parts, ReplyError, add
from model.decision import Decision, Ledger, Line

from billing_core.contract.snapshot import FeatureKind, Tariff

ANSWER_KEPT_MS = 3_600_000

Lease = tuple[int, str, int, int]
"""Depth of the node, field, charge (from 1), measure: 1 units, 2 nanos, 0 one."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One charge of an open hold."""

    feature: str
    units: int
    nanos: int
    currency: str
    tariff: Tariff | None
    parts: Parts

    def packed(self) -> Any:
        tariff = unpacked(msgspec.msgpack.encode(self.tariff)) if self.tariff else False
        parts = tuple(part for pair in self.parts.items() for part in pair)
        return self.feature, self.units, self.nanos, self.currency or "-", tariff, parts


@dataclass(kw_only=True)
class Hold:
    """An open hold, or the answer of one that ended (`answer`)."""

    owner: Customer
    fields: dict[str, Any]
    path: str
    kept: list[Kept]
    leases: list[Lease]
    answer: Reply | None = None
    digest: str = ""
    keep_ms: int = 0
    is_due: bool = False


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What an end has done: lines as charged, movements, and charged, released, uncollected and balance."""

    lines: list[Line]
    moved: Parts
    amounts: tuple[int, int, int, int]


def placed(who: Customer, decision: Decision, *, path: str, body: bytes, terms: tuple[str, int, str]) -> Hold:
    """What a decision sets aside; nothing where shadow mode did not refuse."""
    hold_id, deadline_ms, on_expiry = terms
    nothing = bool(decision.would)
    kept = [
        Kept(feature=line.feature, units=0, nanos=0, currency="", tariff=None, parts={})
        if nothing
        else Kept(
            feature=line.feature,
            units=line.quantity,
            nanos=line.rated,
            currency=line.currency,
            tariff=line.tariff,
            parts=line.parts,
        )
        for line in decision.lines
    ]
    leases = [] if nothing else leases_of(decision)
    keys = who.keys
    fields = {
        "id": hold_id,
        "state": "open",
        "deadline_ms": deadline_ms,
        "on_expiry": on_expiry,
        "snapshot": keys.snapshot,
        "counters": keys.counters,
        "wallet": keys.wallet,
        "customer_holds": keys.holds,
        "stream": keys.stream,
        "body": body,
        "path": path,
        "would": decision.would,
        "currency": decision.first.currency if decision.first else "",
        "charges": tuple(one.packed() for one in kept),
        "leases": tuple(part for lease in leases for part in lease),
    }
    return Hold(owner=who, fields=fields, path=path, kept=kept, leases=leases)


def leases_of(decision: Decision) -> list[Lease]:
    """All that the end has to take back; prices first, then level by level limits, caps and concurrency."""
    lines, ledger, who = decision.lines, decision.ledger, decision.who
    leases = [(1, f"{line.price.name}:h", n, 1) for n, line in enumerate(lines, 1) if line.price]
    for depth, level in enumerate(ledger.levels, 1):
        known = len(leases)
        for where, n, _, limit in ledger.limits(lines):
            if where == level:
                leases.append((depth, f"{limit.counter}:h", n, 1))
        for cap in who.caps(level):
            for n, line in enumerate(lines, 1):
                if line.tariff and line.currency == cap.currency:
                    leases.append((depth, f"{cap.counter}:h", n, 2))
        for n, line in enumerate(lines, 1):
            guard, name = who.guard(level, line.feature), f"{line.feature}:c"
            limited = guard and guard.concurrent >= 0 and line.kind is not FeatureKind.STATIC
            if limited and name not in ledger.more[level]:
                leases.append((depth, name, n, 0))
                ledger.more[level][name] = who.stored(level).get(name, 0) + 1
        ledger.more_holds[level] = int(len(leases) > known)
    return leases


def end_of(hold: Hold, quantities: list[int], *, at: int, real_ms: int) -> Ending:
    """End the hold at these quantities: today's prices and guards; held parts first, then the wallet."""
    who = hold.owner
    ledger, lines = Ledger(who, hold.path, at=at), repriced(hold, quantities)
    count(ledger, lines)
    moved, released = pay(hold, lines, at=at)
    for depth, field, n, measure in hold.leases:
        level = ledger.levels[depth - 1]
        amount = (1, hold.kept[n - 1].units, hold.kept[n - 1].nanos)[measure]
        if amount:
            who.nodes[level].fields[field] = who.nodes[level].fields.get(field, 0) - amount
        ledger.more_holds[level] = -1
    ledger.write(real_ms)
    currency = hold.fields["currency"]
    ours = [n for n, one in enumerate(hold.kept) if one.currency == currency]
    balance = who.balance(currency, lines[ours[0]].feature, at=at) if ours and is_prepaid(hold, currency) else 0
    amounts = (
        sum(lines[n].charged for n in ours),
        sum(released[n] for n in ours),
        sum(lines[n].lost for n in ours),
        balance,
    )
    return Ending(lines=lines, moved=moved, amounts=amounts)


def is_prepaid(hold: Hold, currency: str) -> bool:
    return any(one.tariff and one.tariff.prepaid and one.currency == currency for one in hold.kept)


def repriced(hold: Hold, quantities: list[int]) -> list[Line]:
    """The hold's charges by the tariff of today that stands for the promised one."""
    features = hold.owner.snapshot.features if hold.owner.snapshot else {}
    lines: list[Line] = []
    for one, quantity in zip(hold.kept, quantities, strict=True):
        entitlement = features.get(one.feature)
        counted = entitlement if entitlement and entitlement.kind in (0, 2) else None
        line = Line(feature=one.feature, quantity=quantity, entitlement=counted, tariff=one.tariff)
        for tariff in counted.tariffs if counted and one.tariff else ():
            assert one.tariff
            if (tariff.currency, tariff.prepaid) == (one.currency, one.tariff.prepaid):
                line.tariff = tariff
                break
        line.currency = line.tariff.currency if line.tariff else ""
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
            tally = ledger.tally(level, limit.counter, window=limit.window, since_ms=limit.since_ms, limit=limit)
            tally.more_used += 0 if level == "customer" and line.entitlement is None else line.quantity
            most = max(most, tally.used + tally.more_used)
    for level in ledger.levels:
        for cap in who.caps(level):
            tally = ledger.tally(level, cap.counter, window=cap.window, since_ms=cap.since_ms)
            tally.more_used += sum(line.rated for line in lines if line.currency == cap.currency)
            most = max(most, tally.used + tally.more_used)
    if max(most, sum(line.rated for line in lines)) > LARGEST:
        raise ReplyError("OVERFLOW quantity")


def pay(hold: Hold, lines: list[Line], *, at: int) -> tuple[Parts, list[int]]:
    """Each line from its held parts, then from the wallet; movements, and what each line gave back."""
    who, moved, released, lacking = hold.owner, dict[str, int](), list[int](), list[int]()
    for one, line in zip(hold.kept, lines, strict=True):
        left = line.rated if line.tariff and line.tariff.prepaid else 0
        unused = 0
        for grant, nanos in one.parts.items():
            used = min(nanos, left)
            left -= used
            unused += nanos - used
            who.held[grant] -= nanos
            who.remaining[grant] += nanos - used
            if used:
                add(moved, {grant: used})
        released.append(unused)
        lacking.append(left)
    for line, lack in zip(lines, lacking, strict=True):
        if line.tariff and line.tariff.prepaid:
            parts = who.take(line.currency, line.feature, at=at, amount=lack)
            add(moved, parts)
            line.lost = lack - sum(parts.values())
            line.charged = line.rated - line.lost
    return moved, released
