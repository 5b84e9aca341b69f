"""The judgement: what was answered, held against what is written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.command.chaos.verdict import Evidence, Finding, Notes, Overspending, Report, Sighting, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def seen(event_id: str, nanos: int, *, entries: int = 1) -> Sighting:
    return Sighting(customer_id="c", event_id=event_id, entries=entries, units=1, charged_nanos=nanos)


def told(*sightings: Sighting, decisions: int | None = None, is_settled: bool = True, **more: object) -> Evidence:
    quiet = {
        "granted_nanos": 100,
        "difference_nanos": 0,
        "unflushed_nanos": 0,
        "held_nanos": 0,
        "remaining_nanos": 0,
        "unbuilt_shards": 0,
        "findings": (),
    }
    return Evidence(
        is_settled=is_settled,
        decisions=len(sightings) if decisions is None else decisions,
        until_at=NOW,
        sightings=sightings,
        overspent=(),
        report=Report(**(quiet | more)),
    )


def noted(**costs: int) -> Notes:
    notes = Notes()
    notes.granted_nanos = 100
    for name, nanos in costs.items():
        notes.note(name, nanos)
    return notes


def counts(verdict: Verdict) -> tuple[int, int, int, int]:
    return verdict.lost, verdict.doubled, verdict.overspent, verdict.broken


def test_what_is_written_as_it_was_answered_is_clean() -> None:
    """Once each; an answer that came twice counts once; what cost nothing is not expected."""
    notes = noted(a=5, b=7, released=0)
    notes.note("a", 5)
    verdict = notes.judge(told(seen("a", 5), seen("b", 7)))
    assert (verdict.is_clean, verdict.answered, verdict.words) == (True, 2, ())
    notes.note("c", 1)
    assert notes.judge(told(seen("c", 1), decisions=3)).is_clean


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (told(), (1, 0, 0, 0)),
        (told(decisions=1), (1, 0, 0, 1)),
        (told(seen("a", 4)), (1, 0, 0, 0)),
        (told(seen("a", 6)), (0, 1, 0, 0)),
        (told(seen("a", 5, entries=2)), (0, 1, 0, 0)),
        (told(seen("a", 5), seen("stranger", 5)), (0, 1, 0, 0)),
        (told(seen("a", 5), seen("stranger", 5), decisions=1), (0, 1, 0, 1)),
        (told(seen("a", 5), decisions=2), (0, 0, 0, 1)),
        (told(seen("a", 5), decisions=0), (0, 0, 0, 1)),
        (told(seen("a", 5), granted_nanos=99), (1, 0, 0, 0)),
        (told(seen("a", 5), granted_nanos=101), (0, 1, 0, 0)),
        (told(seen("a", 5), is_settled=False), (0, 0, 0, 1)),
        (told(seen("a", 5), difference_nanos=-1, held_nanos=1, unflushed_nanos=1), (0, 0, 0, 3)),
        (told(seen("a", 5), unbuilt_shards=1), (0, 0, 0, 1)),
    ],
)
def test_what_differs_is_named(evidence: Evidence, expected: tuple[int, int, int, int]) -> None:
    """Lost, doubled, overspent, broken: and as many words as faults."""
    verdict = noted(a=5).judge(evidence)
    assert counts(verdict) == expected
    assert len(verdict.words) == sum(expected)
    assert not verdict.is_clean


def test_overspending_and_findings_are_named() -> None:
    """A wallet below zero, and what reconcile says."""
    finding = Finding(law="a_law", customer_id="c", grant_id="g", difference_nanos=3)
    evidence = told(seen("a", 5), findings=(finding,))
    evidence = Evidence(
        **{name: getattr(evidence, name) for name in evidence.__struct_fields__ if name != "overspent"},
        overspent=(Overspending(customer_id="c", nanos=1),),
    )
    assert counts(noted(a=5).judge(evidence)) == (0, 0, 1, 1)


def test_two_answers_to_one_act_are_a_contradiction() -> None:
    """A retry gets the first answer back."""
    notes = noted(a=5)
    notes.note("a", 6)
    verdict = notes.judge(told(seen("a", 5)))
    assert (counts(verdict), len(verdict.words)) == ((0, 1, 0, 0), 1)


def test_what_is_written_again_later_is_doubled() -> None:
    """Also behind a judgement that it was part of."""
    notes = noted(a=5)
    assert notes.judge(told(seen("a", 5))).is_clean
    assert counts(notes.judge(told(seen("a", 5)))) == (0, 1, 0, 0)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (told(seen("a", 5), seen("stranger", 5)), (0, 1, 0, 0)),
        (told(seen("a", 5), decisions=2), (0, 0, 0, 1)),
        (told(decisions=0), (1, 0, 0, 0)),
        (told(seen("a", 5), granted_nanos=101), (0, 1, 0, 0)),
        (told(seen("a", 5), granted_nanos=99), (1, 0, 0, 0)),
    ],
)
def test_what_was_told_and_still_stands_is_not_told_again(evidence: Evidence, expected: tuple[int, ...]) -> None:
    """Each row of the account has its own faults, so that they add up; and a second one is told all the same."""
    notes, granted = noted(a=5), evidence.report.granted_nanos
    assert counts(notes.judge(evidence)) == expected
    notes.note("b", 7)
    assert notes.judge(told(seen("b", 7), decisions=evidence.decisions + 1, granted_nanos=granted)).is_clean
    late = told(seen("other", 1), decisions=evidence.decisions + 3, granted_nanos=granted + 1)
    assert counts(notes.judge(late)) == (0, 2, 0, 1)


def test_what_was_lost_and_comes_late_is_one_decision() -> None:
    """It was told as lost; that it is written after all breaks no law of its own."""
    notes = noted(a=5)
    assert counts(notes.judge(told())) == (1, 0, 0, 0)
    assert counts(notes.judge(told(seen("a", 5)))) == (0, 1, 0, 0)
