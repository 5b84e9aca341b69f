"""What was answered, held against what is written: nothing lost, nothing twice, nothing overspent.

Every act that was answered is noted down under the id of its decision, with what it cost. When all is quiet, the
books must tell just these decisions, each in one entry and with that cost, and no other. One that is not written is
lost, and so is one that is written with less than was answered; one that is written twice, or with more, or without
having been answered (every act is asked for until it is), is doubled.

A judgement is about what has come since the last one: what was told then and still stands is not told again.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One decision in Postgres: in how many entries, and what they add up to."""

    customer_id: str
    event_id: str
    entries: int
    units: int
    charged_nanos: int


class Overspending(msgspec.Struct, frozen=True, kw_only=True):
    """By how much a customer's grants are below zero."""

    customer_id: str
    nanos: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that reconcile found."""

    law: str
    customer_id: str
    grant_id: str
    difference_nanos: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What reconcile says."""

    granted_nanos: int
    difference_nanos: int
    unflushed_nanos: int
    held_nanos: int
    remaining_nanos: int
    unbuilt_shards: int
    findings: tuple[Finding, ...]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the billing side tells when all is quiet."""

    is_settled: bool
    decisions: int
    until_at: datetime
    sightings: tuple[Sighting, ...]
    overspent: tuple[Overspending, ...]
    report: Report


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong. Units: decisions; `overspent` are customers. Each fault is told in `words`."""

    answered: int = 0
    lost: int = 0
    doubled: int = 0
    overspent: int = 0
    broken: int = 0
    words: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.overspent or self.broken)


class Notes:
    """Decisions that were allowed: their ids, and what they cost in the end; and all that was granted."""

    def __init__(self) -> None:
        self.granted_nanos = 0
        self._open: dict[str, int] = {}
        self._closed: dict[str, int] = {}
        self._known_nanos = 0
        self._known_decisions = 0
        self.contradictions: list[str] = []

    @property
    def count(self) -> int:
        """All decisions that were noted down."""
        return len(self._open) + len(self._closed)

    def note(self, decision_id: str, charged_nanos: int) -> None:
        """An act came to its end, and cost so much; what cost nothing, as a released hold, leaves no entry."""
        if charged_nanos == 0:
            return
        known = self._open.get(decision_id, self._closed.get(decision_id, charged_nanos))
        if known != charged_nanos:
            self.contradictions.append(f"{decision_id} was answered with {known} nanos, then with {charged_nanos}")
            return
        if decision_id not in self._closed:
            self._open[decision_id] = charged_nanos

    def judge(self, evidence: Evidence) -> Verdict:
        """Hold what was noted since the last judgement against what is written since then."""
        answered, words = dict(self._open), list[str]()
        lost, doubled, again, strange = 0, len(self.contradictions), 0, 0
        words += self.contradictions
        for seen in evidence.sightings:
            if seen.event_id in self._closed:
                again += 1
                words.append(f"{seen.event_id} of {seen.customer_id} is written again")
                continue
            cost = answered.pop(seen.event_id, None)
            strange += cost is None
            fault = _fault_of(seen, cost)
            if fault:
                words.append(f"{seen.event_id} of {seen.customer_id} {fault}")
            if cost is not None and seen.charged_nanos < cost:
                lost += 1
            elif fault:
                doubled += 1
        words += [f"{decision_id} is not written" for decision_id in answered]
        surplus_nanos = self._surplus_nanos(evidence)
        if surplus_nanos:
            words.append(f"{surplus_nanos} nanos more are granted than were topped up")
            lost, doubled = lost + (surplus_nanos < 0), doubled + (surplus_nanos > 0)
        overspent = [f"{one.customer_id} is overspent by {one.nanos} nanos" for one in evidence.overspent]
        broken = _broken(evidence)
        surplus = self._surplus(evidence) - strange + len(answered)
        if not 0 <= surplus <= again:  # one that is written again may be one that was lost until now
            broken.append(f"{surplus} decisions more are written in all than can be told one by one")
        verdict = Verdict(
            answered=len(self._open),
            lost=lost + len(answered),
            doubled=doubled + again,
            overspent=len(overspent),
            broken=len(broken),
            words=(*words, *overspent, *broken),
        )
        self._closed |= self._open
        self._open, self.contradictions = {}, []
        return verdict

    def _surplus_nanos(self, evidence: Evidence) -> int:
        """How much more is granted than was topped up, without what was told before."""
        known, self._known_nanos = self._known_nanos, evidence.report.granted_nanos - self.granted_nanos
        return self._known_nanos - known

    def _surplus(self, evidence: Evidence) -> int:
        """How many decisions more are written in all than were answered, without what was told before."""
        known, self._known_decisions = self._known_decisions, evidence.decisions - self.count
        return self._known_decisions - known


def _fault_of(seen: Sighting, cost: int | None) -> str:
    """What is wrong with one decision that is written; "" where nothing is."""
    if cost is None:
        return f"is written with {seen.charged_nanos} nanos, and nobody was answered so"
    if seen.entries != 1:
        return f"is written in {seen.entries} entries"
    if seen.charged_nanos != cost:
        return f"is written with {seen.charged_nanos} nanos, answered with {cost}"
    return ""


def _broken(evidence: Evidence) -> list[str]:
    """What else does not hold."""
    report, words = evidence.report, list[str]()
    if not evidence.is_settled:
        words.append("holds are open, or usage is not flushed, after half a minute of quiet")
    laws = {
        "reconcile differs": report.difference_nanos,
        "is not flushed": report.unflushed_nanos,
        "is still held": report.held_nanos,
    }
    words += [f"{nanos} nanos: {law}" for law, nanos in laws.items() if nanos]
    words += [f"{report.unbuilt_shards} shards are not built"] if report.unbuilt_shards else []
    words += [
        f"{one.law}: {one.customer_id} {one.grant_id} {one.difference_nanos} nanos" for one in report.findings
    ]
    return words
