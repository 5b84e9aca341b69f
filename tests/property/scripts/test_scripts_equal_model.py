"""The scripts against their model: every reply and every key, after every step.

The machine plays two customers of one shard. Instants lie on a grid of hours around the start and the clock only
jumps by whole days, so that no window turns while a step runs; holds are either long, or so short that the machine
waits until they are due. The model is told the instant that a reply names, so that rates are equal to the unit.
"""

from __future__ import annotations

from typing import Any

from desk import Desk, Reply, decision_keys, grant_keys, hold_keys, neighbours, part_keys
from drawing import (
    DAY,
    FEATURES,
    HOUR,
    LARGEST,
    budgets,
    charge_lists,
    days,
    entitlements,
    indexes,
    one_in,
    paths,
    signed_lists,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model.book import SOON_MS
from model.customer import Customer, ReplyError
from model.shard import Model

from billing_core.contract.keys import event_ids_key, hold_key
from billing_core.contract.snapshot import Snapshot, Status, snapshot_fields
from billing_core.contract.usage_event import EventBody, StreamPosition, decode_entry, encode_body

TENANT = "acme"
LONG_MS = 50 * HOUR
GRANTS = tuple(f"grant_{n}" for n in range(8))
idempotency_keys = st.sampled_from(["", "", "", "k1", "k2"])
refusals_ms = st.sampled_from([LONG_MS, LONG_MS, 1, 0])

Terms = tuple[int, int, int, int]

UPKEEP: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "project": {
        "index": indexes,
        "status": st.sampled_from([Status.ACTIVE] * 7 + [Status.SUSPENDED]),
        "days_on": st.sampled_from([0, 0, 1, 2]),
    },
    "switch_epoch": {"epoch": st.sampled_from([None, 7, 8, 9])},
    "grant": {
        "index": indexes,
        "grant_id": st.sampled_from(GRANTS),
        "currency": st.sampled_from(["USD"] * 7 + ["EUR"]),
        "amount": st.sampled_from([0, 10, 50, 50, 200, 200, 600, 600, 3000, LARGEST - 9000]),
        "terms": st.tuples(st.integers(0, 2), days, st.integers(-1, 4), st.sampled_from([0, 1, 1, 2])),
        "features": st.sampled_from(["", "", "", "calls", "tokens calls"]),
    },
    "lapse": {
        "index": indexes,
        "grant_id": st.sampled_from(GRANTS),
        "currency": st.sampled_from(["USD", "USD", "USD", "EUR"]),
        "kind": st.sampled_from(["expire", "expire", "void", "lower", "lower"]),
        "limit": st.sampled_from([0, 40, 150, 500]),
    },
    "sweep": {"most": st.sampled_from([1, 2, 1000])},
    "ingest": {
        "events": st.lists(
            st.tuples(st.sampled_from(["x1", "x2", "x3", "x4"]), st.sampled_from("aab")), min_size=1, max_size=4
        ),
        "days_on": st.integers(0, 3),
    },
}


UPKEEP_ACTS = ["grant"] * 4 + ["lapse"] * 3 + ["project"] * 3 + ["sweep"] * 2 + ["ingest", "switch_epoch"]


class ScriptMachine(RuleBasedStateMachine):
    """Runs each act at the desk and in the model."""

    desk: Desk

    def __init__(self) -> None:
        super().__init__()
        self.desk.clear()
        self.names = neighbours(TENANT)
        self.start_ms = self.desk.now_ms()
        self.model = Model(self.names, self.start_ms)
        self.version = self.number = 0
        self.hold_ids: list[str] = []
        self.first: dict[object, Reply] = {}

    # ---- how a step is compared

    def compare(self, real: Reply, act: Any, *, at_place: int = -1, who: Customer | None = None) -> Reply:
        """The model acts too, at the instant that the reply names, and says the same.

        A shard that was lost is built again after one refusal.
        """
        self.model.real_ms = self.desk.now_ms()
        if who and isinstance(real, tuple) and real[0] not in ("conflict", "not_found"):
            self.model.real_ms = int(real[at_place]) - (who.snapshot.clock_offset_ms if who.snapshot else 0)
        try:
            told = act()
        except ReplyError as fault:
            told = str(fault)
        self.model.real_ms = self.desk.now_ms()
        assert real == told
        if told == "UNAVAILABLE epoch":
            self.switch_epoch(7)
        return real

    def recall(self, name: object, real: Reply) -> None:
        """A replayed answer is the first one to the last digit."""
        if isinstance(real, tuple) and real[1] == 1:
            known = self.first[name]
            assert isinstance(known, tuple)
            assert real == (known[0], 1, *known[2:])
        elif isinstance(real, tuple):
            self.first[name] = real

    def body(self, who: Customer, features: tuple[str, ...] = (), **more: str) -> bytes:
        self.number += 1
        customer_id = who.keys.snapshot.rpartition(":")[2]
        return encode_body(
            EventBody(
                event_id=f"e{self.number}", tenant_id=TENANT, customer_id=customer_id, features=features, **more
            )
        )

    def memory(self, key: str, digest: str, refusal_ms: int) -> tuple[str, str, int, int]:
        return key, digest, LONG_MS if key else 0, refusal_ms

    def let_pass(self, who: Customer, key: str) -> None:
        """A refusal that is kept for a moment is over before the next step."""
        name, (_, kept_ms) = who.keys.idempotency_prefix + key, who.answers.get(key, ((), LONG_MS))
        if kept_ms <= SOON_MS:
            assert self.desk.client.pttl(name) <= kept_ms
            self.desk.client.pexpire(name, 1)
            self.desk.wait_until(self.desk.now_ms() + 1)
            del who.answers[key]

    # ---- upkeep

    @initialize(data=st.data())
    def open_shop(self, data: st.DataObject) -> None:
        """Most runs begin with a shard, two snapshots and a grant each."""
        self.switch_epoch(7)
        for index in (0, 1):
            self.project(index, data, Status.ACTIVE, 0)
            grant_id = GRANTS[index]
            self.grant(index, grant_id, "USD", amount=700, terms=(0, -1, 2, 1), features="")

    @rule(
        data=st.data(),
        act=st.sampled_from(
            ["grant"] * 4 + ["lapse"] * 3 + ["sweep"] * 2 + ["ingest", "switch_epoch"] + ["project"] * 3
        ),
    )
    def keep_up(self, data: st.DataObject, act: str) -> None:
        """What the billing side does, and events of clients."""
        drawn = {name: data.draw(strategy, label=name) for name, strategy in UPKEEP[act].items()}
        if act == "project":
            drawn["data"] = data
        getattr(self, act)(**drawn)

    def switch_epoch(self, epoch: int | None) -> None:
        """The shard is lost, or built. What is lost is built again by the next step that is not refused."""
        name = self.names[0].epoch
        self.model.epoch = epoch
        if epoch is None:
            self.desk.client.delete(name)
        else:
            self.desk.client.set(name, epoch)

    def project(self, index: int, data: st.DataObject, status: Status, days_on: int) -> None:
        """A new snapshot; the clock goes on by whole days; sometimes the version is an old one."""
        who = self.model.customers[index]
        past_ms = who.snapshot.clock_offset_ms if who.snapshot else 0
        missing = data.draw(st.sampled_from([*FEATURES, "", "", "", "", "", "", "", ""]), label="missing")
        self.version += 0 if data.draw(one_in(8), label="old version") else 1
        snapshot = Snapshot(
            version=self.version,
            status=status,
            clock_offset_ms=past_ms + days_on * DAY,
            features={
                code: data.draw(entitlements(self.start_ms, code), label=code)
                for code in FEATURES
                if code != missing
            },
            budgets=data.draw(budgets(self.start_ms), label="budgets"),
        )
        head = snapshot.version, snapshot.status.value, snapshot.clock_offset_ms
        real = self.desk.run("project", [who.keys.epoch, who.keys.snapshot], *head, *snapshot_fields(snapshot))
        self.compare(real, lambda: self.model.project(who, snapshot))

    def grant(
        self,
        index: int,
        grant_id: str,
        currency: str,
        amount: int,
        terms: tuple[int, int, int, int],
        features: str,
    ) -> None:
        """A credit block, sometimes one that is known; `terms`: priority, effective and expiry day, paid."""
        who = self.model.customers[index]
        priority, effective_day, expiry_day, paid = terms
        grid = self.start_ms + HOUR // 2
        expires_ms = grid + expiry_day * DAY if expiry_day > 0 else 0
        grant = f"{grant_id}_{index}", grid + effective_day * DAY, expires_ms, priority, paid, self.start_ms
        body = self.body(who, grant_id=grant[0], reason="repay")
        args = currency, grant[0], amount, priority, grant[1], grant[2], paid, grant[5], features, body
        real = self.desk.run("grant", grant_keys(who.keys), *args)
        told = (*grant, features)
        self.compare(real, lambda: self.model.grant(who, currency, amount=amount, grant=told, body=body))

    def lapse(self, index: int, grant_id: str, currency: str, kind: str, limit: int) -> None:
        """A grant ends, or lends less; it may be unknown, too early, drawn or held in part."""
        who, name = self.model.customers[index], f"{grant_id}_{index}"
        if not any(name in (known[0] for known in who.order.get(currency, [])) for currency in ("USD", "EUR")):
            currency = "USD"
        elif name not in (known[0] for known in who.order.get(currency, [])):
            currency = "EUR" if currency == "USD" else "USD"
        body = self.body(who, grant_id=name, reason=kind)
        keys = [who.keys.epoch, who.keys.snapshot, who.keys.wallet, who.keys.stream]
        real = self.desk.run("lapse", keys, currency, name, kind, body, limit)
        self.compare(
            real, lambda: self.model.lapse(who, currency, grant_id=name, kind=kind, body=body, limit=limit)
        )

    # ---- decisions

    @rule(
        index=indexes,
        charges=signed_lists(),
        key=idempotency_keys,
        digest=st.sampled_from("ab"),
        refusal_ms=refusals_ms,
        path=paths,
        act=st.sampled_from(["consume"] * 4 + ["shadow", "late", "record"]),
    )
    def charge(
        self,
        index: int,
        charges: list[tuple[str, int | str]],
        key: str,
        digest: str,
        refusal_ms: int,
        path: str,
        act: str,
    ) -> None:
        """A debit or a record, perhaps a retry, another request under a known key, too late, or only for show."""
        who, name = self.model.customers[index], "record" if act == "record" else "consume"
        memory = self.memory(key, digest, refusal_ms)
        body = self.body(who, tuple(feature for feature, _ in charges))
        asked = {"record": (path,), "late": (path, 1, 0), "shadow": (path, 0, 1)}.get(act, (path, 0, 0))
        kept = memory[2:3] if act == "record" else memory[2:]
        args = digest, *kept, body, *asked, len(charges), *flat(charges)
        real = self.desk.run(name, decision_keys(who.keys, key), *args)
        terms = {"mode": name, "shadow": act == "shadow", "late": act == "late", "path": path}
        self.compare(
            real,
            lambda: self.model.decide(who, charges, memory=memory, body=body, **terms),
            at_place=5,
            who=who,
        )
        self.recall((index, key), real)
        self.let_pass(who, key)

    @rule(index=indexes, charges=signed_lists(), path=paths)
    def peek(self, index: int, charges: list[tuple[str, int | str]], path: str) -> None:
        """A look."""
        who = self.model.customers[index]
        real = self.desk.run("peek", decision_keys(who.keys), path, len(charges), *flat(charges))
        self.compare(real, lambda: self.model.peek(who, charges, path=path), at_place=5, who=who)

    @rule(
        index=indexes,
        charges=charge_lists(),
        key=idempotency_keys,
        digest=st.sampled_from("ab"),
        path=paths,
        data=st.data(),
    )
    def hold(
        self,
        index: int,
        charges: list[tuple[str, int]],
        key: str,
        digest: str,
        path: str,
        data: st.DataObject,
    ) -> None:
        """An amount set aside; a short one is due before the next step."""
        who = self.model.customers[index]
        is_short, is_shadow = data.draw(one_in(3), label="is short"), data.draw(one_in(8), label="is shadow")
        if data.draw(one_in(5), label="is known") and self.hold_ids:
            hold_id = self.hold_ids[-1]
        else:
            hold_id = f"hold_{len(self.hold_ids)}"
            self.hold_ids.append(hold_id)
        terms = hold_id, 1 if is_short else LONG_MS, data.draw(st.sampled_from(["release", "charge"]))
        memory = self.memory(key, digest, data.draw(refusals_ms, label="refusal_ms"))
        body = self.body(who, tuple(feature for feature, _ in charges))
        keys = [*decision_keys(who.keys, key), hold_key(hold_id, who.keys.shard)]
        args = digest, *memory[2:], body, path, 0, int(is_shadow), *terms, len(charges), *flat(charges)
        real = self.desk.run("hold", keys, *args)
        known, more = set(self.model.holds), {"terms": terms, "path": path, "shadow": is_shadow}
        self.compare(
            real,
            lambda: self.model.hold(who, charges, memory=memory, body=body, **more),
            at_place=5,
            who=who,
        )
        self.recall((index, key), real)
        self.let_pass(who, key)
        if isinstance(real, tuple) and set(self.model.holds) != known:
            if is_short:
                self.desk.wait_until(int(real[9]))
                self.model.holds[hold_id].is_due = True
            if data.draw(st.booleans(), label="is settled at once"):
                self.settle_hold(hold_id, data.draw(charge_lists(0)), digest="a", keep_ms=LONG_MS)

    # ---- ends of holds

    def choose_hold(self, data: st.DataObject) -> str:
        """Mostly one that is open."""
        still_open = [hold_id for hold_id, hold in self.model.holds.items() if hold.answer is None]
        any_hold = [*self.hold_ids, "hold_unknown"]
        is_old = not still_open or data.draw(one_in(4), label="any hold")
        return data.draw(st.sampled_from(any_hold if is_old else still_open), label="hold")

    @precondition(lambda self: self.hold_ids)
    @rule(
        data=st.data(),
        charges=charge_lists(0),
        digest=st.sampled_from("ab"),
        keep_ms=st.sampled_from([LONG_MS, LONG_MS, LONG_MS, 0]),
    )
    def settle(self, data: st.DataObject, charges: list[tuple[str, int]], digest: str, keep_ms: int) -> None:
        """The real quantities; often of features that the hold has."""
        hold_id = self.choose_hold(data)
        if data.draw(one_in(8), label="foreign features"):
            charges = [("ghost", 1), *charges]
        has_body = data.draw(one_in(4), label="has a body of its own")
        self.settle_hold(hold_id, charges, digest=digest, keep_ms=keep_ms, has_body=has_body)

    def settle_hold(
        self, hold_id: str, charges: list[tuple[str, int]], *, digest: str, keep_ms: int, has_body: bool = False
    ) -> None:
        """Settle with these quantities, of features that the hold has unless they are foreign."""
        hold = self.model.holds.get(hold_id)
        if hold and charges[:1] != [("ghost", 1)]:
            charges = [(one.feature, 3 * real) for one, (_, real) in zip(hold.kept, charges, strict=False)]
            charges = [(feature, min(real, LARGEST)) for feature, real in charges]
            if len(charges) == 1 and charges[0][1] % 2:
                charges = [("", charges[0][1])]  # of the first charge, whatever it is called
        keys = hold_keys(self.names[0], hold_id)
        who = hold.owner if hold else None
        body = self.body(who, tuple(one.feature for one in hold.kept)) if hold and has_body else b""
        real = self.desk.run("settle", keys, digest, keep_ms, body, len(charges), *flat(charges))
        act = lambda: self.model.settle(hold_id, charges, digest=digest, keep_ms=keep_ms, body=body)  # noqa: E731
        self.compare(real, act, at_place=2, who=who)
        if isinstance(real, tuple) and real[0] in ("settled", "late", "released", "expired") and not real[1]:
            self.recall(hold_id, real)

    @precondition(lambda self: self.hold_ids)
    @rule(
        data=st.data(),
        charges=charge_lists(0),
        key=idempotency_keys,
        digest=st.sampled_from("ab"),
        ttl_ms=st.sampled_from([0, 0, 0, 2 * LONG_MS]),
        act=st.sampled_from(["part", "part", "extend"]),
    )
    def go_on(
        self, data: st.DataObject, charges: list[tuple[str, int]], key: str, digest: str, ttl_ms: int, act: str
    ) -> None:
        """A part or an extension, perhaps under the key of a decision; mostly of features that the hold has."""
        hold_id = self.choose_hold(data)
        hold = self.model.holds.get(hold_id)
        who, is_open = self.model.customers[0], False
        if hold:
            who, is_open = hold.owner, hold.answer is None and not hold.is_due
            charges = [(one.feature, real) for one, (_, real) in zip(hold.kept, charges, strict=False)]
        if data.draw(one_in(8), label="foreign features") or (act == "part" and not charges):
            charges = [("ghost", 1), *charges]
        is_own = act == "part" and data.draw(st.booleans(), label="own body")
        body = self.body(who, tuple(feature for feature, _ in charges)) if is_own else b""
        memory = self.memory(key, digest, data.draw(refusals_ms, label="refusal_ms"))
        keys = part_keys(who.keys, hold_id, key)
        pairs = (ttl_ms, len(charges), *flat(charges))
        terms: dict[str, Any] = {"who": who, "memory": memory, "ttl_ms": ttl_ms}
        if act == "part":
            real = self.desk.run(act, keys, digest, memory[2], body, *pairs)
            told = lambda: self.model.part(hold_id, charges, body=body, **terms)  # noqa: E731
        else:
            real = self.desk.run(act, [*keys[:3], keys[4]], digest, *memory[2:], *pairs)
            told = lambda: self.model.extend(hold_id, charges, **terms)  # noqa: E731
        self.compare(real, told, at_place=2 if act == "part" else 5, who=who if is_open else None)
        if key in who.answers:
            name, told = (self.model.customers.index(who), key), who.answers[key][0][1]
            first = self.first.setdefault(name, told)
            assert isinstance(first, tuple)
            assert first == told or first[0] != "allowed"  # only what was refused may be charged after all
            self.first[name] = told
        self.let_pass(who, key)

    @precondition(lambda self: self.hold_ids)
    @rule(data=st.data(), keep_ms=st.sampled_from([LONG_MS, LONG_MS, 0]))
    def release(self, data: st.DataObject, keep_ms: int) -> None:
        """Nothing was used."""
        hold_id = self.choose_hold(data)
        real = self.desk.run("release", hold_keys(self.names[0], hold_id)[:3], keep_ms)
        hold = self.model.holds.get(hold_id)
        who = hold.owner if hold else None
        self.compare(real, lambda: self.model.release(hold_id, keep_ms=keep_ms), at_place=2, who=who)

    def sweep(self, most: int) -> None:
        """The sweeper comes by."""
        names = self.names[0]
        real = self.desk.run("sweep", [names.epoch, names.shard_holds, names.stream], most)
        self.compare(real, lambda: self.model.sweep(most))

    # ---- events from outside

    def ingest(self, events: list[tuple[str, str]], days_on: int) -> None:
        """Events of a client, some of them perhaps again, perhaps with other content."""
        names, who = self.names[0], self.model.customers[0]
        key, body = event_ids_key(TENANT, names.shard), self.body(who)
        words = [word for event in events for word in event]
        real = self.desk.run("ingest", [names.epoch, names.stream, key], LONG_MS, days_on * DAY, body, *words)
        terms = {"window_ms": LONG_MS, "body": body, "offset_ms": days_on * DAY}
        self.compare(real, lambda: self.model.ingest(key, events, **terms))

    # ---- laws

    @invariant()
    def every_key_is_the_models(self) -> None:
        """Nothing more, nothing less, nothing else."""
        assert self.desk.dump() == self.model.dump()

    @invariant()
    def every_grant_is_conserved(self) -> None:
        """granted = moved + held + remaining; and the movements of an entry are its costs."""
        moved: dict[str, int] = {}
        for stream_id, fields in self.desk.client.xrange(self.names[0].stream):
            entry = decode_entry(stream_id, fields)
            assert entry.position == StreamPosition.parse(stream_id.decode())
            if entry.charges:
                assert sum(charge.charged_nanos for charge in entry.charges) == sum(
                    m.nanos for m in entry.movements
                )
            for movement in entry.movements:
                moved[movement.grant_id] = moved.get(movement.grant_id, 0) + movement.nanos
        for who in self.model.customers:
            wallet = self.desk.client.hgetall(who.keys.wallet)
            for grant_id, granted in who.granted.items():
                stands = int(wallet[f"r:{grant_id}".encode()]) + int(wallet[f"h:{grant_id}".encode()])
                assert granted == moved.get(grant_id, 0) + stands


def flat(charges: list[tuple[str, int]] | list[tuple[str, int | str]]) -> list[str | int]:
    return [part for charge in charges for part in charge]


def test_every_reply_and_every_key_equal_the_model(desk: Desk) -> None:
    """Scripts are their model: replies, keys, retries, conflicts, expiry, and no nano is lost on the way."""
    ScriptMachine.desk = desk
    run_state_machine_as_test(
        ScriptMachine,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=False,
        ),
    )
