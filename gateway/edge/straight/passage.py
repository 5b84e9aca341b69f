"""The straight way of a request that is passed on: what it costs is fixed, so only who asks can differ.

Who may pass is told in an answer that never leaves this house: its lines are for the client's response, and its
body is what the upstream is told.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from billing_core.contract.keys import digest_of
from billing_core.errors import Failure, Unavailable
from gateway.admission.decision import Decision
from gateway.admission.gate import Gate
from gateway.admission.order import Order
from gateway.admission.reason import RULES, Reason
from gateway.edge.authorize.answer import upstream_headers
from gateway.edge.lane.response import lines_of
from gateway.edge.message import Answer, Outcome, Prepared, Tell
from gateway.edge.refusal.answer import Notices
from gateway.edge.straight.ask import Ask, Asks
from gateway.edge.straight.way import StraightWay
from gateway.state.directory import Directory

_PASSED: Final = 200
_LONGEST: Final = 256


class Passage:
    """Of all routes of a proxy."""

    def __init__(self, gate: Gate, directory: Directory, *, notices: Notices) -> None:
        self._asks = Asks(lambda digest: directory.behind(digest) is not None)
        self._way = StraightWay(gate, directory, write=self._write, refuse=_itself)
        self._notices = notices

    def begin(self, words: tuple[str, str], order: Order, *, budget_ms: int, since_s: float, tell: Tell) -> bool:
        """Begin to decide the order of a route, whose name and whose caller's secret are the words.

        False: the long way has to be taken.
        """
        ask = self._asks.get(words)
        if ask is None:
            ask = self._asks.meet(words, partial(_read, words[1], order=order, budget_ms=budget_ms))
        return ask is not None and self._way.begin(ask, "", since_s=since_s, tell=tell)

    def _write(self, decision: Decision, customer_id: str) -> Answer:
        """Raises: Unavailable."""
        if decision.reason is Reason.UNAVAILABLE:
            raise Unavailable(RULES[Reason.UNAVAILABLE].title)
        if not decision.allowed:
            return self._notices.refused(decision, customer_id)
        told = lines_of(tuple(upstream_headers(decision, customer_id)))
        return Answer(status=_PASSED, headers=self._notices.headers(decision), body=told)


def passed(outcome: Outcome) -> tuple[bytes, bytes] | None:
    """The lines for the client and those for the upstream; None where it is a refusal or a failure."""
    if isinstance(outcome, Failure) or outcome.status != _PASSED:
        return None
    lines = outcome.lines if isinstance(outcome, Prepared) else lines_of(outcome.headers)
    return lines, outcome.body


def _itself(failure: Failure) -> Failure:
    return failure


def _read(secret: str, *, order: Order, budget_ms: int) -> Ask | None:
    if not secret or not secret.isascii() or len(secret) > _LONGEST:
        return None
    return Ask(order, digest=digest_of(secret), is_keyed=False, budget_ms=budget_ms)
