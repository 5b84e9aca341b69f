"""One decision as the model makes it: entitlement, limits, wallet; what it says, and what it would count."""

from __future__ import annotations

from desk import Near, Reply

from billing_core.contract.snapshot import FeatureKind, LimitMode, Snapshot, Status
from model.customer import LARGEST, Charges, Customer, Line, ReplyError, Tally, debit, reserve, tallies


class Decision:
    """One decision: looked at on construction; `commit` counts the units."""

    def __init__(self, who: Customer, charges: Charges, *, at: Near, as_hold: bool) -> None:
        if who.snapshot is None:
            raise ReplyError("UNKNOWN customer")
        self.who, self.at, self.as_hold = who, at, as_hold
        self.reason, self.refused, self.currency, self.cost = "allowed", 0, "", 0
        self.is_counted = self.is_done = False
        self.lines = [Line(feature=feature, quantity=quantity) for feature, quantity in charges]
        checks = self.entitle(who.snapshot), self.fit_limits, self.fit_wallet
        for check in checks:
            found = check if isinstance(check, tuple) or check is None else check()
            if found:
                self.reason, self.refused = found
                break

    def entitle(self, snapshot: Snapshot) -> tuple[str, int] | None:
        if snapshot.status is not Status.ACTIVE:
            return "suspended", 0
        for n, line in enumerate(self.lines, 1):
            entitlement = snapshot.features.get(line.feature)
            if entitlement is None or not entitlement.enabled:
                return "not_entitled", n
            line.entitlement = entitlement
            if entitlement.kind is FeatureKind.STATIC:
                line.static, line.quantity, line.entitlement = entitlement.static_value, 0, None
        currencies = {t.currency for line in self.lines if line.entitlement for t in line.entitlement.tariff}
        if len(currencies) > 1:
            raise ReplyError("INVALID currency")
        self.currency, self.is_counted = "".join(currencies), True
        by_name: dict[str, Tally] = {}
        for line in self.lines:
            if line.entitlement:
                window = line.entitlement.window
                line.tally = by_name.setdefault(line.feature, self.who.tally(line.feature, window, self.at))
                for tariff in line.entitlement.tariff:
                    name, line.tariff = f"${tariff.price_id}", tariff
                    line.price = by_name.setdefault(name, self.who.tally(name, tariff.window, self.at))
        return None

    def fit_limits(self) -> tuple[str, int] | None:
        for n, line in enumerate(self.lines, 1):
            if not line.tally or not line.entitlement:
                continue
            tally, limit = line.tally, line.entitlement.limit_units
            if tally.window is None:
                return "unavailable", n
            units = tally.used + tally.held + tally.more_used + tally.more_held + line.quantity
            is_hard = limit >= 0 and line.entitlement.limit_mode is LimitMode.HARD
            if line.quantity and is_hard and units > limit:
                return "limit_reached", n
            if units > LARGEST:
                raise ReplyError("OVERFLOW quantity")
            if self.as_hold:
                tally.more_held += line.quantity
            else:
                tally.more_used += line.quantity
        return None

    def fit_wallet(self) -> tuple[str, int] | None:
        short, balance = 0, self.who.balance(self.currency, self.at)
        for n, line in enumerate(self.lines, 1):
            if not line.price or not line.tariff or not line.tally:
                continue
            if line.price.window is None:
                return "unavailable", n
            start = line.price.used + line.price.planned + (line.tally.held if self.as_hold else 0)
            if start + line.quantity > LARGEST:
                raise ReplyError("OVERFLOW quantity")
            line.price.planned += line.quantity
            cost = (reserve if self.as_hold else debit)(line.tariff, start, line.quantity)
            line.cost = min(cost, LARGEST)
            self.cost = min(self.cost + line.cost, LARGEST)
            if self.cost > balance and not short:
                short = n
        return ("insufficient_balance", short) if short else None

    def commit(self) -> None:
        for tally in tallies(self.lines):
            if tally.name.startswith("$") and not self.as_hold:
                tally.more_used = tally.planned
            self.who.write(tally)
        self.is_done = True

    def reply(self, deadline_ms: int = 0, hold_id: str = "") -> Reply:
        balance = self.who.balance(self.currency, self.at)
        head = (self.reason, 0, self.refused, self.at, self.currency, self.cost, balance, deadline_ms, hold_id)
        return head + tuple(value for line in self.lines for value in self.reply_of(line))

    def reply_of(self, line: Line) -> tuple[int | str, ...]:
        limit = line.entitlement.limit_units if line.entitlement and self.is_counted else -1
        static = line.static if self.is_counted else ""
        if limit < 0 or not line.tally:
            return -1, -1, 0, line.cost, static
        if line.tally.window is None:
            return limit, 0, 0, line.cost, static
        units = line.tally.used + line.tally.held
        if self.is_done:
            units += line.tally.more_used + line.tally.more_held
        return limit, max(limit - units, 0), line.tally.window[1], line.cost, static
