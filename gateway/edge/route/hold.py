"""`POST /v1/holds/{id}/settle` and `/release`: how a hold ends.

The id is the credential: it was told to whoever placed the hold, and it cannot be guessed. Settling takes what was
really used, as `feature` and `quantity` or as `charges`; a feature that is not named settles as held, so an empty
body settles the hold as it stands. More than was held is charged if it can be, and the answer says how much was
not.
"""

from __future__ import annotations

import msgspec

from billing_core.contract.document import decode_strictly
from billing_core.errors import InvalidInput
from gateway.admission.deadline import deadline_in
from gateway.admission.gate import Gate
from gateway.edge.message import Answer, Request, require_json
from gateway.edge.reply import settle_answer, told
from gateway.edge.route.check import charges_of
from gateway.edge.wire import ReleaseRequest, SettleRequest

_SETTLE = msgspec.json.Decoder(SettleRequest)
_RELEASE = msgspec.json.Decoder(ReleaseRequest)


class HoldRoute:
    """Ends holds."""

    def __init__(self, gate: Gate, *, deadline_ms: int) -> None:
        self._gate = gate
        self._deadline_ms = deadline_ms

    async def settle(self, request: Request) -> Answer:
        """End the hold by what was used."""
        deadline = deadline_in(self._deadline_ms)
        asked = SettleRequest()
        if request.body:
            require_json(request)
            asked = decode_strictly(request.body, _SETTLE)
        if asked.feature is not None and asked.quantity is None:
            raise InvalidInput("is required beside `feature`", field="quantity")
        charges = charges_of(asked.feature, asked.quantity, charges=asked.charges)
        deadline = deadline.within(asked.deadline_ms)
        return told(
            settle_answer(request.subject, await self._gate.settle(request.subject, charges, deadline=deadline))
        )

    async def release(self, request: Request) -> Answer:
        """End the hold without a charge."""
        deadline = deadline_in(self._deadline_ms)
        if request.body:
            require_json(request)
            deadline = deadline.within(decode_strictly(request.body, _RELEASE).deadline_ms)
        return told(settle_answer(request.subject, await self._gate.release(request.subject, deadline=deadline)))
