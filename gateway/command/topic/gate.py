"""The gate: checks, holds and events at the data plane, and what was metered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType

from billing_core.errors import InvalidInput
from gateway.command.client.answer import Answer
from gateway.command.client.bill import Usage
from gateway.command.client.decision import BatchAnswer, BatchItem, Decision, EventAnswers, HoldEnd, LiveUsage
from gateway.command.client.door import Planes
from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.document import read_events
from gateway.command.terminal.option import CustomerArgument, Since, Until, instant_or_none
from gateway.command.terminal.table import facts_of, nanos, table_of

holds = typer.Typer(name="holds", help="Settle or release what was set aside.", no_args_is_help=True)
events = typer.Typer(name="events", help="Usage that did not pass the gate.", no_args_is_help=True)

_BATCH = 500

ChargesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FEATURE[=QUANTITY]...", help="What is asked for; the quantity is 1 if left out."),
]
UsedArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FEATURE=QUANTITY]...", help="What was really used; all that was held if left out."),
]
HoldArgument = Annotated[str, typer.Argument(metavar="HOLD", help="The hold's id.")]


class _CheckDraft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A check as the gateway takes it."""

    charges: list[dict[str, str | int]]
    key: str | None = None
    customer: str | None = None
    mode: str = "consume"
    ttl_ms: int | None = None
    idempotency_key: str | None = None


def check(  # noqa: PLR0913 - the options of a command
    desk: Desk,
    charges: ChargesArgument,
    *,
    key: Annotated[str, typer.Option(envvar="TALLYGATE_KEY", help="The caller's API key.")] = "",
    customer: Annotated[str, typer.Option(help="Or the customer's id, with an operator token.")] = "",
    mode: Annotated[str, typer.Option(help="consume, peek or hold.")] = "consume",
    ttl_ms: Annotated[int | None, typer.Option(help="How long a hold lives.")] = None,
    idempotency_key: Annotated[str, typer.Option(help="A retry under the same key gets the first answer.")] = "",
) -> None:
    """Ask the gate: may this caller do this now? Status 1 where it is refused."""
    draft = _CheckDraft(
        charges=[charge_of(text) for text in charges],
        key=key or None,
        customer=customer or None,
        mode=mode,
        ttl_ms=ttl_ms,
        idempotency_key=idempotency_key or None,
    )
    if not desk.show(lambda planes: planes.gateway.post("/v1/check", Decision, body=draft), _decision_page).allowed:
        raise typer.Exit(1)


def check_batch(
    desk: Desk,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Bodies of checks in JSON, an array or one a line.")],
) -> None:
    """Ask the gate many things at once; one answer each, in their order."""
    body = {"checks": read_events(file)}
    desk.show(lambda planes: planes.gateway.post("/v1/check/batch", BatchAnswer, body=body), _batch_table)


@hang(holds, "settle")
def settle(desk: Desk, hold_id: HoldArgument, *, charges: UsedArgument = None) -> None:
    """End a hold with what was really used; what is not named settles as held."""
    path = route("/v1/holds/{}/settle", hold_id)
    body = {"charges": [charge_of(text) for text in charges]} if charges else {}
    desk.show(lambda planes: planes.gateway.post(path, HoldEnd, body=body), _hold_facts)


@hang(holds, "release")
def release(desk: Desk, hold_id: HoldArgument) -> None:
    """End a hold without charging anything."""
    path = route("/v1/holds/{}/release", hold_id)
    desk.show(lambda planes: planes.gateway.post(path, HoldEnd), _hold_facts)


@hang(events, "send")
def send_events(
    desk: Desk,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="One event, a JSON array or one a line; - is stdin.")
    ],
) -> None:
    """Send events, with an answer for each. Status 1 where any was rejected."""
    answers = desk.show(lambda planes: _send(planes, read_events(file)), _event_page)
    if any(one.status == "rejected" for one in answers.results):
        raise typer.Exit(1)


async def _send(planes: Planes, documents: list[msgspec.Raw]) -> Answer[EventAnswers]:
    """Send in batches; the answers are joined in the order of the file."""
    joined = EventAnswers()
    for start in range(0, len(documents), _BATCH):
        answer = await planes.gateway.post("/v1/events", EventAnswers, body=documents[start : start + _BATCH])
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
    live: Annotated[bool, typer.Option("--live", help="Features and limits as the gateway sees them now.")] = False,
) -> None:
    """What was metered for a customer; live, what it may use and has used in the open windows."""
    query = {
        "meter": meter,
        "from": instant_or_none(since, field="from") or "",
        "to": instant_or_none(until, field="to") or "",
        "group_by": group_by,
    }
    path = route("/v1/customers/{}/usage", customer_id)
    if live:
        desk.show(lambda planes: planes.gateway.get(path, LiveUsage), _live_table)
        return
    desk.show(lambda planes: planes.control.get(path, Usage, query=query), _usage_table)


def hang_here(app: typer.Typer) -> None:
    """Register the commands that stand alone."""
    hang(app, "check")(check)
    hang(app, "check-batch")(check_batch)
    hang(app, "usage")(show_usage)


def charge_of(text: str) -> dict[str, str | int]:
    """`tokens=12` as a charge.

    Raises: InvalidInput where the quantity is no whole number.
    """
    feature, _, quantity = text.partition("=")
    if quantity and not quantity.isdecimal():
        raise InvalidInput(f"{quantity!r} is not a whole number", field=feature)
    return {"feature": feature, "quantity": int(quantity or 1)}


def _decision_page(one: Decision) -> RenderableType:
    head = facts_of(
        (
            ("decision", "allowed" if one.allowed else f"refused: {one.reason} {one.refused_feature}".rstrip()),
            ("customer", one.customer),
            ("cost", "" if one.currency is None else nanos(one.cost_nanos, one.currency)),
            ("balance", _money(one.balance_nanos, one.currency)),
            ("hold", None if one.hold is None else one.hold.id),
            ("expires", None if one.hold is None else one.hold.expires_at.isoformat()),
            ("retry after", None if one.retry_after_ms is None else f"{one.retry_after_ms} ms"),
        )
    )
    charges = table_of(
        ("Feature", ">Limit", ">Remaining", "Resets", ">Cost", "Value"),
        (
            (
                charge.feature,
                charge.limit_units,
                charge.remaining_units,
                "" if charge.reset_at is None else charge.reset_at.isoformat(),
                _money(charge.cost_nanos, one.currency),
                charge.value,
            )
            for charge in one.charges
        ),
    )
    return Group(head, "", charges) if one.charges else head


def _batch_table(shown: BatchAnswer) -> RenderableType:
    return table_of(
        (">Check", "Decision", ">Cost", ">Balance", "Hold"),
        ((number, *_batch_cells(one)) for number, one in enumerate(shown.answers, 1)),
    )


def _batch_cells(one: BatchItem) -> tuple[str, ...]:
    if one.problem is not None:
        return (f"no decision: {one.problem.detail}", "", "", "")
    said = "allowed" if one.allowed else f"refused: {one.reason} {one.refused_feature}".rstrip()
    hold = "" if one.hold is None else one.hold.id
    return (said, _money(one.cost_nanos, one.currency), _money(one.balance_nanos, one.currency), hold)


def _money(amount_nanos: int | None, currency: str | None) -> str:
    return "" if amount_nanos is None or currency is None else nanos(amount_nanos, currency)


def _hold_facts(one: HoldEnd) -> RenderableType:
    return facts_of(
        (
            ("hold", one.hold),
            ("outcome", one.outcome),
            ("charged", _money(one.charged_nanos, one.currency)),
            ("released", _money(one.released_nanos, one.currency)),
            ("uncollected", _money(one.uncollected_nanos, one.currency) if one.uncollected_nanos else ""),
            ("balance", _money(one.balance_nanos, one.currency)),
        )
    )


def _event_page(shown: EventAnswers) -> RenderableType:
    counts = {status: sum(one.status == status for one in shown.results) for status in ("accepted", "duplicate")}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none accepted"
    rejected = [one for one in shown.results if one.status == "rejected"]
    if not rejected:
        return said
    table = table_of(
        ("Rejected", "Field", "Rule"),
        (
            (one.id, one.problem.field if one.problem else "", one.problem.detail if one.problem else "")
            for one in rejected
        ),
    )
    return Group(said, table)


def _live_table(shown: LiveUsage) -> RenderableType:
    return table_of(
        ("Feature", "Kind", ">Used", ">Held", ">Limit", ">Remaining", "Resets", "Value"),
        (
            (
                one.feature,
                one.kind,
                one.used_units if one.kind == "metered" else None,
                one.held_units or None,
                one.limit_units,
                one.remaining_units,
                "" if one.reset_at is None else one.reset_at.isoformat(),
                one.value if one.kind != "switch" else ("on" if one.enabled else "off"),
            )
            for one in shown.features
        ),
    )


def _usage_table(shown: Usage) -> RenderableType:
    return table_of(
        ("Meter", "Group", ">Quantity", ">Events", ">Unreadable"),
        (
            (
                one.meter,
                " ".join(f"{name}={value}" for name, value in one.group.items()),
                one.quantity,
                one.event_count,
                one.unreadable_count or None,
            )
            for one in shown.items
        ),
    )
