"""Replay: make an invoice again from raw events and the stored plan version, and say what differs.

A line keeps the version of its plan, its period of service and its cut, so everything that made it can be read
again. Drilling down goes the same way: a line names its meter, the meter its events, and the events come in pages.
"""

from __future__ import annotations

from datetime import datetime

from billing_core.errors import NotFound, Unprocessable
from billing_core.flows.billing.rate import calendar_for, rate
from billing_core.flows.billing.subscribe import fee_share
from billing_core.invoices.correction import place_of
from billing_core.invoices.invoice import Invoice
from billing_core.invoices.line import Line, LineKind, fee_line, wallet_of, wallets_of
from billing_core.invoices.replay import Difference, Replay, compared, corrected_again
from billing_core.metering.reading import MeteredEvent, Span
from billing_core.store import meter as meters
from billing_core.store.billing import invoice as invoices
from billing_core.store.billing import subscription as subscriptions
from billing_core.store.billing.subscription import PeriodKey
from billing_core.store.database import Transaction
from billing_core.store.meter import Place, Source
from billing_core.store.setup.catalog import plan_version


async def replay(tx: Transaction, *, tenant_id: str, invoice_id: str) -> Replay:
    """Make every line again and compare.

    Raises: NotFound.
    """
    invoice = await invoices.by_id(tx, tenant_id=tenant_id, invoice_id=invoice_id)
    numbered = await invoices.lines_of(tx, tenant_id=tenant_id, invoice_id=invoice_id)
    differences: list[Difference] = []
    for one in numbered:
        again = await _again(tx, invoice, line=one.line)
        differences += compared(one.line_no, one.line, again=again)
    return Replay(
        invoice_id=invoice_id,
        is_same=not differences,
        lines=len(numbered),
        differences=tuple(differences),
    )


async def events_of_line(
    tx: Transaction, *, tenant_id: str, invoice_id: str, line_no: int, after: Place, count: int
) -> list[MeteredEvent]:
    """The raw events behind a line, in the order of their time; of a correction, all that its rating was made of.

    Raises: NotFound; Unprocessable for a fee, which no event made.
    """
    numbered = await invoices.lines_of(tx, tenant_id=tenant_id, invoice_id=invoice_id)
    line = next((one.line for one in numbered if one.line_no == line_no), None)
    if line is None:
        raise NotFound(f"invoice {invoice_id!r} has no line {line_no}", field="line_no")
    if line.kind is LineKind.FEE or line.recorded_until is None:
        raise Unprocessable("a fee is made of no events", field="line_no")
    invoice = await invoices.by_id(tx, tenant_id=tenant_id, invoice_id=invoice_id)
    version = await plan_version(tx, tenant_id, plan_code=line.plan_code, version=line.plan_version)
    price = version.terms.price(line.price_code)
    source = Source(
        span=Span(customer_id=invoice.customer_id, start_at=line.service_start_at, end_at=line.service_end_at),
        event=version.terms.meter(line.meter_code).event,
        recorded_until=line.recorded_until,
        group_key=line.group_key,
        wallets=wallets_of(version, price),
        wallet=wallet_of(version, price),
    )
    return await meters.events(tx, tenant_id, source=source, after=after, count=count)


async def _again(tx: Transaction, invoice: Invoice, *, line: Line) -> Line | None:
    key = await _key(tx, invoice, line=line)
    if line.kind is LineKind.FEE:
        version = await plan_version(tx, invoice.tenant_id, plan_code=line.plan_code, version=line.plan_version)
        return fee_line(version, line.service, share=fee_share(calendar_for(key, version), line.service))
    cut_at = _cut_of(line)
    rated = await rate(tx, invoice.tenant_id, keys=[key], recorded_until=cut_at)
    again = rated[(key.subscription_id, key.start_at)].lines
    if line.kind is LineKind.CORRECTION:
        return corrected_again(line, again)
    return next((one for one in again if place_of(one) == place_of(line)), None)


def _cut_of(line: Line) -> datetime:
    if line.recorded_until is None:
        raise Unprocessable("a line of usage names the cut that it was made at", field="line_no")
    return line.recorded_until


async def _key(tx: Transaction, invoice: Invoice, *, line: Line) -> PeriodKey:
    """The period that the line serves, under the terms that the line was made with."""
    tenant_id, subscription_id = invoice.tenant_id, invoice.subscription_id
    subscription = await subscriptions.by_id(tx, tenant_id=tenant_id, subscription_id=subscription_id)
    period = await subscriptions.period_at(
        tx, tenant_id=tenant_id, subscription_id=subscription_id, start_at=line.service_start_at
    )
    return PeriodKey(
        subscription_id=invoice.subscription_id,
        customer_id=invoice.customer_id,
        start_at=line.service_start_at,
        end_at=line.service_end_at,
        plan_code=line.plan_code,
        plan_version=line.plan_version,
        anchor_at=period.anchor_at,
        time_zone=subscription.time_zone,
    )
