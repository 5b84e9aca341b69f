"""One decision as the model makes it: every check in its order, what it says, and what it would count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from billing_core.contract.snapshot import Entitlement, FeatureKind, Limit, RateCount, Status, Tariff, Window
from model.counting import (
    FOREVER,
    LARGEST,
    Pace,
    Tally,
    counts_until,
    debit,
    kept_fields,
    open_pace,
    open_tally,
    reserve,
)
from model.customer import Charges, Customer, Parts, ReplyError, add


class RefusalError(Exception):
    """The first check that failed."""

    def __init__(self, reason: str, refused: int, level: str = "", limit: str = "", retry_ms: int = 0) -> None:
        super().__init__(reason)
        self.told = reason, refused, level, limit, retry_ms


@dataclass(kw_only=True)
class Line:
    """One charge of a request or a hold while it is looked at."""

    feature: str
    quantity: int
    sign: str = ""
    entitlement: Entitlement | None = None
    tariff: Tariff | None = None
    price: Tally | None = None
    currency: str = ""
    rated: int = 0
    charged: int = 0
    lost: int = 0
    parts: Parts = field(default_factory=dict)
    new_level: int = 0
    tightest: tuple[int, int, int] = (-1, -1, 0)

    @property
    def kind(self) -> FeatureKind | None:
        return self.entitlement.kind if self.entitlement else None

    @property
    def is_gauge(self) -> bool:
        return self.kind is FeatureKind.GAUGE

    def tell(self, units: int, remaining: int, reset: int) -> None:
        """Keep the tightest limit: the first of those that leave the least."""
        if self.tightest[0] < 0 or remaining < self.tightest[1]:
            self.tightest = units, remaining, reset


def levels_of(path: str) -> list[str]:
    segments = path.split("/") if path else []
    return ["customer", *("/".join(segments[: n + 1]) for n in range(len(segments)))]


def lines_of(charges: Charges) -> list[Line]:
    lines: list[Line] = []
    for feature, told in charges:
        text = str(told)
        sign = text[0] if text[0] in "-=" else ""
        lines.append(Line(feature=feature, quantity=int(text.removeprefix(sign)), sign=sign))
    return lines


class Ledger:
    """The counters of all levels that one act looks at, each opened once."""

    def __init__(self, who: Customer, path: str, *, at: int) -> None:
        self.who, self.at, self.levels = who, at, levels_of(path)
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.paces: dict[tuple[str, str], Pace] = {}
        self.more: dict[str, dict[str, Any]] = {level: {} for level in self.levels}
        self.more_holds = dict.fromkeys(self.levels, 0)
        self.forever: set[str] = set()

    def tally(
        self, level: str, name: str, *, window: Window | None, since_ms: int = 0, limit: Limit | None = None
    ) -> Tally:
        if (level, name) not in self.tallies:
            stored = self.who.stored(level)
            self.tallies[level, name] = open_tally(
                name, window, stored=stored, at=self.at, since_ms=since_ms, limit=limit
            )
        return self.tallies[level, name]

    def write(self, real_ms: int) -> None:
        """Keep what all counters gained or lost."""
        for level in self.levels:
            fields, until = dict(self.more[level]), FOREVER if level in self.forever else 0
            for (where, _), tally in self.tallies.items():
                if where == level:
                    fields |= kept_fields(tally, self.at)
                    until = max(until, counts_until(tally, self.at))
            for (where, name), pace in self.paces.items():
                if where == level and pace.raised:
                    fields[f"{name}:t"] = (pace.level + pace.raised, pace.since)
                    until = max(until, pace.since - -(pace.level + pace.raised) // pace.rate.units)
            self.who.keep(
                level, fields, until=until, more_holds=self.more_holds[level], at=self.at, real_ms=real_ms
            )

    def limits(self, lines: list[Line]) -> Iterator[tuple[str, int, Line, Limit]]:
        """Level by level, charge by charge: each limit."""
        for level in self.levels:
            for n, line in enumerate(lines, 1):
                guard = self.who.guard(level, line.feature)
                if guard and line.kind is not FeatureKind.STATIC:
                    for limit in guard.limits:
                        yield level, n, line, limit


class Decision:
    """One decision: looked at on construction, with grants taken from and given back; `commit` writes it."""

    def __init__(
        self,
        who: Customer,
        charges: Charges,
        *,
        at: int,
        path: str = "",
        mode: str = "consume",
        shadow: bool = False,
    ) -> None:
        if who.snapshot is None:
            raise ReplyError("UNKNOWN customer")
        self.who, self.at, self.mode, self.as_hold = who, at, mode, mode == "hold"
        self.told: tuple[str, int, str, str, int] = ("allowed", 0, "", "", 0)
        self.would, self.cost, self.moved = "", 0, dict[str, int]()
        self.first: Line | None = None
        self.balance, self.is_counted, self.is_done = 0, False, False
        self.ledger = Ledger(who, path, at=at)
        self.levels_after: dict[str, dict[str, int]] = {level: {} for level in self.ledger.levels}
        self.lines = lines_of(charges)
        before = dict(who.remaining)
        try:
            self.check(who.snapshot.status)
        except RefusalError as refused:
            self.told = refused.told
        finally:
            who.remaining = before
        if self.reason != "allowed" and (shadow or self.in_shadow()):
            self.would, self.told = self.reason, ("allowed", *self.told[1:])

    @property
    def reason(self) -> str:
        return self.told[0]

    def refuse(self, reason: str, n: int, level: str = "", limit: str = "", retry_ms: int = 0) -> None:
        if self.mode != "record":
            raise RefusalError(reason, n, level, limit, retry_ms)

    def in_shadow(self) -> bool:
        return bool(self.lines) and all(line.entitlement and line.entitlement.shadow for line in self.lines)

    # ---- checks, in their order

    def check(self, status: Status) -> None:
        assert self.who.snapshot
        for line in self.lines:
            line.entitlement = self.who.snapshot.features.get(line.feature)
            if line.kind is FeatureKind.STATIC:
                line.quantity = 0
            if (line.sign and not line.is_gauge) or (line.is_gauge and self.as_hold):
                raise ReplyError("INVALID quantity")
        if status is not Status.ACTIVE:
            self.refuse("suspended", 0)
        for n, line in enumerate(self.lines, 1):
            if line.entitlement is None or not line.entitlement.enabled:
                self.refuse("not_entitled", n)
        self.open()
        if self.mode != "record":
            self.fit_rates()
            self.fit_leases()
        self.fit_limits()
        self.fit_gauges()
        self.fit_wallets()
        self.fit_caps()

    def tariffs(self, line: Line) -> tuple[Tariff, ...]:
        priced = line.entitlement and line.kind is not FeatureKind.STATIC
        return line.entitlement.tariffs if line.entitlement and priced else ()

    def open(self) -> None:
        self.is_counted = True
        for line in self.lines:
            for tariff in self.tariffs(line)[:1]:
                self.first = self.first or line
                line.currency = tariff.currency
        if self.first and self.tariffs(self.first)[0].prepaid:
            self.balance = self.who.balance(self.first.currency, self.first.feature, at=self.at)
        for level, _, line, limit in self.ledger.limits(self.lines):
            if not line.is_gauge:
                self.tally_of(level, limit)

    def tally_of(self, level: str, limit: Limit) -> Tally:
        return self.ledger.tally(level, limit.counter, window=limit.window, since_ms=limit.since_ms, limit=limit)

    def fit_rates(self) -> None:
        for level in self.ledger.levels:
            for n, line in enumerate(self.lines, 1):
                guard = self.who.guard(level, line.feature)
                rates = guard.rates if guard and line.kind is not FeatureKind.STATIC else ()
                for rate in rates:
                    place = level, rate.counter
                    stored = self.who.stored(level)
                    pace = self.ledger.paces.setdefault(place, open_pace(rate, stored=stored, at=self.at))
                    units = line.quantity
                    if pace.rate.counts is RateCount.REQUESTS:
                        units, pace.is_counted = int(not pace.is_counted), True
                    passes, wait_ms = pace.admit(units)
                    if not passes:
                        wait_ms += pace.since - self.at if wait_ms else 0
                        self.refuse("rate_limited", n, level, rate.counter, wait_ms)

    def fit_leases(self) -> None:
        for level in self.ledger.levels:
            for n, line in enumerate(self.lines, 1):
                guard = self.who.guard(level, line.feature)
                if guard and guard.concurrent >= 0 and line.kind in (FeatureKind.SWITCH, FeatureKind.METERED):
                    name = f"{line.feature}:c"
                    if self.who.stored(level).get(name, 0) >= guard.concurrent:
                        self.refuse("concurrency_limited", n, level, name)

    def fit_limits(self) -> None:
        for level, n, line, limit in self.ledger.limits(self.lines):
            if line.is_gauge:
                continue
            tally = self.tally_of(level, limit)
            if tally.start is None:
                self.refuse("unavailable", n, level, limit.counter)
            units = tally.planned + line.quantity
            if line.quantity and limit.ceiling >= 0 and units > limit.ceiling + tally.carried:
                retry_ms = tally.reset - self.at if tally.reset else 0
                self.refuse("limit_reached", n, level, limit.counter, retry_ms)
            if units > LARGEST:
                raise ReplyError("OVERFLOW quantity")
            if self.as_hold:
                tally.more_held += line.quantity
            else:
                tally.more_used += line.quantity

    def level_now(self, level: str, feature: str) -> int:
        stored = self.who.stored(level).get(f"{feature}:g", 0)
        return self.levels_after[level].get(feature, stored)

    def fit_gauges(self) -> None:
        for n, line in enumerate(self.lines, 1):
            if not line.is_gauge:
                continue
            last = self.level_now(self.ledger.levels[-1], line.feature)
            change = {"-": -line.quantity, "=": line.quantity - last, "": line.quantity}[line.sign]
            for level in self.ledger.levels:
                units = self.level_now(level, line.feature) + change
                if units < 0:
                    raise ReplyError("INVALID level")
                if units > LARGEST:
                    raise ReplyError("OVERFLOW quantity")
                guard = self.who.guard(level, line.feature)
                for limit in guard.limits if guard else ():
                    if change > 0 and limit.ceiling >= 0 and units > limit.ceiling:
                        self.refuse("limit_reached", n, level, limit.counter)
                self.levels_after[level][line.feature] = units
            line.new_level = self.levels_after["customer"][line.feature]

    def price_tally(self, tariff: Tariff) -> Tally:
        return self.ledger.tally("customer", f"${tariff.price_id}", window=tariff.window)

    def price(self, line: Line, tariff: Tariff) -> int | None:
        """What the line costs by this tariff; None where the counter or the cost would pass 2^53 - 1."""
        price = self.price_tally(tariff)
        if price.planned + line.quantity > LARGEST:
            return None
        used = price.used + price.more_used
        if self.as_hold:
            nanos = reserve(tariff, used + price.held + price.more_held, line.quantity)
        else:
            nanos = debit(tariff, used, line.quantity)
        return nanos if nanos <= LARGEST else None

    def choose(self, line: Line) -> tuple[Tariff, int | None, bool]:
        """The tariff that pays, what it costs, and whether it can pay."""
        options = self.tariffs(line)
        for tariff in options:
            if tariff is not options[0] and self.price_tally(tariff).start is None:
                continue
            nanos = self.price(line, tariff)
            if nanos is not None and (
                not tariff.prepaid or nanos <= self.who.balance(tariff.currency, line.feature, at=self.at)
            ):
                return tariff, nanos, True
        return options[0], self.price(line, options[0]), False

    def fit_wallets(self) -> None:
        short = 0
        for n, line in enumerate(self.lines, 1):
            options = self.tariffs(line)
            if not options:
                continue
            price = self.price_tally(options[0])
            if price.start is None:
                self.refuse("unavailable", n)
            if price.planned + line.quantity > LARGEST:
                raise ReplyError("OVERFLOW quantity")
            line.tariff, nanos, pays = self.choose(line)
            line.currency, line.rated = line.tariff.currency, LARGEST if nanos is None else nanos
            line.price = self.price_tally(line.tariff)
            if self.first is line:
                prepaid = line.tariff.prepaid
                self.balance = self.who.balance(line.currency, line.feature, at=self.at) if prepaid else 0
            if self.first and self.first.currency == line.currency:
                self.cost = min(self.cost + line.rated, LARGEST)
            if nanos is None and (self.mode == "record" or not line.tariff.prepaid):
                raise ReplyError("OVERFLOW quantity")
            if self.as_hold:
                line.price.more_held += line.quantity
            else:
                line.price.more_used += line.quantity
            if (pays or self.mode == "record") and line.tariff.prepaid:
                line.parts = self.who.take(line.currency, line.feature, at=self.at, amount=line.rated)
                line.charged = sum(line.parts.values())
                line.lost = line.rated - line.charged
                add(self.moved, line.parts)
            short = short or (0 if pays or self.mode == "record" else n)
        if short:
            self.refuse("insufficient_balance", short)

    def fit_caps(self) -> None:
        for level in self.ledger.levels:
            for cap in self.who.caps(level):
                tally = self.ledger.tally(level, cap.counter, window=cap.window, since_ms=cap.since_ms)
                for n, line in enumerate(self.lines, 1):
                    if line.tariff is None or line.currency != cap.currency:
                        continue
                    if tally.start is None:
                        self.refuse("unavailable", n, level, cap.counter)
                    nanos = tally.planned + line.rated
                    if line.rated and cap.ceiling >= 0 and nanos > cap.ceiling:
                        retry_ms = tally.reset - self.at if tally.reset else 0
                        self.refuse("limit_reached", n, level, cap.counter, retry_ms)
                    if nanos > LARGEST:
                        raise ReplyError("OVERFLOW quantity")
                    if self.as_hold:
                        tally.more_held += line.rated
                    else:
                        tally.more_used += line.rated

    # ---- what it does and says

    def commit(self, real_ms: int) -> None:
        """Write everything but the entry and the hold."""
        for grant, nanos in self.moved.items():
            self.who.remaining[grant] -= nanos
            if self.as_hold:
                self.who.held[grant] += nanos
        for level, after in self.levels_after.items():
            for feature, units in after.items():
                self.ledger.more[level][f"{feature}:g"] = units
                self.ledger.forever.add(level)
        for line in self.lines:
            if line.is_gauge:
                line.quantity = line.new_level
        self.ledger.write(real_ms)
        self.is_done = True

    def reply(self, deadline_ms: int = 0, hold_id: str = "") -> tuple[Any, ...]:
        self.tell_limits()
        balance, first = self.balance, self.first
        if self.is_done and first and first.tariff and first.tariff.prepaid:
            balance = self.who.balance(first.currency, first.feature, at=self.at)
        reason, refused, level, limit, retry_ms = self.told
        currency = first.currency if first else ""
        head = (reason, 0, refused, level, limit, self.at, currency, self.cost, balance, deadline_ms, hold_id)
        return (*head, retry_ms, self.would, *(value for line in self.lines for value in self.reply_of(line)))

    def reply_of(self, line: Line) -> tuple[int | str, ...]:
        told = line.entitlement if self.is_counted else None
        static = told.static_value if told and line.kind is FeatureKind.STATIC else ""
        lent, plan = (told.outage_units, told.plan) if told else (0, "")
        return *line.tightest, line.rated, static, line.currency, lent, plan

    def tell_limits(self) -> None:
        if not self.is_counted:
            return
        for level, _, line, limit in self.ledger.limits(self.lines):
            if line.is_gauge:
                continue
            tally = self.tally_of(level, limit)
            most = min(limit.units + tally.carried, LARGEST)
            units = tally.planned if self.is_done else tally.used + tally.held
            line.tell(most, 0 if tally.start is None else max(most - units, 0), tally.reset)
        for level, _, line, limit in self.ledger.limits(self.lines):
            if line.is_gauge:
                stored = self.who.stored(level).get(f"{line.feature}:g", 0)
                line.tell(limit.units, max(limit.units - stored, 0), 0)
