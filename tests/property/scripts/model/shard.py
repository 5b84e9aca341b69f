"""The scripts once more, in plain Python: what every reply and every key must be.

Nothing here is fast or atomic; it says the same thing in the simplest way. Prices are fractions, instants are
`Near`, error replies are raised. A customer's state is kept as Valkey keeps it, so that every key can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from desk import Near, Reply

from billing_core.contract.keys import CustomerKeys, hold_key
from billing_core.contract.snapshot import Entitlement, Snapshot, Status, snapshot_fields
from model.customer import LARGEST, Charges, Customer, Grant, Line, ReplyError, Tally, burn_rank, debit, tallies
from model.decision import Decision

ANSWER_KEPT_MS = 3_600_000


@dataclass(kw_only=True)
class Hold:
    """An open hold, or the answer of one that ended (`answer`)."""

    owner: Customer
    fields: dict[str, Any]
    lines: Charges
    parts: dict[str, int]
    promised: dict[int, Entitlement]
    answer: Reply | None = None
    digest: str = ""
    keep_ms: int = 0
    is_due: bool = False


class Model:
    """One shard with its customers. `clock_ms` is the real instant at which the test began."""

    def __init__(self, customers: list[CustomerKeys], clock_ms: int) -> None:
        self.clock_ms = clock_ms
        self.epoch: int | None = None
        self.customers = [Customer(keys=keys) for keys in customers]
        self.holds: dict[str, Hold] = {}
        self.stream: list[dict[str, Any]] = []
        self.events: dict[str, tuple[str, int]] = {}

    def at(self, who: Customer) -> Near:
        return Near(self.clock_ms + (who.snapshot.clock_offset_ms if who.snapshot else 0))

    def need_epoch(self) -> None:
        if self.epoch is None:
            raise ReplyError("UNAVAILABLE epoch")

    # ---- decisions

    def consume(self, who: Customer, charges: Charges, *, memory: tuple[str, str, int], body: bytes) -> Reply:
        """`memory` is idempotency key, digest and window."""
        key, digest, window_ms = memory
        self.need_epoch()
        if window_ms and key in who.answers:
            return self.first_answer(who, key, digest)
        self.sweep_due(list(who.holds))
        decision = Decision(who, charges, at=self.at(who), as_hold=False)
        if decision.reason != "allowed":
            return decision.reply()
        parts = who.plan(decision.currency, decision.at, amount=decision.cost)
        self.append("debit", who, body=body, lines=decision.lines, moved=parts, currency=decision.currency)
        for grant, nanos in parts.items():
            who.remaining[grant] -= nanos
        decision.commit()
        return self.remember(who, key, digest=digest, window_ms=window_ms, reply=decision.reply())

    def peek(self, who: Customer, charges: Charges) -> Reply:
        self.need_epoch()
        return Decision(who, charges, at=self.at(who), as_hold=False).reply()

    def hold(
        self,
        who: Customer,
        charges: Charges,
        *,
        memory: tuple[str, str, int],
        body: bytes,
        terms: tuple[str, int, str],
    ) -> Reply:
        """`terms` are hold id, ttl and what happens on expiry."""
        key, digest, window_ms = memory
        hold_id, ttl_ms, on_expiry = terms
        self.need_epoch()
        if window_ms and key in who.answers:
            return self.first_answer(who, key, digest)
        if hold_id in self.holds:
            raise ReplyError("CONFLICT hold")
        self.sweep_due(list(who.holds))
        decision = Decision(who, charges, at=self.at(who), as_hold=True)
        if decision.reason != "allowed":
            return decision.reply()
        parts = who.plan(decision.currency, decision.at, amount=decision.cost)
        for grant, nanos in parts.items():
            who.remaining[grant] -= nanos
            who.held[grant] += nanos
        decision.commit()
        deadline_ms = Near(self.clock_ms + ttl_ms)
        promised = {
            n: line.entitlement for n, line in enumerate(decision.lines, 1) if line.entitlement and line.tariff
        }
        lines = [(line.feature, line.quantity) for line in decision.lines]
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
            "currency": decision.currency,
            "features": " ".join(feature for feature, _ in lines),
            "quantities": " ".join(str(quantity) for _, quantity in lines),
            "parts": movements(parts),
        }
        self.holds[hold_id] = Hold(owner=who, fields=fields, lines=lines, parts=parts, promised=promised)
        who.holds[hold_id] = deadline_ms
        reply = decision.reply(deadline_ms, hold_id)
        return self.remember(who, key, digest=digest, window_ms=window_ms, reply=reply)

    def first_answer(self, who: Customer, key: str, digest: str) -> Reply:
        (known, reply), _ = who.answers[key]
        if known != digest:
            raise ReplyError("CONFLICT idempotency")
        assert isinstance(reply, tuple)
        return (reply[0], 1, *reply[2:])

    def remember(self, who: Customer, key: str, *, digest: str, window_ms: int, reply: Reply) -> Reply:
        if window_ms:
            who.answers[key] = (digest, reply), window_ms
        return reply

    # ---- ends of holds

    def settle(self, hold_id: str, charges: Charges, *, digest: str, keep_ms: int) -> Reply:
        self.need_epoch()
        hold = self.holds.get(hold_id)
        if hold is None:
            return "not_found", 0, Near(self.clock_ms), "", 0, 0, 0, 0
        if isinstance(hold.answer, tuple):
            if hold.answer[0] == "settled" and hold.digest != digest:
                return "conflict", 0, Near(self.clock_ms), "", 0, 0, 0, 0
            return (hold.answer[0], 1, *hold.answer[2:])
        if hold.is_due:
            return self.expire(hold)
        quantities: list[int | None] = [None] * len(hold.lines)
        for feature, quantity in charges:
            places = [n for n, (name, _) in enumerate(hold.lines) if name == feature and quantities[n] is None]
            if not places:
                raise ReplyError("INVALID feature")
            quantities[places[0]] = quantity
        named = [held if real is None else real for real, (_, held) in zip(quantities, hold.lines, strict=True)]
        return self.end(hold, named, outcome="settled", digest=digest, keep_ms=keep_ms)

    def release(self, hold_id: str, *, keep_ms: int) -> Reply:
        self.need_epoch()
        hold = self.holds.get(hold_id)
        if hold is None:
            return "not_found", 0, Near(self.clock_ms), "", 0, 0, 0, 0
        if isinstance(hold.answer, tuple):
            return (hold.answer[0], 1, *hold.answer[2:])
        if hold.is_due:
            return self.expire(hold)
        return self.end(hold, [0] * len(hold.lines), outcome="released", digest="", keep_ms=keep_ms)

    def sweep(self, most: int) -> Reply:
        self.need_epoch()
        return self.sweep_due(list(self.holds), most)

    def sweep_due(self, candidates: list[str], most: int = 100) -> int:
        """Ends in order of deadline, then id."""
        due = [self.holds[hold_id] for hold_id in candidates if self.holds[hold_id].is_due]
        due = [hold for hold in due if hold.answer is None]
        due.sort(key=lambda hold: (int(hold.fields["deadline_ms"]), hold.fields["id"]))
        for hold in due[:most]:
            self.expire(hold)
        return len(due[:most])

    def expire(self, hold: Hold) -> Reply:
        nothing = [0] * len(hold.lines)
        if hold.fields["on_expiry"] == "charge":
            try:
                quantities = [quantity for _, quantity in hold.lines]
                return self.end(hold, quantities, outcome="expired", digest="", keep_ms=ANSWER_KEPT_MS)
            except ReplyError:
                pass
        return self.end(hold, nothing, outcome="expired", digest="", keep_ms=ANSWER_KEPT_MS)

    def end(self, hold: Hold, quantities: list[int], *, outcome: str, digest: str, keep_ms: int) -> Reply:
        """The one end of a hold."""
        who, currency = hold.owner, hold.fields["currency"]
        at = self.at(who)
        lines = self.repriced(hold, quantities)
        total = sum(line.cost for line in lines)
        held = sum(hold.parts.values())
        beyond = who.plan(currency, at, amount=max(total - held, 0))
        collected = min(total, held) + sum(beyond.values())
        left, moved = min(total, held), dict[str, int]()
        for grant, nanos in hold.parts.items():
            used = min(nanos, left)
            left -= used
            who.held[grant] -= nanos
            who.remaining[grant] += nanos - used
            if used:
                moved[grant] = used
        for grant, nanos in beyond.items():
            who.remaining[grant] -= nanos
            moved[grant] = moved.get(grant, 0) + nanos
        left = collected
        for line in lines:
            paid = min(line.cost, left)
            line.cost, line.lost, left = paid, line.cost - paid, left - paid
        self.append("settle", who, body=hold.fields["body"], lines=lines, moved=moved, currency=currency)
        for tally in tallies(lines):
            who.write(tally)
        del who.holds[hold.fields["id"]]
        released = held - min(total, held)
        answer = outcome, 0, at, currency, collected, released, total - collected, who.balance(currency, at)
        hold.answer, hold.digest, hold.keep_ms = answer, digest, keep_ms
        if keep_ms == 0:
            del self.holds[hold.fields["id"]]
        return answer

    def repriced(self, hold: Hold, quantities: list[int]) -> list[Line]:
        """The hold's charges at today's prices, counted."""
        who, at, lines = hold.owner, self.at(hold.owner), list[Line]()
        features = who.snapshot.features if who.snapshot else {}
        by_name: dict[str, Tally] = {}
        for n, ((feature, held), quantity) in enumerate(zip(hold.lines, quantities, strict=True), 1):
            entitlement = features.get(feature)
            tariff = next(iter(entitlement.tariff), None) if entitlement else None
            if tariff is None or tariff.currency != hold.fields["currency"]:
                tariff = hold.promised[n].tariff[0] if n in hold.promised else None
            window = entitlement.window if entitlement else None
            line = Line(feature=feature, quantity=quantity, held=held, tariff=tariff)
            line.tally = by_name.setdefault(feature, who.tally(feature, window, at))
            if tariff:
                name = f"${tariff.price_id}"
                line.price = by_name.setdefault(name, who.tally(name, tariff.window, at))
            lines.append(line)
        for line in lines:
            tally, price = line.tally, line.price
            assert tally
            tally.more_used += line.quantity
            tally.more_held -= line.held
            if price and line.tariff:
                line.cost = debit(line.tariff, price.used + price.more_used, line.quantity)
                price.more_used += line.quantity
            spent = [tally.used + tally.more_used, price.used + price.more_used if price else 0, line.cost]
            if max(*spent, sum(earlier.cost for earlier in lines)) > LARGEST:
                raise ReplyError("OVERFLOW quantity")
        return lines

    # ---- the entry

    def append(
        self, kind: str, who: Customer, *, body: bytes, lines: list[Line], moved: dict[str, int], currency: str
    ) -> None:
        if any(line.quantity for line in lines):
            columns = {"q": [x.quantity for x in lines], "c": [x.cost for x in lines], "u": [x.lost for x in lines]}
            texts = {name: " ".join(map(str, column)) for name, column in columns.items()}
            head = {"k": kind, "b": body, "at": self.at(who), "e": str(self.epoch)}
            self.stream.append(head | texts | {"m": movements(moved), "w": currency})

    # ---- upkeep

    def grant(self, who: Customer, currency: str, *, amount: int, grant: Grant) -> Reply:
        self.need_epoch()
        if grant[0] in who.granted:
            return 0
        listed = who.order.get(currency, [])
        if amount + sum(who.remaining[known[0]] + who.held[known[0]] for known in listed) > LARGEST:
            raise ReplyError("OVERFLOW wallet")
        alive = [known for known in listed if who.remaining[known[0]] + who.held[known[0]] > 0]
        who.order[currency] = sorted([*alive, grant], key=burn_rank)
        who.remaining[grant[0]], who.held[grant[0]], who.granted[grant[0]] = amount, 0, amount
        return 1

    def lapse(self, who: Customer, currency: str, *, grant_id: str, kind: str, body: bytes) -> Reply:
        self.need_epoch()
        listed = who.order.get(currency, [])
        found = [grant for grant in listed if grant[0] == grant_id]
        if kind == "expire" and any(grant[2] == 0 or self.at(who) < grant[2] for grant in found):
            return 0
        nanos = who.remaining.get(grant_id, 0)
        if nanos:
            fields = {"k": "lapse", "b": body, "at": self.at(who), "m": f"{grant_id}={nanos}", "w": currency}
            self.stream.append(fields | {"e": str(self.epoch)})
            who.remaining[grant_id] = 0
        if found:
            who.order[currency] = [grant for grant in listed if grant[0] != grant_id]
            if not who.order[currency]:
                del who.order[currency]
        return nanos

    def project(self, who: Customer, snapshot: Snapshot) -> Reply:
        self.need_epoch()
        if who.snapshot and who.snapshot.version >= snapshot.version:
            return 0
        who.snapshot = snapshot
        return 1

    def ingest(self, key: str, *, digest: str, window_ms: int, body: bytes, offset_ms: int) -> Reply:
        self.need_epoch()
        if key in self.events:
            return 0 if self.events[key][0] == digest else -1
        at = Near(self.clock_ms + offset_ms)
        self.stream.append({"k": "event", "b": body, "at": at, "e": str(self.epoch)})
        self.events[key] = digest, window_ms
        return 1

    # ---- every key

    def dump(self) -> dict[str, Any]:
        """What Valkey must hold, as `Desk.dump` tells it."""
        keys = self.customers[0].keys
        open_holds = {name: hold for name, hold in self.holds.items() if hold.answer is None}
        content: dict[str, Any] = {
            keys.epoch: None if self.epoch is None else str(self.epoch),
            keys.stream: self.stream,
            keys.shard_holds: {name: hold.fields["deadline_ms"] for name, hold in open_holds.items()},
        }
        for who in self.customers:
            content |= self.dump_customer(who)
        for name, hold in self.holds.items():
            content[hold_key(name, keys.shard)] = dump_hold(hold)
        content |= {key: (digest, Near(window_ms)) for key, (digest, window_ms) in self.events.items()}
        return {key: value for key, value in content.items() if value}

    def dump_customer(self, who: Customer) -> dict[str, Any]:
        keys, snapshot, projected = who.keys, who.snapshot, dict[str, Any]()
        if snapshot:
            packed = snapshot_fields(snapshot)
            projected = {"v": snapshot.version, "st": snapshot.status.value, "off": snapshot.clock_offset_ms}
            projected |= dict(zip(packed[::2], packed[1::2], strict=True))
        orders = {f"o:{currency}": tuple(order) for currency, order in who.order.items()}
        remaining = {f"r:{grant}": nanos for grant, nanos in who.remaining.items()}
        held = {f"h:{grant}": nanos for grant, nanos in who.held.items()}
        content = {
            keys.snapshot: projected,
            keys.counters: who.counters,
            keys.wallet: orders | remaining | held,
            keys.holds: who.holds,
        }
        for key, (answer, window_ms) in who.answers.items():
            content[keys.idempotency_prefix + key] = answer, Near(window_ms)
        return content


def movements(parts: dict[str, int]) -> str:
    return " ".join(f"{grant}={nanos}" for grant, nanos in parts.items())


def dump_hold(hold: Hold) -> Any:
    if not isinstance(hold.answer, tuple):
        promised = {f"promised:{n}": packed(entitlement) for n, entitlement in hold.promised.items()}
        return hold.fields | promised
    names = "state", "replayed", "at", "currency", "charged", "released", "uncollected", "balance"
    fields = dict(zip(names, hold.answer, strict=True)) | {"digest": hold.digest}
    del fields["replayed"]
    return fields, Near(hold.keep_ms)


def packed(entitlement: Entitlement) -> bytes:
    one = Snapshot(version=0, status=Status.ACTIVE, clock_offset_ms=0, features={"x": entitlement})
    return bytes(snapshot_fields(one)[1])
