"""Usage: events that did not pass the gate, and what was metered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway.command.client.answer import Answer
from gateway.command.client.bill import Usage
from gateway.command.client.decision import EventAnswers, LiveUsage
from gateway.command.client.door import Planes
from gateway.command.client.plane import Body
from gateway.command.client.route import route
from gateway.command.gate.view import event_page, live_page, usage_table
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.document import read_events
from gateway.command.terminal.option import CustomerArgument, Since, Until, instant_or_none

events = typer.Typer(name="events", help="Usage that did not pass the gate.", no_args_is_help=True)

_BATCH = 500
_EVENTS = "application/json"
_CLOUD_EVENTS = "application/cloudevents-batch+json"


@hang(events, "send")
def send_events(
    desk: Desk,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="One event, a JSON array or one a line; - is stdin.")
    ],
    *,
    cloudevents: Annotated[bool, typer.Option("--cloudevents", help="They are CloudEvents 1.0.")] = False,
) -> None:
    """Send events, with an answer for each. Status 1 where any was rejected."""
    media_type = _CLOUD_EVENTS if cloudevents else _EVENTS
    answers = desk.show(lambda planes: _send(planes, read_events(file), media_type=media_type), event_page)
    if any(one.status == "rejected" for one in answers.results):
        raise typer.Exit(1)


async def _send(planes: Planes, documents: list[msgspec.Raw], *, media_type: str) -> Answer[EventAnswers]:
    """Send in batches; the answers are joined in the order of the file."""
    joined = EventAnswers()
    for start in range(0, len(documents), _BATCH):
        body = Body(msgspec.json.encode(documents[start : start + _BATCH]), media_type)
        answer = await planes.gateway.send("/v1/events", EventAnswers, body=body)
        joined = EventAnswers(results=joined.results + answer.value.results)
    return Answer(value=joined, raw=msgspec.json.encode(joined))


def show_usage(  # noqa: PLR0913 - the options of a command
    desk: Desk,
    customer_id: CustomerArgument,
    *,
    meter: Annotated[str, typer.Option(help="Only this meter.")] = "",
    since: Since = "",
    until: Until = "",
    group_by: Annotated[str, typer.Option(help="Tell apart by these properties, joined by commas.")] = "",
    path: Annotated[str, typer.Option(help="Live, the limits of these levels too: team:ml/key:k1.")] = "",
    live: Annotated[bool, typer.Option("--live", help="Features and limits as the gateway sees them now.")] = False,
) -> None:
    """What was metered for a customer; live, what it may use and has used in the open windows."""
    query = {
        "meter": meter,
        "from": instant_or_none(since, field="from") or "",
        "to": instant_or_none(until, field="to") or "",
        "group_by": group_by,
    }
    place = route("/v1/customers/{}/usage", customer_id)
    if live:
        desk.show(lambda planes: planes.gateway.get(place, LiveUsage, query={"path": path}), live_page)
        return
    desk.show(lambda planes: planes.control.get(place, Usage, query=query), usage_table)
