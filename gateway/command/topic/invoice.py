"""Invoices: bills with their lines and tier parts, down to the events, and what an operator does with them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType

from gateway.command.client.bill import Invoice, Line, Part, Payment, RawEvent, Replay
from gateway.command.client.page import Page, read_pages
from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.option import CustomerFilter, IdempotencyKey, Limit, ReceiptDraft, key_or_new, receipt
from gateway.command.terminal.table import day, facts_of, minor, nanos, table_of
from gateway.command.topic.payment import payment_facts

invoices = typer.Typer(name="invoices", help="Bills, their lines, and the events below them.", no_args_is_help=True)

InvoiceArgument = Annotated[str, typer.Argument(metavar="INVOICE", help="The invoice's id.")]


@hang(invoices, "list")
def list_invoices(
    desk: Desk,
    *,
    customer: CustomerFilter = "",
    state: Annotated[str, typer.Option(help="draft, finalized, paid or void.")] = "",
    limit: Limit = 100,
) -> None:
    """All invoices, or one customer's, or those in one state."""
    query = {"customer_id": customer, "state": state}
    desk.show(
        lambda planes: read_pages(planes.control, "/v1/invoices", kind=Invoice, query=query, limit=limit),
        _invoice_table,
    )


@hang(invoices, "show")
def show_invoice(desk: Desk, invoice_id: InvoiceArgument) -> None:
    """One invoice with its lines and their tier parts."""
    desk.show(lambda planes: planes.control.get(route("/v1/invoices/{}", invoice_id), Invoice), _invoice_page)


@hang(invoices, "events")
def show_events(
    desk: Desk,
    invoice_id: InvoiceArgument,
    *,
    line_no: Annotated[int, typer.Argument(metavar="LINE", min=1, help="The line's number.")],
    limit: Limit = 100,
) -> None:
    """The raw events that a line was made of."""
    path = route("/v1/invoices/{}/lines/{}/events", invoice_id, str(line_no))
    desk.show(lambda planes: read_pages(planes.control, path, kind=RawEvent, limit=limit), _event_table)


@hang(invoices, "replay")
def replay_invoice(desk: Desk, invoice_id: InvoiceArgument) -> None:
    """Make the bill again from its events and say what differs. Status 1 where anything does."""
    path = route("/v1/invoices/{}/replay", invoice_id)
    if not desk.show(lambda planes: planes.control.get(path, Replay), _replay_page).same:
        raise typer.Exit(1)


@hang(invoices, "finalize")
def finalize_invoice(desk: Desk, invoice_id: InvoiceArgument, *, idempotency_key: IdempotencyKey = "") -> None:
    """Give a draft its number; from now on it does not change."""
    _act(desk, route("/v1/invoices/{}/finalize", invoice_id), idempotency_key=idempotency_key)


@hang(invoices, "void")
def void_invoice(desk: Desk, invoice_id: InvoiceArgument, *, idempotency_key: IdempotencyKey = "") -> None:
    """Take back an invoice that is not paid; its bookings are reversed."""
    _act(desk, route("/v1/invoices/{}/void", invoice_id), idempotency_key=idempotency_key)


@hang(invoices, "pay", received=receipt)
def pay_invoice(
    desk: Desk, invoice_id: InvoiceArgument, *, received: ReceiptDraft, idempotency_key: IdempotencyKey = ""
) -> None:
    """Mark an invoice as paid by ACH or wire."""
    path, key = route("/v1/invoices/{}/payments", invoice_id), key_or_new(idempotency_key)
    desk.show(lambda planes: planes.control.post(path, Payment, body=received, idempotency_key=key), payment_facts)


def _act(desk: Desk, path: str, *, idempotency_key: str) -> None:
    key = key_or_new(idempotency_key)
    desk.show(lambda planes: planes.control.post(path, Invoice, idempotency_key=key), _invoice_page)


def _invoice_table(page: Page[Invoice]) -> RenderableType:
    return table_of(
        ("Invoice", "Number", "Customer", "For", "State", ">Total", ">Prepaid", ">Due", ">Paid", "Period"),
        (
            (
                one.invoice_id,
                one.number,
                one.customer_id,
                one.reason,
                one.state,
                *(
                    minor(amount, one.currency)
                    for amount in (one.total_minor, one.prepaid_minor, one.due_minor, one.paid_minor)
                ),
                _period(one),
            )
            for one in page.items
        ),
    )


def _period(one: Invoice | Line) -> str:
    if isinstance(one, Invoice):
        return f"{day(one.period_start_at)} to {day(one.period_end_at)}"
    return f"{day(one.service_start_at)} to {day(one.service_end_at)}"


def _invoice_page(one: Invoice) -> RenderableType:
    head = facts_of(
        (
            ("invoice", f"{one.number or 'draft'}  ({one.invoice_id})"),
            ("customer", one.customer_id),
            ("state", one.state),
            ("period", _period(one)),
        )
    )
    sums = facts_of(
        (
            ("total", minor(one.total_minor, one.currency)),
            ("prepaid", minor(one.prepaid_minor, one.currency)),
            ("due", minor(one.due_minor, one.currency)),
            ("paid", minor(one.paid_minor, one.currency)),
        )
    )
    return Group(head, "", _line_table(one), "", sums)


def _line_table(one: Invoice) -> RenderableType:
    rows: list[tuple[str | int, ...]] = []
    for line in one.lines:
        rows.append(
            (
                line.line_no,
                line.description,
                line.quantity,
                "" if line.wallet else minor(line.amount_minor, one.currency),
                nanos(line.wallet_nanos, line.wallet) if line.wallet else minor(line.prepaid_minor, one.currency),
                line.event_count,
                _period(line),
            )
        )
        if line.unpaid_nanos:
            rows.append(("", "  not paid, not due", "", "", nanos(line.unpaid_nanos, line.wallet), "", ""))
        rows += [
            (
                "",
                f"  {_part(part)}",
                part.quantity,
                _exact(part.amount_nanos, line.wallet or one.currency),
                "",
                "",
                "",
            )
            for part in line.parts
            if len(line.parts) > 1
        ]
    return table_of((">Line", "What", ">Quantity", ">Amount", ">Prepaid", ">Events", "Service"), rows)


def _part(part: Part) -> str:
    return f"tier {part.tier_index + 1}" if part.kind == "tier" else part.kind


def _exact(amount_nanos: str, currency: str) -> str:
    """A part's exact amount: a whole number of nanos as money, a fraction of one as it is written."""
    if amount_nanos.lstrip("-").isdigit():
        return nanos(int(amount_nanos), currency)
    return f"{amount_nanos} nanos"


def _event_table(page: Page[RawEvent]) -> RenderableType:
    return table_of(
        ("Event", "Name", "Source", "At", ">Quantity", ">Charged (nanos)"),
        (
            (
                one.event_id,
                one.name,
                one.source,
                "" if one.event_at is None else one.event_at.isoformat(),
                one.quantity,
                one.charged_nanos,
            )
            for one in page.items
        ),
    )


def _replay_page(shown: Replay) -> RenderableType:
    if shown.same:
        return f"The same bill to the byte, line for line ({shown.line_count})."
    return table_of(
        (">Line", "Field", "Billed", "Replayed"),
        ((one.line_no, one.field, one.billed, one.replayed) for one in shown.differences),
        title="The bill differs",
    )
