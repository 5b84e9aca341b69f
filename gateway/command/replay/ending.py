"""The ending: the period closes, bills are collected and revenue is recognized, as it would be in a month.

Nothing is forced: the sandbox's clock is moved to the end of the period, and the house does the rest by itself.
What people do in life is done here over the API: the operator marks the transfers that came by ACH and wire.
Everything else is waited for, by asking until it is so or patience is over; then the proof shows what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, TypeVar

from billing_core.errors import Unprocessable
from billing_core.values.money import NANOS_PER_UNIT, to_nanos
from gateway.command.client.account import Clock, Subscription
from gateway.command.client.bill import (
    Invoice,
    Line,
    Payment,
    Reconciliation,
    Revenue,
    TrialBalance,
    Usage,
    Wallets,
)
from gateway.command.client.persistence import PatientPlane
from gateway.command.client.route import route
from gateway.command.replay.list_price import INPUT, OUTPUT, ListPrice
from gateway.command.replay.proof import Account, Books, exact_nanos
from gateway.command.replay.stage import Seat

Value = TypeVar("Value")

_PAUSE_S: Final = 0.2
_PERIOD: Final = "period"
_OPEN: Final = ("draft", "finalized")
_FEE: Final = "fee"
_USAGE_REVENUE: Final = "revenue_usage"
_FEE_REVENUE: Final = "revenue_fees"


class Ending:
    """The rest of the story of one run. `patience_s` bounds each wait."""

    def __init__(
        self, operator: PatientPlane, seats: tuple[Seat, ...], *, price: ListPrice, patience_s: float
    ) -> None:
        self._operator = operator
        self._seats = seats
        self._price = price
        self._patience_s = patience_s

    async def await_flush(self) -> bool:
        """Wait until Postgres holds all usage; whether it does."""
        return await self._until(self._is_flushed)

    async def close_period(self, run: str) -> datetime:
        """Move the clock to the end of the open period; that instant.

        Raises: Unprocessable where a customer has no open period.
        """
        ends: list[datetime] = []
        for seat in self._seats:
            path = route("/v1/subscriptions/{}", seat.subscription.subscription_id)
            now = await self._operator.get(path, Subscription)
            if now.period is None:
                raise Unprocessable(f"{seat.actor.customer_id} has no open period")
            ends.append(now.period.end_at)
        end = max(ends)
        body = {"to": end.isoformat()}
        await self._operator.post("/v1/clock/advance", Clock, body=body, idempotency_key=f"{run}-clock")
        return end

    async def await_bills(self) -> bool:
        """Wait until every customer has the bill of the period; whether it has."""
        return await self._until(self._are_billed)

    async def mark_transfers(self, run: str) -> int:
        """Mark the open bills of those who pay by ACH or wire as paid; how many."""
        methods = {seat.actor.customer_id: seat.actor.method for seat in self._seats if seat.actor.is_offline}
        bills = [
            bill
            for bill in await self._operator.pages("/v1/invoices", Invoice)
            if bill.customer_id in methods and bill.state == "finalized"
        ]
        for bill in bills:
            await self._operator.post(
                route("/v1/invoices/{}/payments", bill.invoice_id),
                Payment,
                body={"method": methods[bill.customer_id].value, "reference": f"{run} {bill.number}"},
                idempotency_key=f"{run}-{bill.invoice_id}-paid",
            )
        return len(bills)

    async def await_collection(self) -> bool:
        """Wait until no bill is open; whether none is."""
        return await self._until(self._are_collected)

    async def await_revenue(self, until: datetime) -> bool:
        """Wait until all usage, and the fees of periods that ended by then, are recognized; whether they are."""
        lines = [line for bill in await self._bills() for line in bill.lines]
        served = to_nanos(sum(line.amount_minor for line in lines if _is_served(line, until)), self._price.currency)

        async def is_recognized() -> bool:
            revenue = await self._operator.get("/v1/revenue", Revenue)
            found = sum(one.nanos for one in revenue.items if one.account in (_USAGE_REVENUE, _FEE_REVENUE))
            return found == served + sum(exact_nanos(seat.actor, self._price) for seat in self._seats)

        return await self._until(is_recognized)

    async def accounts(self, charged_nanos: list[int], *, until: datetime) -> tuple[Account, ...]:
        """What the house says of each customer; `charged_nanos` is what the gate's answers added up to."""
        bills = await self._bills()
        revenue = await self._operator.get("/v1/revenue", Revenue)
        return tuple(
            [
                await self._account(
                    seat,
                    [bill for bill in bills if bill.customer_id == seat.actor.customer_id],
                    revenue=revenue,
                    charged_nanos=charged,
                    until=until,
                )
                for seat, charged in zip(self._seats, charged_nanos, strict=True)
            ]
        )

    async def books(self, run: str) -> Books:
        """What the house says of all customers together."""
        shown = await self._operator.get("/v1/ledger/trial-balance", TrialBalance)
        proof = await self._operator.post("/v1/reconcile", Reconciliation, idempotency_key=f"{run}-reconcile")
        return Books(
            accounts={one.account: one.nanos for one in shown.accounts},
            reconcile_nanos=proof.difference_nanos,
            reconcile_findings=len(proof.findings),
        )

    async def _bills(self) -> list[Invoice]:
        """All bills that count, with their lines."""
        return [
            await self._operator.get(route("/v1/invoices/{}", bill.invoice_id), Invoice)
            for bill in await self._operator.pages("/v1/invoices", Invoice)
            if bill.state != "void"
        ]

    async def _account(
        self, seat: Seat, bills: list[Invoice], *, revenue: Revenue, charged_nanos: int, until: datetime
    ) -> Account:
        name = seat.actor.customer_id
        wallets = await self._operator.get(route("/v1/customers/{}/wallets", name), Wallets)
        lines = [line for bill in bills for line in bill.lines]
        inputs = [line for line in lines if line.meter_code == INPUT]
        outputs = [line for line in lines if line.meter_code == OUTPUT]
        period = next((bill for bill in bills if bill.reason == _PERIOD), None)
        recognized = Counter[str]()
        for one in revenue.items:
            if one.customer_id == name:
                recognized[one.account] += one.nanos
        return Account(
            actor=seat.actor,
            number=(period.number or "") if period else "",
            state=period.state if period else "missing",
            input_units=sum(int(line.quantity) for line in inputs),
            output_units=sum(int(line.quantity) for line in outputs),
            input_minor=sum(line.amount_minor for line in inputs),
            output_minor=sum(line.amount_minor for line in outputs),
            usage_prepaid_minor=sum(line.prepaid_minor for line in (*inputs, *outputs)),
            fees_minor=sum(line.amount_minor for line in lines if line.kind == _FEE),
            served_fees_minor=sum(line.amount_minor for line in lines if _is_served(line, until)),
            total_minor=sum(bill.total_minor for bill in bills),
            prepaid_minor=sum(bill.prepaid_minor for bill in bills),
            due_minor=sum(bill.due_minor for bill in bills),
            paid_minor=sum(bill.paid_minor for bill in bills),
            top_up_nanos=seat.top_up_units * NANOS_PER_UNIT,
            charged_nanos=charged_nanos,
            balance_nanos=sum(wallet.balance_nanos for wallet in wallets.wallets),
            revenue_usage_nanos=recognized[_USAGE_REVENUE],
            revenue_fees_nanos=recognized[_FEE_REVENUE],
        )

    async def _is_flushed(self) -> bool:
        for seat in self._seats:
            share, begun = seat.actor.share, seat.subscription.started_at
            since = "" if begun is None else begun.isoformat()
            for meter, units in ((INPUT, share.input_units), (OUTPUT, share.output_units)):
                path = route("/v1/customers/{}/usage", seat.actor.customer_id)
                usage = await self._operator.get(path, Usage, query={"meter": meter, "from": since})
                if sum(int(row.quantity) for row in usage.items) != units:
                    return False
        return True

    async def _are_billed(self) -> bool:
        bills = await self._operator.pages("/v1/invoices", Invoice)
        billed = {bill.customer_id for bill in bills if bill.reason == _PERIOD and bill.state != "draft"}
        return all(seat.actor.customer_id in billed for seat in self._seats)

    async def _are_collected(self) -> bool:
        bills = await self._operator.pages("/v1/invoices", Invoice)
        return not any(bill.state in _OPEN for bill in bills)

    async def _until(self, holds: Callable[[], Awaitable[bool]]) -> bool:
        deadline = time.monotonic() + self._patience_s
        while not await holds():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_PAUSE_S)
        return True


def _is_served(line: Line, until: datetime) -> bool:
    """Whether the line is a fee for what was served to its end."""
    return line.kind == _FEE and line.service_end_at is not None and line.service_end_at <= until
