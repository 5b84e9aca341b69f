"""`POST /v1/events`: usage that did not pass the gate.

One event as an object, or up to 1,000 as an array, with an operator's token. A single event is answered by its own
status: 200, or the problem that it has. An array is answered by one result for each event, in their order: 200
where all are taken, 207 where some are not; whoever sends it again after a failure sends all of it again, and what
was taken before is a duplicate.
"""

from __future__ import annotations

from gateway.admission.caller import tenant_of_operator
from gateway.edge.message import Answer, Request, require_json
from gateway.edge.reply import event_answer, failed, told
from gateway.edge.wire import EventsAnswer
from gateway.state.directory import Directory
from gateway.usage.intake import Intake

_MULTI_STATUS = 207


class EventRoute:
    """Takes events."""

    def __init__(self, intake: Intake, directory: Directory) -> None:
        self._intake = intake
        self._directory = directory

    async def take(self, request: Request) -> Answer:
        """One event or an array of them."""
        require_json(request)
        tenant_id = await tenant_of_operator(self._directory, request.headers.get("Authorization", ""))
        if not request.body.lstrip().startswith(b"["):
            taken = await self._intake.take_one(tenant_id, request.body)
            return failed(taken.failure) if taken.failure else told(event_answer(taken))
        all_taken = await self._intake.take_all(tenant_id, request.body)
        status = _MULTI_STATUS if any(taken.failure for taken in all_taken) else 200
        return told(EventsAnswer(results=[event_answer(taken) for taken in all_taken]), status=status)
