"""The books: what stands in each account, what was recognized as revenue, and whether it all adds up."""

from __future__ import annotations

import msgspec
from redis.exceptions import RedisError

from billing_core.adapters.usage_stream import UsageStream
from billing_core.api.route import Call, FlowRoute, Route
from billing_core.api.wire import Nothing
from billing_core.errors import InvalidInput, Unavailable
from billing_core.flows.drift import drift
from billing_core.flows.reconcile import ReconcileReport, reconcile
from billing_core.ledger.account import REVENUE, Account
from billing_core.store.database import Transaction
from billing_core.store.money import ledger
from billing_core.values.text import FIRST_INSTANT, LAST_INSTANT, Instant


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account in one currency. Units: nanos; `nanos` is how it stands, debits positive."""

    account: Account
    currency: str
    debit_nanos: int
    credit_nanos: int
    nanos: int


class TrialBalance(msgspec.Struct, frozen=True, kw_only=True):
    """All accounts; per currency they add up to zero."""

    accounts: tuple[AccountView, ...]


class Stretch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stretch of time, `[from, to)`; without bounds where they are left out."""

    from_at: Instant | None = msgspec.field(default=None, name="from")
    to_at: Instant | None = msgspec.field(default=None, name="to")


class RevenueRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was recognized for one customer in one account and month. Units: nanos, revenue positive."""

    month: str
    account: Account
    customer_id: str
    currency: str
    nanos: int


class Revenue(msgspec.Struct, frozen=True, kw_only=True):
    """What was recognized in a stretch of time."""

    items: tuple[RevenueRow, ...]


class ProofQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether counters of limits, prices, caps and gauges are recounted too, which takes longer."""

    counters: bool = False


async def prove(call: Call[Nothing, ProofQuery]) -> ReconcileReport:
    """Compare every wallet of the tenant with Postgres, and hold the books to their laws; counters on demand."""
    house = call.house
    if house.redis is None:
        raise Unavailable("this process has no Redis to compare with")
    try:
        report = await reconcile(house.database, UsageStream(house.redis), tenant_id=call.tenant_id)
        if not call.query.counters:
            return report
        drifted = await drift(house.database, house.redis, tenant_id=call.tenant_id)
        return msgspec.structs.replace(report, findings=(*report.findings, *drifted.findings))
    except (RedisError, TimeoutError):
        raise Unavailable("Redis does not answer now") from None


async def trial_balance(tx: Transaction, call: Call[Nothing, Nothing]) -> TrialBalance:
    """Every account of the tenant."""
    rows = await ledger.trial_balance(tx, tenant_id=call.tenant_id)
    views = (
        AccountView(
            account=row.account,
            currency=row.currency,
            debit_nanos=row.debit_nanos,
            credit_nanos=row.credit_nanos,
            nanos=row.balance_nanos,
        )
        for row in rows
    )
    return TrialBalance(accounts=tuple(views))


async def revenue(tx: Transaction, call: Call[Nothing, Stretch]) -> Revenue:
    """Revenue by month, account and customer."""
    from_at, to_at = call.query.from_at or FIRST_INSTANT, call.query.to_at or LAST_INSTANT
    if from_at >= to_at:
        raise InvalidInput("must lie after `from`", field="to")
    rows = await ledger.balances(tx, tenant_id=call.tenant_id, from_at=from_at, to_at=to_at)
    items = (
        RevenueRow(
            month=row.month,
            account=row.account,
            customer_id=row.customer_id,
            currency=row.currency,
            nanos=-row.nanos,
        )
        for row in rows
        if row.account in REVENUE
    )
    return Revenue(items=tuple(items))


ROUTES = (
    Route(
        method="GET",
        path="/v1/ledger/trial-balance",
        summary="What stands in each account",
        query=Nothing,
        body=Nothing,
        answer=TrialBalance,
        act=trial_balance,
    ),
    Route(
        method="GET",
        path="/v1/revenue",
        summary="What was recognized as revenue",
        query=Stretch,
        body=Nothing,
        answer=Revenue,
        act=revenue,
    ),
    FlowRoute(
        method="POST",
        path="/v1/reconcile",
        summary="Prove that wallets and Postgres agree to the nano",
        query=ProofQuery,
        body=Nothing,
        answer=ReconcileReport,
        act=prove,
    ),
)
