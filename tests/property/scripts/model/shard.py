"""The scripts once more, in plain Python: what every reply and every key must be.

Nothing here is fast or atomic; it says the same thing in the simplest way. Prices are fractions, error replies are
raised. A customer's state is kept as Valkey keeps it, so that every key can be compared. `real_ms` is the instant
at which the script ran, which its reply tells.
"""

from __future__ import annotations

from typing import Any

from desk import Near, Reply

from billing_core.contract.keys import hold_key
from billing_core.contract.snapshot import Snapshot, snapshot_fields
from model.book import Book, movements, undecided
from model.counting import LARGEST
from model.customer import Charges, Customer, Grant, Node, Parts, ReplyError, burn_rank
from model.decision import Decision
from model.hold import placed

EVENT_SPAN_MS = 2**30
"""Ids of events are kept in a hash for each span of so long."""


def _ended(grant: Grant) -> Grant:
    """An overdraft that is void and not repaid: as if it had expired long ago."""
    return (*grant[:2], 1, *grant[3:])


class Model(Book):
    """One shard with its customers."""

    # ---- decisions

    def decide(
        self,
        who: Customer,
        charges: Charges,
        *,
        mode: str,
        memory: tuple[str, str, int, int],
        body: bytes,
        path: str = "",
        shadow: bool = False,
        late: bool = False,
    ) -> Reply:
        """Consume or record; `memory` is idempotency key, digest, window and how long a refusal is kept at most."""
        key, digest, window_ms, _ = memory
        self.need_epoch()
        stands = self.is_charged(who, key, digest) if window_ms and mode == "record" else key in who.answers
        if window_ms and stands:
            return self.first_answer(who, key, digest)
        if late:
            return self.late_reply(who, charges)
        self.sweep_due(list(who.holds))
        decision = Decision(who, charges, at=self.at(who), path=path, mode=mode, shadow=shadow)
        if decision.reason != "allowed":
            return self.refused(who, memory, decision.reply())
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
        memory: tuple[str, str, int, int],
        body: bytes,
        terms: tuple[str, int, str],
        path: str = "",
        shadow: bool = False,
    ) -> Reply:
        """`terms` are hold id, ttl and what happens on expiry."""
        key, digest, window_ms, _ = memory
        hold_id, ttl_ms, on_expiry = terms
        self.need_epoch()
        if window_ms and key in who.answers:
            return self.first_answer(who, key, digest)
        if hold_id in self.holds:
            raise ReplyError("CONFLICT hold")
        self.sweep_due(list(who.holds))
        decision = Decision(who, charges, at=self.at(who), path=path, mode="hold", shadow=shadow)
        if decision.reason != "allowed":
            return self.refused(who, memory, decision.reply())
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

    def ingest(
        self, key: str, events: list[tuple[str, str]], *, window_ms: int, body: bytes, offset_ms: int
    ) -> Reply:
        self.need_epoch()
        span, taken = self.real_ms // EVENT_SPAN_MS, ""
        known = dict(self.events.get(f"{key}{span}", ({}, 0))[0])
        for event_id, digest in events:
            taken += "a" if event_id not in known else "d" if known[event_id] == digest else "c"
            known.setdefault(event_id, digest)
        if "a" in taken:
            at, left_out = Near(self.real_ms + offset_ms), [str(n) for n, one in enumerate(taken) if one != "a"]
            entry = {"k": "event", "b": body, "at": at, "e": str(self.epoch)}
            self.stream.append(entry | ({"d": " ".join(left_out)} if left_out else {}))
            self.events[f"{key}{span}"] = known, (span + 1) * EVENT_SPAN_MS + window_ms
        return (taken,)

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
        content |= {key: (known, Near(until_ms - self.real_ms)) for key, (known, until_ms) in self.events.items()}
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
