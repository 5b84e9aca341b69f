"""All commands that speak over HTTP, hung up in one place."""

from __future__ import annotations

import typer

from gateway.command.gate import check, hold, openapi, receipt, usage
from gateway.command.replay.command import replay
from gateway.command.standing import addon, budget, entitlement
from gateway.command.terminal.desk import hang
from gateway.command.topic import book, catalog, customer, invoice, payment, subscription, tenant, wallet


def hang_all(app: typer.Typer) -> None:
    """Register every topic's commands."""
    hang(app, "replay")(replay)
    hang(app, "check", terms=check.terms)(check.check)
    hang(app, "check-batch")(check.check_batch)
    hang(app, "usage")(usage.show_usage)
    hang(app, "openapi")(openapi.show_openapi)
    book.hang_here(app)
    for topic in (
        hold.holds,
        usage.events,
        receipt.receipts,
        catalog.catalog,
        customer.customers,
        customer.keys,
        subscription.subscriptions,
        addon.addons,
        entitlement.entitlements,
        budget.budgets,
        wallet.wallets,
        invoice.invoices,
        payment.payments,
        book.ledger,
        tenant.tenants,
        tenant.tokens,
        tenant.clock,
    ):
        app.add_typer(topic)
