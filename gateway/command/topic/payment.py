"""Payments: every attempt to move money, and what became of it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType

from gateway.command.client.bill import Payment
from gateway.command.client.page import Page, read_pages
from gateway.command.client.route import route
from gateway.command.terminal.desk import Desk, hang
from gateway.command.terminal.option import CustomerFilter, IdempotencyKey, Limit, ReceiptDraft, key_or_new, receipt
from gateway.command.terminal.table import day, facts_of, minor, table_of

payments = typer.Typer(name="payments", help="Attempts to move money.", no_args_is_help=True)


PaymentArgument = Annotated[str, typer.Argument(metavar="PAYMENT", help="The payment's id.")]


@hang(payments, "list")
def list_payments(
    desk: Desk,
    *,
    customer: CustomerFilter = "",
    invoice: Annotated[str, typer.Option(help="Only this invoice's.")] = "",
    state: Annotated[str, typer.Option(help="pending, processing, succeeded, failed or canceled.")] = "",
    limit: Limit = 100,
) -> None:
    """All payments, or one customer's, one invoice's, or those in one state."""
    query = {"customer_id": customer, "invoice_id": invoice, "state": state}
    desk.show(
        lambda planes: read_pages(planes.control, "/v1/payments", kind=Payment, query=query, limit=limit),
        payment_table,
    )


@hang(payments, "receive", received=receipt)
def receive_payment(
    desk: Desk, payment_id: PaymentArgument, *, received: ReceiptDraft, idempotency_key: IdempotencyKey = ""
) -> None:
    """Note that an awaited ACH or wire has come: it pays its invoice, or fills the wallet."""
    path, key = route("/v1/payments/{}/receipts", payment_id), key_or_new(idempotency_key)
    desk.show(lambda planes: planes.control.post(path, Payment, body=received, idempotency_key=key), payment_facts)


@hang(payments, "show")
def show_payment(desk: Desk, payment_id: PaymentArgument) -> None:
    """One payment."""
    desk.show(lambda planes: planes.control.get(route("/v1/payments/{}", payment_id), Payment), payment_facts)


def payment_table(page: Page[Payment]) -> RenderableType:
    """Payments, one a line."""
    return table_of(
        ("Payment", "Customer", "For", "Method", ">Amount", "State", ">Attempt", "Created"),
        (
            (
                one.payment_id,
                one.customer_id,
                one.invoice_id or one.purpose,
                one.method,
                minor(one.amount_minor, one.currency),
                one.state,
                one.attempt,
                day(one.created_at),
            )
            for one in page.items
        ),
    )


def payment_facts(one: Payment) -> RenderableType:
    """One payment, all that is known."""
    return facts_of(
        (
            ("payment", one.payment_id),
            ("customer", one.customer_id),
            ("for", one.invoice_id or one.purpose),
            ("amount", minor(one.amount_minor, one.currency)),
            ("method", one.method),
            ("reference", one.reference),
            ("state", one.state),
            ("attempt", one.attempt),
            ("failure", one.failure_code),
            ("created", day(one.created_at)),
            ("settled", day(one.settled_at)),
        )
    )
