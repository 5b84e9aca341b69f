"""`GET /v1/customers/{id}/usage` and `/wallets`: a customer's account, live from Redis.

With an operator's token, or with the customer's own key. `?path=team:ml/key:k1` tells the limits of those levels
too.
"""

from __future__ import annotations

from datetime import datetime
from urllib.parse import parse_qsl

import msgspec

from billing_core.contract.path import parse_path
from billing_core.contract.snapshot import FeatureKind, Status
from billing_core.errors import NotFound
from billing_core.values.clock import from_ms
from billing_core.values.ids import is_code
from gateway.admission.account import AccountReader, Bound, FeatureUsage, GrantState
from gateway.admission.caller import Caller, caller_of_customer, tenant_of_reader
from gateway.edge.message import Answer, Request
from gateway.edge.reply import told
from gateway.state.directory import Directory


class FeatureAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One feature now. `kind` is switch, static, metered or gauge; `limit_mode` is hard or soft."""

    feature: str
    kind: str
    enabled: bool
    value: str | None
    limit_units: int | None
    limit_mode: str | None
    used_units: int
    held_units: int
    remaining_units: int | None
    window_start: datetime | None
    reset_at: datetime | None


class BoundAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that holds back: `kind` is limit, rate, concurrency, gauge or spend_cap.

    Units: of the feature; holds for concurrency; nanos of `currency` for a spend cap, which has no feature.
    """

    level: str
    kind: str
    feature: str | None
    counter: str | None
    currency: str | None
    limit_units: int | None
    ceiling_units: int | None
    used_units: int
    held_units: int
    remaining_units: int | None
    window_start: datetime | None
    reset_at: datetime | None


class UsageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer may use and has used: features as the customer itself has them, then each limit of each
    level."""

    customer: str
    path: str
    at: datetime
    status: Status
    features: list[FeatureAnswer]
    bounds: list[BoundAnswer]


class GrantAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One credit block. `usable` is false before it is effective and once it has expired.

    `kind` is promotional, paid or overdraft; an overdraft has lent `lent_nanos`. No features: it pays for all.
    """

    id: str
    usable: bool
    remaining_nanos: int
    held_nanos: int
    effective_at: datetime
    expires_at: datetime | None
    priority: int
    kind: str
    features: tuple[str, ...]
    lent_nanos: int


class WalletAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet: `balance_nanos` is what its usable grants still hold, neither held nor spent."""

    currency: str
    balance_nanos: int
    held_nanos: int
    grants: list[GrantAnswer]


class WalletsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All wallets of a customer."""

    customer: str
    at: datetime
    wallets: list[WalletAnswer]


class AccountRoute:
    """Tells accounts."""

    def __init__(self, reader: AccountReader, directory: Directory) -> None:
        self._reader = reader
        self._directory = directory

    async def usage(self, request: Request) -> Answer:
        """What the customer may use and has used."""
        path = dict(parse_qsl(request.query, keep_blank_values=True)).get("path", "")
        parse_path(path)
        caller = await self._caller(request, path=path)
        usage = await self._reader.usage(caller)
        return told(
            UsageAnswer(
                customer=caller.customer_id,
                path=path,
                at=from_ms(usage.at_ms),
                status=usage.status,
                features=[_feature(one) for one in usage.features],
                bounds=[_bound(one) for one in usage.bounds],
            )
        )

    async def wallets(self, request: Request) -> Answer:
        """What the customer's wallets hold."""
        caller = await self._caller(request)
        purse = await self._reader.purse(caller)
        by_currency: dict[str, list[GrantState]] = {}
        for grant in purse.grants:
            by_currency.setdefault(grant.currency, []).append(grant)
        wallets = [_wallet(currency, grants) for currency, grants in sorted(by_currency.items())]
        return told(WalletsAnswer(customer=caller.customer_id, at=from_ms(purse.at_ms), wallets=wallets))

    async def _caller(self, request: Request, *, path: str = "") -> Caller:
        customer_id = request.subject
        authorization = request.headers.get("Authorization", "")
        tenant_id = await tenant_of_reader(self._directory, authorization, customer_id=customer_id)
        if not is_code(customer_id):
            raise NotFound("no such customer", field="customer")
        return caller_of_customer(tenant_id, customer_id, path=path)


def _feature(one: FeatureUsage) -> FeatureAnswer:
    limited = one.limit_units is not None
    return FeatureAnswer(
        feature=one.feature,
        kind=one.kind.name.lower(),
        enabled=one.enabled,
        value=one.static_value if one.kind is FeatureKind.STATIC else None,
        limit_units=one.limit_units,
        limit_mode=("soft" if one.soft else "hard") if limited else None,
        used_units=one.used_units,
        held_units=one.held_units,
        remaining_units=one.remaining_units,
        window_start=None if one.window_start_ms is None else from_ms(one.window_start_ms),
        reset_at=None if one.reset_at_ms is None else from_ms(one.reset_at_ms),
    )


def _bound(one: Bound) -> BoundAnswer:
    return BoundAnswer(
        level=one.level,
        kind=one.kind,
        feature=one.feature or None,
        counter=one.counter or None,
        currency=one.currency or None,
        limit_units=one.limit_units,
        ceiling_units=one.ceiling_units,
        used_units=one.used_units,
        held_units=one.held_units,
        remaining_units=one.remaining_units,
        window_start=None if one.window_start_ms is None else from_ms(one.window_start_ms),
        reset_at=None if one.reset_at_ms is None else from_ms(one.reset_at_ms),
    )


def _wallet(currency: str, grants: list[GrantState]) -> WalletAnswer:
    return WalletAnswer(
        currency=currency,
        balance_nanos=sum(grant.remaining_nanos for grant in grants if grant.usable),
        held_nanos=sum(grant.held_nanos for grant in grants),
        grants=[
            GrantAnswer(
                id=grant.grant_id,
                usable=grant.usable,
                remaining_nanos=grant.remaining_nanos,
                held_nanos=grant.held_nanos,
                effective_at=from_ms(grant.effective_ms),
                expires_at=None if grant.expires_ms is None else from_ms(grant.expires_ms),
                priority=grant.priority,
                kind=grant.kind.name.lower(),
                features=grant.features,
                lent_nanos=grant.lent_nanos,
            )
            for grant in grants
        ],
    )
