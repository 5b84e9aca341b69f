"""`POST /v1/events`: usage that did not pass the gate.

With an operator's token, in one of five forms, which Content-Type tells:

    application/json                    one event as an object, or up to 1,000 as an array
    application/x-ndjson                up to 1,000, one a line; lines without anything in them are passed over
    application/cloudevents+json        a CloudEvent, in structured mode
    application/cloudevents-batch+json  up to 1,000 CloudEvents
    application/json, `ce-` headers     a CloudEvent, in binary mode: the body is its data

A single event is answered by its own status: 200, or the problem that it has. Several are answered by one result
for each, in their order: 200 where all are taken, 207 where some are not; what is wrong with one, be it no JSON,
spoils no other line (an array that is no JSON has no entries, and is refused whole). Whoever sends it again after a
failure sends all of it again, and what was taken before is a duplicate, in whichever form it comes.
"""

from __future__ import annotations

from typing import Final

from gateway.admission.caller import tenant_of_operator
from gateway.edge.message import JSON, Answer, Request, media_type_of, require_json
from gateway.edge.reply import event_answer, failed, told
from gateway.edge.wire import EventsAnswer
from gateway.state.directory import Directory
from gateway.usage.batch import CLOUD, OWN, Batch, Form, array_of, cloud_events_of, lines_of
from gateway.usage.cloudevent import is_binary, structured
from gateway.usage.intake import Intake

NDJSON: Final = "application/x-ndjson"
CLOUD_EVENT: Final = "application/cloudevents+json"
CLOUD_EVENTS: Final = "application/cloudevents-batch+json"
_SEVERAL: Final = {NDJSON: lines_of, CLOUD_EVENTS: cloud_events_of}
_MULTI_STATUS = 207


class EventRoute:
    """Takes events."""

    def __init__(self, intake: Intake, directory: Directory) -> None:
        self._intake = intake
        self._directory = directory

    async def take(self, request: Request) -> Answer:
        """One event, or several."""
        media_type = media_type_of(request)
        if media_type not in _SEVERAL:
            require_json(request)
        tenant_id = await tenant_of_operator(self._directory, request.headers.get("Authorization", ""))
        if media_type in _SEVERAL:
            return await self._take_all(tenant_id, _SEVERAL[media_type](request.body))
        if media_type == CLOUD_EVENT:
            return await self._take_one(tenant_id, request.body, form=CLOUD)
        if is_binary(request.headers):
            declared = request.headers.get("Content-Type", JSON)
            raw = structured(request.headers, request.body, content_type=declared)
            return await self._take_one(tenant_id, raw, form=CLOUD)
        if request.body.lstrip().startswith(b"["):
            return await self._take_all(tenant_id, array_of(request.body))
        return await self._take_one(tenant_id, request.body, form=OWN)

    async def _take_one(self, tenant_id: str, raw: bytes, *, form: Form) -> Answer:
        taken = await self._intake.take_one(tenant_id, raw, form=form)
        return failed(taken.failure) if taken.failure else told(event_answer(taken))

    async def _take_all(self, tenant_id: str, batch: Batch) -> Answer:
        all_taken = await self._intake.take_all(tenant_id, batch)
        status = _MULTI_STATUS if any(taken.failure for taken in all_taken) else 200
        return told(EventsAnswer(results=[event_answer(taken) for taken in all_taken]), status=status)
