"""`POST /v1/check` and `/v1/check/batch`: may this be done, and if so, do it.

A check is made by `key` (the key is the credential) or by `customer` (an operator's token is needed), there with
a `path` if its budgets below the customer are meant too. It names one `feature` with a `quantity` (1 unless
told; of a gauge a change of its level, or `set` to one) or up to 16 `charges`, each feature once. Whatever the
decision is, the answer is 200 with `allowed` and `reason`; only where no decision could be made it is a problem.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Hashable, Mapping
from functools import partial

import msgspec

from billing_core.contract.document import decode_strictly
from billing_core.contract.keys import digest_of
from billing_core.contract.problem import decode_json, problem_of
from billing_core.errors import Failure, InvalidInput, NotFound, TooLarge, Unavailable, Unprocessable
from gateway.admission.caller import Caller, caller_at_hand, caller_of_key, caller_of_operator
from gateway.admission.deadline import Deadline, deadline_since
from gateway.admission.decision import Decision
from gateway.admission.gate import Gate
from gateway.admission.order import Order
from gateway.admission.proof import receipt_of
from gateway.admission.reason import RULES, Reason
from gateway.edge.message import JSON, Answer, Request, Tell, require_json
from gateway.edge.reply import check_answer, told
from gateway.edge.route.order import order_of
from gateway.edge.straight.ask import Ask, Asks
from gateway.edge.straight.way import StraightWay
from gateway.edge.wire import MAX_BATCH, BatchAnswer, BatchRequest, CheckAnswer, CheckRequest, FailedAnswer
from gateway.receipt import Signer
from gateway.settings import GatewaySettings
from gateway.state.directory import Directory

_CHECK = msgspec.json.Decoder(CheckRequest)
_KEY = b'"idempotency_key"'
_KEYED = re.compile(rb'"idempotency_key":\s?"([A-Za-z0-9_.:-]{1,255})"')
_SHORT = 1_024
_BATCH = msgspec.json.Decoder(BatchRequest)


class CheckRoute:
    """Decides what bodies ask for."""

    def __init__(
        self, gate: Gate, directory: Directory, *, settings: GatewaySettings, signer: Signer | None
    ) -> None:
        self._gate = gate
        self._directory = directory
        self._settings = settings
        self._signer = signer
        self._asks = Asks(lambda digest: directory.behind(digest) is not None)
        self._way = StraightWay(gate, directory, write=_written, refuse=_refused)

    def straight(self, request: Request, tell: Tell) -> bool:
        """Begin to answer a check whose words are known, but for its idempotency key; whether that could be."""
        body = request.body
        if len(body) > _SHORT or request.headers.get("Content-Type", JSON) != JSON:
            return False
        words, key = (body, "") if _KEY not in body else split_key(body)
        ask = self._asks.get(words) or self._asks.meet(words, partial(self._plain, request))
        return ask is not None and self._way.begin(ask, key, since_s=request.since_s, tell=tell)

    def _plain(self, request: Request) -> Ask | None:
        """What is asked, where a key asks and all that it wants to know is the decision."""
        try:
            asked = decode_strictly(request.body, _CHECK)
            order = self._order(asked)
        except Failure:
            return None
        if asked.key is None or not asked.key.isascii() or asked.receipt:
            return None
        return Ask(
            msgspec.structs.replace(order, idempotency_key=""),
            digest=digest_of(asked.key),
            is_keyed=bool(order.idempotency_key),
            budget_ms=asked.deadline_ms or self._settings.decision_deadline_ms,
        )

    async def check(self, request: Request) -> Answer:
        """One check, one decision."""
        require_json(request)
        asked = decode_strictly(request.body, _CHECK)
        order = self._order(asked)
        deadline = deadline_since(request.since_s, asked.deadline_ms or self._settings.decision_deadline_ms)
        caller = caller_at_hand(self._directory, asked.key) if asked.key is not None else None
        if caller is None:
            caller = await self._caller(asked, request.headers, deadline=deadline)
        try:
            decision = await self._gate.decide(caller, order, deadline=deadline)
        except NotFound as failure:
            raise _seen_by(asked, failure) from None
        _check_decided(decision)
        return told(self._told(asked, order, caller=caller, decision=decision))

    async def check_batch(self, request: Request) -> Answer:
        """Up to 1,000 checks, one answer each, in their order; a body that breaks a rule refuses them all."""
        require_json(request)
        batch = decode_strictly(request.body, _BATCH)
        raws = batch.checks
        if len(raws) > MAX_BATCH:
            raise TooLarge(f"must have at most {MAX_BATCH} entries", field="checks")
        asked = [self._read(bytes(raw), index) for index, raw in enumerate(raws)]
        deadline = deadline_since(request.since_s, batch.deadline_ms or self._settings.bulk_deadline_ms)
        callers = await asyncio.gather(*(self._caller(one, request.headers, deadline=deadline) for one, _ in asked))
        orders = [(caller, order) for caller, (_, order) in zip(callers, asked, strict=True)]
        decisions = await self._gate.decide_all(orders, deadline=deadline)
        return told(
            BatchAnswer(
                answers=[
                    self._told_in_batch(one, order, caller=caller, decision=decision)
                    for (one, order), caller, decision in zip(asked, callers, decisions, strict=True)
                ]
            )
        )

    async def _caller(
        self, asked: CheckRequest, headers: Mapping[str, str], *, deadline: Deadline
    ) -> Caller | None:
        if asked.key is not None:
            return await caller_of_key(self._directory, asked.key, deadline=deadline)
        return await caller_of_operator(
            self._directory,
            headers.get("Authorization", ""),
            customer_id=asked.customer or "",
            path=asked.path or "",
            deadline=deadline,
        )

    def _order(self, asked: CheckRequest, *, in_batch: bool = False) -> Order:
        if in_batch and asked.deadline_ms is not None:
            raise InvalidInput("stands beside `checks`, once for all of them", field="deadline_ms")
        if asked.receipt and self._signer is None:
            raise Unprocessable("this gateway has no key to sign one (gateway.receipt_key_file)", field="receipt")
        return order_of(asked)

    def _read(self, raw: bytes, index: int) -> tuple[CheckRequest, Order]:
        """One check of a batch. Raises: InvalidInput, Unprocessable, naming its place."""
        try:
            asked = decode_json(raw, _CHECK)
            return asked, self._order(asked, in_batch=True)
        except (InvalidInput, Unprocessable) as failure:
            field = "" if failure.field == "body" else f".{failure.field}"
            raise type(failure)(failure.detail, field=f"checks[{index}]{field}") from None

    def _told(self, asked: CheckRequest, order: Order, *, caller: Caller | None, decision: Decision) -> CheckAnswer:
        """The answer, with a receipt if one is asked for; nobody's decision has none."""
        if caller is None:
            return check_answer(decision, None)
        answer = check_answer(decision, caller.customer_id)
        if not asked.receipt or self._signer is None:
            return answer
        receipt = self._signer.sign(receipt_of(decision, order, caller=caller))
        return msgspec.structs.replace(answer, receipt=receipt)

    def _told_in_batch(
        self, asked: CheckRequest, order: Order, *, caller: Caller | None, decision: Decision | Failure
    ) -> CheckAnswer | FailedAnswer:
        if isinstance(decision, NotFound):
            return FailedAnswer(problem=problem_of(_seen_by(asked, decision)))
        if isinstance(decision, Failure):
            return FailedAnswer(problem=problem_of(decision))
        return self._told(asked, order, caller=caller, decision=decision)


def _check_decided(decision: Decision) -> None:
    """Raises: Unavailable where none was made in time."""
    if decision.reason is Reason.UNAVAILABLE:
        raise Unavailable(RULES[Reason.UNAVAILABLE].title)


def _written(decision: Decision, customer_id: str) -> Answer:
    """The answer on the straight way. Raises: Unavailable."""
    _check_decided(decision)
    return told(check_answer(decision, customer_id))


def _refused(failure: Failure) -> Failure:
    return _not_ready() if isinstance(failure, NotFound) else failure


def split_key(body: bytes) -> tuple[Hashable, str]:
    """The words around an idempotency key, and the key; where it is no plain text, the body as it is.

    No other key, put in its place, could change what the words mean: without a backslash every quote begins or ends
    a text, so that the name is a name, and where it comes twice the body has no meaning at all.
    """
    found = _KEYED.search(body)
    if found is None or b"\\" in body:
        return body, ""
    return (body[: found.start(1)], body[found.end(1) :]), found[1].decode()


def _not_ready() -> Unavailable:
    """A key whose customer is not there yet is not the caller's mistake: it becomes known in a moment."""
    return Unavailable("the customer of this key is not ready yet")


def _seen_by(asked: CheckRequest, failure: NotFound) -> Failure:
    """A failure as whoever asked is told of it."""
    return failure if asked.key is None else _not_ready()
