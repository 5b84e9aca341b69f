"""A shard as the model keeps it: what is remembered, what is appended, and what becomes of holds."""

from __future__ import annotations

from typing import Any

from desk import Near, Reply

from billing_core.contract.keys import CustomerKeys
from model.counting import LARGEST
from model.customer import Charges, Customer, Parts, ReplyError
from model.decision import Decision, Line
from model.hold import DAY_MS, Charged, Extension, Hold, charge_hold, extended

SOON_MS = 1_000


class Book:
    """Holds, answers and the stream of one shard. `real_ms` is the instant at which a script ran."""

    def __init__(self, customers: list[CustomerKeys], real_ms: int) -> None:
        self.real_ms = real_ms
        self.epoch: int | None = None
        self.customers = [Customer(keys=keys) for keys in customers]
        self.holds: dict[str, Hold] = {}
        self.stream: list[dict[str, Any]] = []
        self.events: dict[str, tuple[dict[str, str], int]] = {}

    def at(self, who: Customer) -> int:
        return self.real_ms + (who.snapshot.clock_offset_ms if who.snapshot else 0)

    def need_epoch(self) -> None:
        if self.epoch is None:
            raise ReplyError("UNAVAILABLE epoch")

    def first_answer(self, who: Customer, key: str, digest: str) -> tuple[Any, ...]:
        (known, reply, *_), _ = who.answers[key]
        if known != digest:
            raise ReplyError("CONFLICT idempotency")
        return (reply[0], 1, *reply[2:])

    def is_charged(self, who: Customer, key: str, digest: str) -> bool:
        """Whether something was allowed under the key; a refusal hinders no work that was done."""
        return key in who.answers and self.first_answer(who, key, digest)[0] == "allowed"

    def remember(
        self, who: Customer, key: str, *, digest: str, window_ms: int, reply: Reply, part: Reply | None = None
    ) -> Reply:
        if window_ms:
            who.answers[key] = (digest, reply) if part is None else (digest, reply, part), window_ms
        return reply

    def refused(self, who: Customer, memory: tuple[str, str, int, int], reply: tuple[Any, ...]) -> Reply:
        """Keep a refusal until there is room again, where that is told; never longer than `memory` says."""
        key, digest, window_ms, refusal_ms = memory
        kept_ms = min(window_ms, refusal_ms)
        room_ms = SOON_MS if reply[0] == "concurrency_limited" else reply[11]
        if reply[0] != "unavailable":
            self.remember(who, key, digest=digest, window_ms=min(kept_ms, room_ms or kept_ms), reply=reply)
        return reply

    # ---- what becomes of holds

    def extend(
        self, hold_id: str, charges: Charges, *, who: Customer, memory: tuple[str, str, int, int], ttl_ms: int
    ) -> Reply:
        key, digest, window_ms, _ = memory
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
                return self.refused(who, memory, reply)
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
        memory: tuple[str, str, int, int],
        body: bytes,
        ttl_ms: int,
    ) -> Reply:
        key, digest, window_ms, _ = memory
        self.need_epoch()
        if window_ms and self.is_charged(who, key, digest):
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
        lent = [(one.outage_units, one.plan) if (one := line.entitlement) else (0, "") for line in named]
        rows = [(-1, -1, 0, line.rated, "", line.currency, *ends) for line, ends in zip(named, lent, strict=True)]
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

    def settle(self, hold_id: str, charges: Charges, *, digest: str, keep_ms: int, body: bytes = b"") -> Reply:
        self.need_epoch()
        hold = self.holds.get(hold_id)
        if hold is None:
            return "not_found", 0, Near(self.real_ms), "", 0, 0, 0, 0
        if hold.answer is not None and not (hold.may_be_late and hold.epoch == self.epoch):
            if hold.answer[0] in ("settled", "late") and hold.digest != digest:
                return "conflict", 0, Near(self.real_ms), "", 0, 0, 0, 0
            return (hold.answer[0], 1, *hold.answer[2:])
        quantities = [one.units for one in hold.kept]
        if len(charges) == 1 and charges[0][0] == "":
            charges = [(hold.kept[0].feature, charges[0][1])]
        for place, (_, quantity) in zip(hold.places(charges), charges, strict=True):
            quantities[place] = quantity
        if hold.answer is None and hold.is_due:
            ended = self.expire(hold)
            if not hold.may_be_late:
                return ended
        outcome = "settled" if hold.answer is None else "late"
        return self.end(hold, quantities, outcome=outcome, digest=digest, keep_ms=keep_ms, body=body)

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
        hold.may_be_late, hold.epoch = True, self.epoch
        return answer

    def end(
        self, hold: Hold, quantities: list[int], *, outcome: str, digest: str, keep_ms: int, body: bytes = b""
    ) -> Reply:
        """The one end of a hold."""
        done = self.charge(hold, quantities, is_end=True)
        self.append_settled(hold, done.lines, done, body=body, is_end=True)
        hold.owner.holds.pop(hold.hold_id, None)
        hold.answer = outcome, 0, Near(self.at(hold.owner)), hold.currency, *done.amounts(hold)
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


def movements(parts: dict[str, int]) -> str:
    return " ".join(f"{grant}={nanos}" for grant, nanos in parts.items())


def numbered(number: int) -> dict[str, str]:
    return {"n": str(number)} if number else {}


def undecided(charges: Charges, reason: str, *, at: int, would: str = "") -> tuple[Any, ...]:
    """The reply where nothing was looked at."""
    head = (reason, 0, 0, "", "", at, "", 0, 0, 0, "", 0, would)
    return (*head, *(-1, -1, 0, 0, "", "", 0, "") * len(charges))
