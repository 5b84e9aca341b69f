"""`/v1/authorize/forward`, `/nginx` and `/envoy`: one route for each dialect, all of them decided alike."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from billing_core.contract.keys import digest_of
from billing_core.errors import Failure, InvalidInput
from gateway.admission.caller import bearer_of, caller_at_hand, caller_of_key
from gateway.admission.deadline import deadline_since
from gateway.admission.gate import Gate
from gateway.admission.order import Mode
from gateway.edge.authorize.dialect import Dialect
from gateway.edge.authorize.order import SHORT, is_number, request_key, with_request
from gateway.edge.message import Answer, Request, Tell
from gateway.edge.straight.ask import Ask, Asks
from gateway.edge.straight.way import StraightWay
from gateway.edge.wire import MAX_DEADLINE_MS
from gateway.settings import GatewaySettings
from gateway.state.directory import Directory

DEADLINE_HEADER = "Tallygate-Deadline-Ms"
_FOR_THE_WAY: Final = 0.9


class AuthorizeRoute:
    """Decides for the proxies of one dialect."""

    def __init__(self, gate: Gate, directory: Directory, *, dialect: Dialect, settings: GatewaySettings) -> None:
        self._gate = gate
        self._directory = directory
        self._dialect = dialect
        self._shadow = settings.authorize_shadow
        self._deadline_ms = settings.decision_deadline_ms
        self._asks = Asks(lambda digest: directory.behind(digest) is not None)
        self._way = StraightWay(gate, directory, write=dialect.write, refuse=dialect.refuse)

    async def answer(self, request: Request) -> Answer:
        """The decision, in the dialect's words."""
        try:
            return await self._decided(request)
        except Failure as failure:
            told = self._dialect.refuse(failure)
        if isinstance(told, Failure):
            raise told
        return told

    def straight(self, request: Request, tell: Tell) -> bool:
        """The same for what is known; whether that could be begun."""
        headers, dialect = request.headers, self._dialect
        text = dialect.words(request)
        request_id = headers.get(dialect.request_id, "") if dialect.request_id else ""
        told_ms = headers.get(DEADLINE_HEADER, ""), headers.get(dialect.time_out, "") if dialect.time_out else ""
        words = (text, headers.get("Authorization", ""), headers.get("X-Api-Key", ""), *told_ms, bool(request_id))
        ask = self._asks.get(words) or self._asks.meet(
            words, partial(self._plain, request, text, is_keyed=bool(request_id))
        )
        if ask is None:
            return False
        key = request_key(ask.order.charges, request_id) if request_id else ""
        return self._way.begin(ask, key, since_s=request.since_s, tell=tell)

    def _plain(self, request: Request, text: str, *, is_keyed: bool) -> Ask | None:
        """What is asked, unless it is wrong, no plain debit, or so long that it is not worth a place."""
        secret = _secret_of(request)
        if not secret or not secret.isascii() or len(secret) > SHORT or len(text) > SHORT:
            return None
        try:
            budget_ms, order = self._budget_ms(request.headers), self._dialect.read(text)
        except InvalidInput:
            return None
        if order.mode is not Mode.CONSUME:
            return None
        return Ask(
            with_request(order, "", shadow=self._shadow),
            digest=digest_of(secret),
            is_keyed=is_keyed,
            budget_ms=budget_ms,
        )

    async def _decided(self, request: Request) -> Answer:
        headers, dialect = request.headers, self._dialect
        deadline = deadline_since(request.since_s, self._budget_ms(headers))
        asked = dialect.read(dialect.words(request))
        secret = _secret_of(request)
        caller = caller_at_hand(self._directory, secret) if secret else None
        if caller is None and secret:
            caller = await caller_of_key(self._directory, secret, deadline=deadline)
        request_id = headers.get(dialect.request_id, "") if dialect.request_id else ""
        order = with_request(asked, request_id, shadow=self._shadow)
        decision = await self._gate.decide(caller, order, deadline=deadline)
        return dialect.write(decision, caller.customer_id if caller else "")

    def _budget_ms(self, headers: Mapping[str, str]) -> int:
        """How long after it came the answer is needed.

        Raises: InvalidInput.
        """
        text = headers.get(DEADLINE_HEADER, "")
        if text:
            if not (is_number(text) and 1 <= int(text) <= MAX_DEADLINE_MS):
                raise InvalidInput(f"must be a whole number from 1 to {MAX_DEADLINE_MS}", field=DEADLINE_HEADER)
            return int(text)
        waits = headers.get(self._dialect.time_out, "") if self._dialect.time_out else ""
        if is_number(waits) and int(waits):
            return max(1, min(MAX_DEADLINE_MS, int(int(waits) * _FOR_THE_WAY)))
        return self._deadline_ms


def _secret_of(request: Request) -> str:
    """The client's credential."""
    headers = request.headers
    return bearer_of(headers.get("Authorization", "")) or headers.get("X-Api-Key", "")
