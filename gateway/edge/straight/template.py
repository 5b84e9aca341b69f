"""Answers that differ in a few places only, put together once.

One caller's answers to the same question are nearly the same text: what differs is the decision id, what it has
cost, what is left. So an answer is written once by whoever writes answers, with marks in those places, and the
marks are cut out. What a template makes is, byte for byte, what its writer makes: it knows nothing about answers
but where the marks were.

Worked example: `{"allowed":true, ... "decision_id":"dec_<id>", ... "cost_nanos":<cost>, ...}` has two holes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter
from typing import Final

import msgspec

from gateway.admission.decision import Decision, Figures
from gateway.edge.lane.response import lines_of
from gateway.edge.message import Answer, Prepared
from gateway.edge.ratelimit import MOST

_SOME_ID: Final = "dec_~template~"
_SOME_COST: Final = 800_719_925_474_081
_SOME_BALANCE: Final = 800_719_925_474_082
_SOME_REMAINING: Final = 800_719_925_474_083
_SOME_CHARGE: Final = 800_719_925_474_084
_MARKS: Final = tuple(
    str(mark).encode() for mark in (_SOME_COST, _SOME_BALANCE, _SOME_REMAINING, _SOME_CHARGE, _SOME_ID)
)
"""In the order of `Figures`, and the id."""

Write = Callable[[Decision], Answer]
Told = tuple[int | bytes, ...]


class Template:
    """Fills in what differs."""

    __slots__ = ("_body", "_lines", "_media_type", "_status")

    def __init__(self, answer: Answer) -> None:
        """Of an answer with marks."""
        self._status, self._media_type = answer.status, answer.media_type
        self._lines, self._body = _Text(lines_of(answer.headers)), _Text(answer.body)

    def fill(self, figures: Figures, decision_id: str) -> Prepared:
        """The answer."""
        told = (*figures, decision_id.encode())
        lines, body = self._lines, self._body
        return Prepared(
            status=self._status,
            media_type=self._media_type,
            lines=lines.form % lines.pick(told),
            body=body.form % body.pick(told),
        )


class _Text:
    """Bytes with holes, and what goes into them."""

    __slots__ = ("form", "pick")

    def __init__(self, text: bytes) -> None:
        """Of a text with marks."""
        places = sorted(
            (found.start(), index)
            for index, mark in enumerate(_MARKS)
            for found in re.finditer(re.escape(mark), text)
        )
        self.form = text.replace(b"%", b"%%")
        for index in {index for _, index in places}:
            self.form = self.form.replace(_MARKS[index], b"%b" if _MARKS[index] == _MARKS[-1] else b"%d")
        indices = [index for _, index in places]
        self.pick: Callable[[Told], object] = itemgetter(*indices) if indices else _nothing


def _nothing(_: Told) -> tuple[()]:
    return ()


def prepared(answer: Answer) -> Prepared:
    """An answer in which nothing ever differs."""
    return Prepared(
        status=answer.status, media_type=answer.media_type, lines=lines_of(answer.headers), body=answer.body
    )


def template_of(decision: Decision, write: Write) -> Template | None:
    """The template of all answers like this decision's, of one charge.

    None where a name looks like a mark, or where what remains may be more than headers can tell.
    """
    if (decision.charges[0].limit_units or 0) > MOST:
        return None
    answer = write(decision)
    text = lines_of(answer.headers) + answer.body
    return None if any(mark in text for mark in _MARKS) else Template(write(_marked(decision)))


def _marked(decision: Decision) -> Decision:
    (charge,) = decision.charges
    remaining_units = None if charge.remaining_units is None else _SOME_REMAINING
    told = msgspec.structs.replace(charge, remaining_units=remaining_units, cost_nanos=_SOME_CHARGE)
    return msgspec.structs.replace(
        decision, decision_id=_SOME_ID, cost_nanos=_SOME_COST, balance_nanos=_SOME_BALANCE, charges=(told,)
    )
