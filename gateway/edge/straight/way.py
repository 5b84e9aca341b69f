"""The straight way of a check: what nearly all ask, from its words to Redis and back without a coroutine.

    words       known from before: an order, a credential (see `ask`)
    credential  looked up; the caller and the form of the command are kept while it is the same
    command     the form, filled in, goes to Redis with those of the same turn
    reply       read where it arrives; the usual one fills a template of the answer, any other is written in full

What a slice covers (see `admission/slice`) is answered at once, in the words of the last answer out of that slice.
Everything else takes the long way, through a handler: what came for the first time, what is not known by heart,
and where somebody besides Redis has a say. The long way is the law, and the straight way is never another answer:
one suite of tests asks both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import msgspec

from billing_core.errors import Failure, InvariantBroken, Unavailable
from gateway.admission.caller import Caller, caller_of
from gateway.admission.decision import Decision, decision_in, usual_of, words_of
from gateway.admission.gate import Gate
from gateway.admission.reason import Reason
from gateway.edge.message import Answer, Outcome, Prepared, Tell
from gateway.edge.straight.ask import Ask
from gateway.edge.straight.template import prepared, template_of
from gateway.state.directory import Credential, Directory
from gateway.state.fault import failure_of
from gateway.state.pipe import Told
from gateway.state.resp import ErrorReply, Reply


class Write(Protocol):
    """Writes the answer. Raises: Failure."""

    def __call__(self, decision: Decision, customer_id: str) -> Answer: ...


Refuse = Callable[[Failure], Answer | Failure]
"""What is told of a failure; itself, where that is said for all routes in one place."""

_ALLOWED: Final = Reason.ALLOWED.value


class StraightWay:
    """Of one route."""

    def __init__(self, gate: Gate, directory: Directory, *, write: Write, refuse: Refuse) -> None:
        self._gate = gate
        self._directory = directory
        self._write = write
        self._refuse = refuse

    def begin(self, ask: Ask, key: str, *, since_s: float, tell: Tell) -> bool:
        """Begin to answer what came then, under that idempotency key; False: the long way has to be taken."""
        credential = self._directory.behind(ask.digest)
        if credential is None:
            return False
        if credential is not ask.credential:
            self._learn(ask, credential)
        caller, budget_ms = ask.caller, ask.budget_ms
        left_ms = budget_ms - int((time.perf_counter() - since_s) * 1_000)
        if caller is None or left_ms < 1:
            return False
        local = None if ask.is_keyed else self._gate.locally(caller, ask.order, since_s=since_s, is_known=True)
        if local is not None:
            tell(self._repeated(ask, local, customer_id=caller.customer_id))
            return True
        if not ask.form or not self._gate.is_asked_alone(caller):
            return False
        command = self._gate.command(ask.form, caller, key=key, at_s=since_s + budget_ms / 1_000)
        if command is None:
            return False
        errand = _Errand(
            way=self, ask=ask, caller=caller, decision_id=command.decision_id, since_s=since_s, tell=tell
        )
        try:
            self._gate.begin(command, caller, tell=errand.told, deadline_ms=left_ms)
        except Unavailable as failure:
            errand.told(failure)
        return True

    def _learn(self, ask: Ask, credential: Credential) -> None:
        """It is somebody else than the last time, or is known anew."""
        ask.credential, ask.caller = credential, caller_of(credential)
        ask.frame = ask.template = ask.local = None
        ask.form = b"" if ask.caller is None else self._gate.form(ask.caller, ask.order, is_keyed=ask.is_keyed)

    def _repeated(self, ask: Ask, decision: Decision, *, customer_id: str) -> Prepared:
        """The answer out of a slice, which is the same until the next slice."""
        if ask.local is not decision or ask.repeated is None:
            answer = self._write(decision, customer_id)
            ask.local, ask.repeated = decision, prepared(answer)
        return ask.repeated

    def ended(self, errand: _Errand, told: Told) -> Outcome:
        """What is answered at the end of an errand, whatever that is."""
        try:
            try:
                return self._answer(errand, told)
            except Failure:
                raise
            except Exception as error:  # as at the door: a law that does not hold
                raise InvariantBroken(f"{type(error).__name__}: {error}") from error
        except Failure as failure:
            return self._refuse(failure.with_traceback(None))  # its frames hold the turn that now holds the failure

    def _answer(self, errand: _Errand, told: Told) -> Answer | Prepared:
        """Raises: Failure."""
        ask = errand.ask
        try:
            words = words_of(_reply(told), 1)
        except Failure as failure:
            self._gate.count(failure.code, errand.since_s)
            raise
        usual = usual_of(words) if errand.caller is ask.caller else None
        if usual is not None and ask.template is not None and usual[0] == ask.frame:
            self._gate.remember(errand.caller, ask.order, decision_id=errand.decision_id)
            self._gate.count(_ALLOWED, errand.since_s)
            return ask.template.fill(usual[1], errand.decision_id)
        decision = decision_in(words, ask.order, decision_id=errand.decision_id)
        self._gate.learn(errand.caller, ask.order, decision=decision)
        if decision.allowed and not decision.replayed and not decision.would:
            self._gate.remember(errand.caller, ask.order, decision_id=errand.decision_id)
        self._gate.count(decision.reason.value, errand.since_s)
        write = partial(self._write, customer_id=errand.caller.customer_id)
        if usual is not None:
            ask.template = template_of(decision, write) if usual[0] == ask.frame else None
            ask.frame = usual[0]
        return write(decision)


class _Errand(msgspec.Struct, frozen=True, kw_only=True):
    """One request on its way."""

    way: StraightWay
    ask: Ask
    caller: Caller
    decision_id: str
    since_s: float
    tell: Tell

    def told(self, told: Told) -> None:
        """Called where replies are read."""
        self.tell(self.way.ended(self, told))


def _reply(told: Told) -> Reply:
    """Raises: Failure, where it is none."""
    if isinstance(told, ErrorReply):
        raise failure_of(told)
    if isinstance(told, Unavailable):
        raise told
    return told
