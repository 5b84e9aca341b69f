"""The scripts once more, in plain Python: what every reply and every key must be.

Nothing here is fast or atomic; it says the same thing in the simplest way. Prices are fractions, error replies are
raised. A customer's state is kept as Valkey keeps it, so that every key can be compared. `real_ms` is the instant
at which the script ran, which its reply tells.
"""

from __future__ import annotations

from typing import Any

from desk import Near, Reply

from billing_core.contract.keys import CustomerKeys, hold_key
from billing_core.contract.snapshot import Snapshot, snapshot_fields
from model.counting import LARGEST
from model.customer import Charges, Customer, Grant, Node, Parts, ReplyError, burn_rank
from model.decision import Decision, Line
from model.hold import DAY_MS, Charged, Extension, Hold, charge_hold, extended, placed


def _ended(grant: Grant) -> Grant:
    """An overdraft that is void and not repaid: as if it had expired long ago."""
    return (*grant[:2], 1, *grant[3:])


class Model:
    """One shard with its customers."""

    def __init__(self, customers: list[CustomerKeys], real_ms: int) -> None:
        self.real_ms = real_ms
        self.epoch: int | None = None
        self.customers = [Customer(keys=keys) for keys in customers]
        self.holds: dict[str, Hold] = {}
        self.stream: list[dict[str, Any]] = []
        self.events: dict[str, tuple[str, int]] = {}

    def at(self, who: Customer) -> int:
        return self.real_ms + (who.snapshot.clock_offset_ms if who.snapshot else 0)

    def need_epoch(self) -> None:
        if self.epoch is None:
            raise ReplyError("UNAVAILABLE epoch")

    # ---- decisions

    def decide(
        self,
        who: Customer,
        charges: Charges,
        *,
        mode: str,
        memory: tuple[str, str, int],
        body: bytes,
        path: str = "",
        shadow: bool = False,
        late: bool = False,
    ) -> Reply:
        """Consume or record; `memory` is idempotency key, digest and window."""
        key, digest, window_ms = memory
        self.need_epoch()
        if window_ms and key in who.answers:
            return self.first_answer(who, key, digest)
        if late:
            return self.late_reply(who, charges)
        self.sweep_due(list(who.holds))
        decision = Decision(who, charges, at=self.at(who), path=path, mode=mode, shadow=shadow)
        if decision.reason != "allowed":
            return decision.reply()
        if decision.would:
            self.append_shadow(decision, body)
        else:
            decision.commit(self.real_ms)
            self.append("debit", who, body=body, lines=decision.lines, moved=decision.moved)
        return self.remember(who, key, digest=digest, window_ms=window_ms, reply=decision.reply())

    def peek(self, who: Customer, charges: Charges, *, path: str = "") -> Reply:
        self.need_epoch()
        return Decision(who, charges, at=self.at(who), path=path, mode="peek").reply()

    def hold(
        self,
        who: Customer,
        charges: Charges,
        *,
        memory: tuple[str, str, int],
        body: bytes,
        terms: tuple[str, int, str],
        path: str = "",
        shadow: bool = False,
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
        decision = Decision(who, charges, at=self.at(who), path=path, mode="hold", shadow=shadow)
        if decision.reason != "allowed":
            return decision.reply()
        deadline_ms = self.real_ms + ttl_ms
        terms_of = {"hold_id": hold_id, "deadline_ms": deadline_ms, "on_expiry": on_expiry}
        hold = placed(decision, path=path, body=body, shadow=shadow, **terms_of)
        if decision.would:
            self.append_shadow(decision, body)
        else:
            decision.commit(self.real_ms)
        self.holds[hold_id] = hold
        who.holds[hold_id] = deadline_ms
        reply = decision.reply(deadline_ms, hold_id)
        return self.remember(who, key, digest=digest, window_ms=window_ms, reply=reply)

    def late_reply(self, who: Customer, charges: Charges) -> Reply:
        return undecided(charges, "unavailable", at=self.at(who))

    def first_answer(self, who: Customer, key: str, digest: str) -> Reply:
        (known, reply, *_), _ = who.answers[key]
        if known != digest:
            raise ReplyError("CONFLICT idempotency")
        return (reply[0], 1, *reply[2:])

    def remember(
        self, who: Customer, key: str, *, digest: str, window_ms: int, reply: Reply, part: Reply | None = None
    ) -> Reply:
        if window_ms:
            who.answers[key] = (digest, reply) if part is None else (digest, reply, part), window_ms
        return reply

    # ---- what becomes of holds

    def extend(
        self, hold_id: str, charges: Charges, *, who: Customer, memory: tuple[str, str, int], ttl_ms: int
    ) -> Reply:
        key, digest, window_ms = memory
        self.need_epoch()
        if window_ms and key in who.answers:
            return self.first_answer(who, key, digest)
        hold, state = self.find(hold_id)
        if hold is None:
            return undecided(charges, state, at=Near(self.real_ms))
        places = hold.places(charges)
        self.sweep_due(list(who.holds))
        if hold.would:
            for place, (_, quantity) in zip(places, charges, strict=True):
                if hold.kept[place].units + quantity > LARGEST:
                    raise ReplyError("OVERFLOW quantity")
            for place, (_, quantity) in zip(places, charges, strict=True):
                hold.kept[place].units += quantity
            self.prolong(hold, ttl_ms)
            told = undecided(charges, "allowed", at=self.at(who), would=hold.would)
            reply: Reply = (*told[:9], hold.deadline_ms, hold_id, *told[11:])
        else:
            decision = Extension(hold, charges, places, at=self.at(who))
            if decision.reason == "allowed":
                self.extend_by(hold, decision, places)
                self.prolong(hold, ttl_ms)
            reply = decision.reply(hold.deadline_ms, hold_id)
            if decision.reason != "allowed":
                return reply
        return self.remember(who, key, digest=digest, window_ms=window_ms, reply=reply)

    def extend_by(self, hold: Hold, decision: Extension, places: list[int]) -> None:
        """Add it, or say what shadow mode would have refused."""
        if decision.would:
            self.append_shadow(decision, hold.body, number=hold.next_number())
            return
        for one, line in zip(decision.kept, decision.lines, strict=True):
            if max(one.units + line.quantity, one.nanos + line.rated) > LARGEST:
                raise ReplyError("OVERFLOW quantity")
        extended(hold, decision, places)
        decision.commit(self.real_ms)

    def part(
        self,
        hold_id: str,
        charges: Charges,
        *,
        who: Customer,
        memory: tuple[str, str, int],
        body: bytes,
        ttl_ms: int,
    ) -> Reply:
        key, digest, window_ms = memory
        self.need_epoch()
        if window_ms and key in who.answers:
            return self.given_way(who, key, digest)
        hold, state = self.find(hold_id)
        if hold is None:
            return state, 0, Near(self.real_ms), "", 0, 0, 0, 0, 0
        places, quantities = hold.places(charges), [0] * len(hold.kept)
        for place, (_, quantity) in zip(places, charges, strict=True):
            quantities[place] = quantity
        done = self.charge(hold, quantities, is_end=False)
        listed = [done.lines[place] for place in places] if body else done.lines
        self.append_settled(hold, listed, done, body=body, is_end=False)
        for one, line, rest in zip(hold.kept, done.lines, done.rests, strict=True):
            one.units, one.nanos = max(0, one.units - line.quantity), max(0, one.nanos - line.rated)
            one.parts = rest
        self.prolong(hold, ttl_ms)
        at, named = self.at(who), [done.lines[place] for place in places]
        amounts = done.amounts(hold)
        answer = "charged", 0, at, hold.currency, *amounts, hold.deadline_ms
        cost = sum(line.rated for line in named if line.currency == hold.currency)
        decision = ("allowed", 0, 0, "", "", at, hold.currency, cost, amounts[3], 0, "", 0, "")
        rows = [(-1, -1, 0, line.rated, "", line.currency, 0) for line in named]
        decision = (*decision, *(value for row in rows for value in row))
        self.remember(who, key, digest=digest, window_ms=window_ms, reply=decision, part=answer)
        return answer

    def given_way(self, who: Customer, key: str, digest: str) -> Reply:
        """The first answer to the part, or what a decision under its key comes to."""
        (known, decision, *parts), _ = who.answers[key]
        if known != digest:
            raise ReplyError("CONFLICT idempotency")
        if parts:
            return (parts[0][0], 1, *parts[0][2:])
        return "decided", 1, decision[5], decision[6], decision[7], 0, 0, decision[8], 0

    def find(self, hold_id: str) -> tuple[Hold | None, str]:
        """The hold where it is open, and its state; one that is due ends."""
        hold = self.holds.get(hold_id)
        if hold is None:
            return None, "not_found"
        if hold.answer is None and hold.is_due:
            self.expire(hold)
        return (hold, "open") if hold.answer is None else (None, str(hold.answer[0]))

    def prolong(self, hold: Hold, ttl_ms: int) -> None:
        if ttl_ms and self.real_ms + ttl_ms > hold.deadline_ms:
            hold.deadline_ms = hold.owner.holds[hold.hold_id] = self.real_ms + ttl_ms

    # ---- ends of holds

    def settle(self, hold_id: str, charges: Charges, *, digest: str, keep_ms: int) -> Reply:
        self.need_epoch()
        hold = self.holds.get(hold_id)
        if hold is None:
            return "not_found", 0, Near(self.real_ms), "", 0, 0, 0, 0
        if hold.answer is not None and not hold.may_be_late:
            if hold.answer[0] in ("settled", "late") and hold.digest != digest:
                return "conflict", 0, Near(self.real_ms), "", 0, 0, 0, 0
            return (hold.answer[0], 1, *hold.answer[2:])
        quantities = [one.units for one in hold.kept]
        for place, (_, quantity) in zip(hold.places(charges), charges, strict=True):
            quantities[place] = quantity
        if hold.answer is None and hold.is_due:
            ended = self.expire(hold)
            if not hold.may_be_late:
                return ended
        outcome = "settled" if hold.answer is None else "late"
        return self.end(hold, quantities, outcome=outcome, digest=digest, keep_ms=keep_ms)

    def release(self, hold_id: str, *, keep_ms: int) -> Reply:
        self.need_epoch()
        hold = self.holds.get(hold_id)
        if hold is None:
            return "not_found", 0, Near(self.real_ms), "", 0, 0, 0, 0
        if hold.answer is not None:
            return (hold.answer[0], 1, *hold.answer[2:])
        if hold.is_due:
            return self.expire(hold)
        return self.end(hold, [0] * len(hold.kept), outcome="released", digest="", keep_ms=keep_ms)

    def sweep(self, most: int) -> Reply:
        self.need_epoch()
        return self.sweep_due(list(self.holds), most)

    def sweep_due(self, candidates: list[str], most: int = 100) -> int:
        """Ends in order of deadline, then id."""
        due = [self.holds[hold_id] for hold_id in candidates if self.holds[hold_id].is_due]
        due = [hold for hold in due if hold.answer is None]
        due.sort(key=lambda hold: (int(hold.deadline_ms), hold.hold_id))
        for hold in due[:most]:
            self.expire(hold)
        return len(due[:most])

    def expire(self, hold: Hold) -> Reply:
        if hold.on_expiry == "charge":
            try:
                quantities = [one.units for one in hold.kept]
                return self.end(hold, quantities, outcome="expired", digest="", keep_ms=DAY_MS)
            except ReplyError:
                pass
        answer = self.end(hold, [0] * len(hold.kept), outcome="expired", digest="", keep_ms=DAY_MS)
        hold.may_be_late = True
        return answer

    def end(self, hold: Hold, quantities: list[int], *, outcome: str, digest: str, keep_ms: int) -> Reply:
        """The one end of a hold."""
        done = self.charge(hold, quantities, is_end=True)
        self.append_settled(hold, done.lines, done, body=b"", is_end=True)
        hold.owner.holds.pop(hold.hold_id, None)
        hold.answer = outcome, 0, self.at(hold.owner), hold.currency, *done.amounts(hold)
        hold.digest, hold.keep_ms, hold.may_be_late = digest, keep_ms, False
        if keep_ms == 0:
            del self.holds[hold.hold_id]
        return hold.answer

    def charge(self, hold: Hold, quantities: list[int], *, is_end: bool) -> Charged:
        """Nothing of a hold that shadow mode placed empty."""
        if hold.would:
            lines = [Line(feature=one.feature, quantity=n) for one, n in zip(hold.kept, quantities, strict=True)]
            return Charged(lines=lines, moved={}, rests=[[] for _ in lines], balance=0)
        at = self.at(hold.owner)
        return charge_hold(hold, quantities, at=at, real_ms=self.real_ms, is_end=is_end)

    def append_settled(self, hold: Hold, lines: list[Line], done: Charged, *, body: bytes, is_end: bool) -> None:
        """What a part or an end appends; under the hold's body each but a charged end has a number."""
        has_number = not body and (bool(hold.would) or not is_end)
        number = hold.number + 1 if has_number else 0
        if has_number and not is_end:
            hold.number += 1
        if hold.would:
            self.append_unmade(hold, lines, body=body or hold.body, number=number)
        else:
            self.append("settle", hold.owner, body=body or hold.body, lines=lines, moved=done.moved, number=number)

    # ---- the entry

    def append(
        self, kind: str, who: Customer, *, body: bytes, lines: list[Line], moved: Parts, number: int = 0
    ) -> None:
        if any(line.quantity or line.is_gauge for line in lines):
            columns = {
                "q": [line.quantity for line in lines],
                "c": [line.charged for line in lines],
                "u": [line.lost for line in lines],
                "s": [line.rated for line in lines],
                "w": [line.currency or "-" for line in lines],
            }
            texts = {name: " ".join(map(str, column)) for name, column in columns.items()}
            head = {"k": kind, "b": body, "at": Near(self.at(who)), "e": str(self.epoch)}
            self.stream.append(head | texts | {"m": movements(moved)} | numbered(number))

    def append_shadow(self, decision: Decision, body: bytes, *, number: int = 0) -> None:
        quantities = [-line.quantity if line.sign == "-" else line.quantity for line in decision.lines]
        fields = {"k": "shadow", "b": body, "at": Near(decision.at), "e": str(self.epoch)}
        told = {"q": " ".join(map(str, quantities)), "r": decision.would, "l": decision.told[2]}
        self.stream.append(fields | told | numbered(number))

    def append_unmade(self, hold: Hold, lines: list[Line], *, body: bytes, number: int) -> None:
        """What an empty hold of shadow mode would have charged."""
        if any(line.quantity for line in lines):
            fields = {"k": "shadow", "b": body, "at": Near(self.at(hold.owner)), "e": str(self.epoch)}
            told = {"q": " ".join(str(line.quantity) for line in lines), "r": hold.would, "l": hold.level}
            self.stream.append(fields | told | numbered(number))

    # ---- upkeep

    def grant(self, who: Customer, currency: str, *, amount: int, grant: Grant, body: bytes) -> Reply:
        self.need_epoch()
        if grant[0] in who.granted:
            return 0
        listed, at = who.order.get(currency, []), self.at(who)
        if amount + sum(who.remaining[known[0]] + who.held[known[0]] for known in listed) > LARGEST:
            raise ReplyError("OVERFLOW wallet")
        stays = [one for one in listed if who.remaining[one[0]] + who.held[one[0]] > 0 or one[4] == 2]
        who.order[currency] = sorted([*stays, grant], key=burn_rank)
        who.remaining[grant[0]], who.held[grant[0]], who.granted[grant[0]] = amount, 0, amount
        if grant[4] == 2:
            who.lent[grant[0]] = amount
        if grant[4] == 1 and not grant[6] and grant[1] <= at and (grant[2] == 0 or at < grant[2]):
            self.repay(who, currency, grant_id=grant[0], body=body)
        return 1

    def repay(self, who: Customer, currency: str, *, grant_id: str, body: bytes) -> None:
        """The grant pays back what is drawn of overdrafts, in burn order."""
        moved: Parts = {grant_id: 0}
        for one in who.order[currency]:
            drawn = who.lent.get(one[0], 0) - who.remaining[one[0]] - who.held[one[0]] if one[4] == 2 else 0
            part = min(drawn, who.remaining[grant_id])
            if part > 0:
                moved[one[0]] = -part
                moved[grant_id] += part
                who.remaining[one[0]] += part
                who.remaining[grant_id] -= part
        if moved[grant_id]:
            fields = {"k": "repay", "b": body, "at": Near(self.at(who)), "m": movements(moved), "w": currency}
            self.stream.append(fields | {"e": str(self.epoch)})

    def lapse(
        self, who: Customer, currency: str, *, grant_id: str, kind: str, body: bytes, limit: int = 0
    ) -> Reply:
        self.need_epoch()
        listed = who.order.get(currency, [])
        found = [grant for grant in listed if grant[0] == grant_id]
        if kind == "expire" and any(grant[2] == 0 or self.at(who) < grant[2] for grant in found):
            return 0
        nanos, lent = who.remaining.get(grant_id, 0), who.lent.get(grant_id)
        if kind == "lower":
            if lent is None:
                return 0
            nanos = max(0, min(nanos, lent - limit))
        if nanos:
            fields = {"k": "lapse", "b": body, "at": Near(self.at(who)), "m": f"{grant_id}={nanos}", "w": currency}
            self.stream.append(fields | {"e": str(self.epoch)})
            who.remaining[grant_id] -= nanos
            if lent is not None:
                who.lent[grant_id] = lent - nanos
        if found:
            stays = [_ended(grant) if kind == "void" else grant for grant in found if who.lent.get(grant_id, 0) > 0]
            others = [grant for grant in listed if grant[0] != grant_id]
            who.order[currency] = sorted([*others, *stays], key=burn_rank)
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
        at = Near(self.real_ms + offset_ms)
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
            keys.shard_holds: {name: hold.deadline_ms for name, hold in open_holds.items()},
        }
        for who in self.customers:
            content |= self.dump_customer(who)
        for name, hold in self.holds.items():
            content[hold_key(name, keys.shard)] = hold.dump()
        content |= {key: (digest, Near(window_ms)) for key, (digest, window_ms) in self.events.items()}
        return {key: value for key, value in content.items() if value}

    def dump_customer(self, who: Customer) -> dict[str, Any]:
        keys, snapshot, projected = who.keys, who.snapshot, dict[str, Any]()
        if snapshot:
            packed = snapshot_fields(snapshot)
            projected = {"v": snapshot.version, "st": snapshot.status.value, "off": snapshot.clock_offset_ms}
            projected |= dict(zip(packed[::2], packed[1::2], strict=True))
        orders = {f"o:{currency}": tuple(order) for currency, order in who.order.items()}
        amounts = {"r:": who.remaining, "h:": who.held, "a:": who.lent}
        wallet = {sort + grant: nanos for sort, held in amounts.items() for grant, nanos in held.items()}
        content: dict[str, Any] = {keys.snapshot: projected, keys.wallet: orders | wallet, keys.holds: who.holds}
        for level, node in who.nodes.items():
            content |= self.dump_node(keys.counters if level == "customer" else f"{keys.counters}/{level}", node)
        for key, (answer, window_ms) in who.answers.items():
            content[keys.idempotency_prefix + key] = answer, Near(window_ms)
        return content

    def dump_node(self, name: str, node: Node) -> dict[str, Any]:
        if node.expires_ms is None or not node.fields:
            return {name: node.fields}
        left_ms = node.expires_ms - self.real_ms
        return {name: (node.fields, Near(left_ms))} if left_ms > 0 else {}


def movements(parts: dict[str, int]) -> str:
    return " ".join(f"{grant}={nanos}" for grant, nanos in parts.items())


def numbered(number: int) -> dict[str, str]:
    return {"n": str(number)} if number else {}


def undecided(charges: Charges, reason: str, *, at: int, would: str = "") -> tuple[Any, ...]:
    """The reply where nothing was looked at."""
    head = (reason, 0, 0, "", "", at, "", 0, 0, 0, "", 0, would)
    return (*head, *(-1, -1, 0, 0, "", "", 0) * len(charges))
