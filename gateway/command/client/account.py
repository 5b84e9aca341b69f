"""What the control plane answers about tenants, catalogs, customers, keys and subscriptions.

The shapes name what a command shows or goes on with; what else an answer holds is passed over, so that tomorrow's
control plane can talk to today's command.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant, and its operator's token at the moment of its birth."""

    tenant_id: str
    name: str = ""
    sandbox: bool = False
    clock_offset_ms: int = 0
    operator_token: str = ""
    created_at: datetime | None = None


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's token; the token itself is shown once."""

    token_id: str = ""
    label: str = ""
    hint: str = ""
    operator_token: str = ""
    created_at: datetime | None = None
    revoked_at: datetime | None = None


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """What time it is for the tenant."""

    now: datetime
    offset_ms: int
    sandbox: bool = False


class PublishedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one plan of a catalog."""

    code: str
    version: int
    changed: bool


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of all plans of a catalog."""

    plans: tuple[PublishedPlan, ...] = ()


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is billed."""

    customer_id: str
    name: str = ""
    time_zone: str = "UTC"
    status: str = ""
    collection: str = ""
    payment_terms_days: int = 0
    stripe_customer: str = ""
    stripe_payment_method: str = ""
    created_at: datetime | None = None
    operator_suspended_at: datetime | None = None
    dunning_suspended_at: datetime | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key; the key itself is shown once."""

    key_id: str
    customer_id: str = ""
    key: str = ""
    label: str = ""
    hint: str = ""
    path: str = ""
    created_at: datetime | None = None
    revoked_at: datetime | None = None


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """A period of a subscription."""

    start_at: datetime
    end_at: datetime


class ComingChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of plan that is not billed yet."""

    plan_code: str
    plan_version: int
    at: datetime


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """Who is on what plan, and the period that is open."""

    subscription_id: str
    customer_id: str
    plan_code: str = ""
    plan_version: int = 0
    state: str = ""
    started_at: datetime | None = None
    cancel_at_end: bool = False
    ended_at: datetime | None = None
    change: ComingChange | None = None
    period: Term | None = None
