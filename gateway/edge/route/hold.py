"""`POST /v1/holds/{id}/settle`, `/release` and `/extend`: how a hold ends, and how it goes on.

The id is the credential: it was told to whoever placed the hold, and it cannot be guessed. Settling takes what
was really used, as `feature` and `quantity` or as `charges`; a feature that is not named settles as held, so an
empty body settles the hold as it stands. More than was held is charged if it can be, and the answer says how
much was not. With `final` false only a part is settled: it is charged now and the rest stays held, for work that
is charged as it goes. Extending keeps the hold for longer and sets more aside on it, decided like a hold, all or
nothing.
"""

from __future__ import annotations

import msgspec

from billing_core.contract.document import decode_strictly
from billing_core.errors import InvalidInput, Unavailable
from gateway.admission.deadline import Deadline, deadline_since
from gateway.admission.hold import Change, Holds
from gateway.admission.reason import RULES, Reason
from gateway.edge.message import Answer, Request, require_json
from gateway.edge.reply import check_answer, part_answer, settle_answer, told
from gateway.edge.route.order import used_charges
from gateway.edge.wire import ExtendRequest, ReleaseRequest, SettleRequest

_SETTLE = msgspec.json.Decoder(SettleRequest)
_EXTEND = msgspec.json.Decoder(ExtendRequest)
_RELEASE = msgspec.json.Decoder(ReleaseRequest)


class HoldRoute:
    """Changes and ends holds."""

    def __init__(self, holds: Holds, *, deadline_ms: int) -> None:
        self._holds = holds
        self._deadline_ms = deadline_ms

    async def settle(self, request: Request) -> Answer:
        """End the hold by what was used."""
        asked = SettleRequest()
        if request.body:
            require_json(request)
            asked = decode_strictly(request.body, _SETTLE)
        charges = used_charges(asked.feature, asked.quantity, charges=asked.charges)
        deadline = self._deadline(request, asked.deadline_ms)
        if asked.final:
            for name, value in (("ttl_ms", asked.ttl_ms), ("idempotency_key", asked.idempotency_key)):
                if value is not None:
                    raise InvalidInput("has a meaning beside `final`: false only", field=name)
            outcome = await self._holds.settle(request.subject, charges, deadline=deadline)
            return told(settle_answer(request.subject, outcome))
        if not charges:
            raise InvalidInput("one of `feature` and `charges` is required for a part", field="feature")
        change = Change(charges=charges, ttl_ms=asked.ttl_ms or 0, idempotency_key=asked.idempotency_key or "")
        part = await self._holds.part(request.subject, change, deadline=deadline)
        return told(part_answer(request.subject, part))

    async def extend(self, request: Request) -> Answer:
        """Keep the hold for longer, and set more aside on it where more is named."""
        require_json(request)
        asked = decode_strictly(request.body, _EXTEND)
        charges = used_charges(asked.feature, asked.quantity, charges=asked.charges)
        change = Change(charges=charges, ttl_ms=asked.ttl_ms, idempotency_key=asked.idempotency_key or "")
        deadline = self._deadline(request, asked.deadline_ms)
        decision = await self._holds.extend(request.subject, change, deadline=deadline)
        if decision.reason is Reason.UNAVAILABLE:
            raise Unavailable(RULES[Reason.UNAVAILABLE].title)
        return told(check_answer(decision, None))

    async def release(self, request: Request) -> Answer:
        """End the hold without a charge."""
        asked = ReleaseRequest()
        if request.body:
            require_json(request)
            asked = decode_strictly(request.body, _RELEASE)
        deadline = self._deadline(request, asked.deadline_ms)
        return told(settle_answer(request.subject, await self._holds.release(request.subject, deadline=deadline)))

    def _deadline(self, request: Request, told_ms: int | None) -> Deadline:
        return deadline_since(request.since_s, told_ms or self._deadline_ms)
